"""Modulated deformable convolution (arXiv 1811.11168) as a drop-in for a 3x3."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class ModulatedDeformConv(nn.Module):
    """A convolution that learns where to sample (offset) and how much each sample counts (mask).

    ``offset`` starts at zero, so that it begins as the plain convolution at half strength.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int, dilation: int
    ) -> None:
        super().__init__()
        self.stride, self.dilation = stride, dilation
        self.padding = dilation * (kernel // 2)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.offset = nn.Conv2d(
            in_channels, 3 * kernel**2, kernel, stride, self.padding, dilation=dilation
        )
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]

    @classmethod
    def in_place_of(cls, conv: nn.Conv2d) -> "ModulatedDeformConv":
        """The deformable form of a square, ungrouped convolution without bias, with its weights."""
        made = cls(
            conv.in_channels,
            conv.out_channels,
            kernel=conv.kernel_size[0],
            stride=conv.stride[0],
            dilation=conv.dilation[0],
        )
        made.weight = nn.Parameter(conv.weight.detach())
        return made

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o hs ws"]:
        """Sampled at learnt places, in fp32: the kernel has no half precision on CPUs."""
        vertical, horizontal, modulation = self.offset(x).float().chunk(3, dim=1)
        out: Tensor = deform_conv2d(
            x.float(),
            torch.cat([vertical, horizontal], dim=1),
            self.weight.float(),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            mask=modulation.sigmoid(),
        )
        return out.to(x.dtype)
