"""Mask branch (arXiv 2003.05664): features shared by all instances of an image."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from boxdepth.trainer.geometry.resize import aligned_bilinear


class MaskBranch(nn.Module):
    """p3, p4 and p5, refined, brought to p3's size, summed, and a tower of 3x3 (condinst.md 3)."""

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int = 128,
        convs: int = 4,
        out_channels: int = 16,
        levels: int = 3,
    ) -> None:
        super().__init__()
        self.refine = nn.ModuleList(conv_norm(in_channels, channels) for _ in range(levels))
        self.tower = nn.Sequential(*(conv_norm(channels, channels) for _ in range(convs)))
        self.output = nn.Conv2d(channels, out_channels, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Mask features [b c h/8 w/8] from p3..; no activation at the end."""
        refined = [refine(x) for refine, x in zip(self.refine, features, strict=False)]
        merged = refined[0]
        for x in refined[1:]:
            merged = merged + aligned_bilinear(x, merged.shape[-1] // x.shape[-1])
        out: Tensor = self.output(self.tower(merged))
        return out


class SemanticHead(nn.Module):
    """Class logits at stride 8 from p3, for CondInst's auxiliary loss; used in training only."""

    def __init__(
        self, *, in_channels: int, channels: int, num_classes: int, prior: float = 0.01
    ) -> None:
        super().__init__()
        self.tower = nn.Sequential(conv_norm(in_channels, channels), conv_norm(channels, channels))
        self.output = nn.Conv2d(channels, num_classes, 1)
        nn.init.constant_(self.output.bias, -math.log((1 - prior) / prior))  # type: ignore[arg-type]

    def forward(self, p3: Tensor) -> Tensor:
        """[b cls h/8 w/8]."""
        out: Tensor = self.output(self.tower(p3))
        return out


def conv_norm(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 without bias, batch norm, ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
