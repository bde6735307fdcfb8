"""Group norm (arXiv 1803.08494) in half precision on a CPU, channels last.

There torch's kernel reads the few channels of a group at one cell after another, in its forward
pass of maps of less than 1,024 cells and in every backward pass: five to twenty times the seconds
of sums over whole rows. In fp32, and on a GPU, torch's own is as good.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEWEST_CELLS = 64
"""Of a map: below that the number of operations is what counts."""

LARGE_MAP = 1024
"""Cells of a map from which on torch's forward pass reads whole rows, too."""

MOST_NUMBERS = 1 << 23
"""Of the whole batch: beyond that what lies between the sums fits no cache."""


class GroupNorm(nn.GroupNorm):
    """torch's, and its own form of it where that is the faster one."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Every group of channels of an image with mean 0 and variance 1, times weight plus bias;
        statistics in fp32, the result in the type of ``x``."""
        if not reads_whole_rows(x):
            return super().forward(x)
        made: Tensor = _WholeRows.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return made


def reads_whole_rows(x: Float[Tensor, "b c h w"]) -> bool:
    """Whether such a map takes the form that is not torch's."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.bfloat16, torch.float16)
        and x.shape[2] * x.shape[3] >= FEWEST_CELLS
        and x.numel() < MOST_NUMBERS
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
    )


class _WholeRows(torch.autograd.Function):
    """y = x scale + shift with one scale and one shift a channel of an image."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "b c h w"],
        weight: Float[Tensor, " c"],
        bias: Float[Tensor, " c"],
        groups: int,
        eps: float,
    ) -> Float[Tensor, "b c h w"]:
        """The norm of ``x``, and what its gradients need."""
        images, channels, height, width = x.shape
        cells = height * width
        if cells >= LARGE_MAP:
            y, *moments = torch.native_group_norm(
                x, weight, bias, images, channels, cells, groups, eps
            )
            mean, rstd = (moment.float()[:, :, None] for moment in moments)
        else:
            values = x.float()
            sums = torch.stack([values.sum((2, 3)), (values * values).sum((2, 3))])
            mean, square = _of_groups(sums, groups).mean(3, keepdim=True) / cells
            rstd = (square - mean * mean).clamp_(min=0).add_(eps).rsqrt_()
            scale = rstd * _of_groups(weight, groups)
            shift = _of_groups(bias, groups) - mean * scale
            y = torch.addcmul(_maps(shift), values, _maps(scale)).to(x.dtype)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``x``, weight and bias, from the sums of dy and of x dy over a map."""
        x, weight, mean, rstd = ctx.saved_tensors
        groups, cells = mean.shape[1], x.shape[2] * x.shape[3]
        values, dy = x.float(), upstream[0].float()
        sums = torch.stack([dy.sum((2, 3)), (dy * values).sum((2, 3))])
        dy_sums, products = _of_groups(sums, groups)
        scales = _of_groups(weight, groups)
        dy_mean, product_mean = (
            (part * scales).mean(2, keepdim=True) / cells for part in (dy_sums, products)
        )
        slope = (dy_mean * mean - product_mean) * rstd**3
        level = (-slope * mean - dy_mean * rstd).expand_as(dy_sums)
        dx = torch.addcmul(_maps(level), dy, _maps(rstd * scales))
        dx.addcmul_(values, _maps(slope.expand_as(dy_sums)))
        dweight = ((products - dy_sums * mean) * rstd).sum(0).flatten()
        dbias = dy_sums.sum(0).flatten()
        return dx.to(x.dtype), dweight.to(weight.dtype), dbias.to(weight.dtype), None, None


def _of_groups(channels: Float[Tensor, "*n c"], groups: int) -> Float[Tensor, "*n g width"]:
    return torch.unflatten(channels.float(), -1, (groups, -1))


def _maps(channels: Float[Tensor, "b g width"]) -> Float[Tensor, "b c 1 1"]:
    return channels.flatten(1)[:, :, None, None]
