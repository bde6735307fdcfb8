"""Frozen batch norms folded into the convolutions before them, where gradients are made.

A norm that never changes is a factor and a shift of its channels: as part of the convolution's own
weights they cost nothing at the size of the maps, and no map has to be kept for their backward
pass. Without gradients a norm is cheaper than the product of its factor and the weights, so that
the two stay apart, unless a network will only predict: `absorb_norms` then makes the product once.
All parameters keep their names and places.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FoldedConv(nn.Conv2d):
    """A convolution that does the work of the frozen norm behind it, where gradients are made."""

    _norm: "tuple[DoneNorm]"

    @classmethod
    def in_place_of(cls, conv: nn.Conv2d, norm: "DoneNorm") -> "FoldedConv":
        """The same convolution, with the norm's work; both keep their own parameters."""
        made = cls.__new__(cls)
        made.__dict__.update(conv.__dict__)
        made._norm = (norm,)  # in a tuple: not a part of this module, which would rename it
        return made

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o hs ws"]:
        """norm(conv(x)), the norm with its running statistics; conv(x) without gradients."""
        (norm,) = self._norm
        if norm.absorbed:
            absorbed: Tensor = self._conv_forward(x, self.weight, norm.bias)
            return absorbed
        if not torch.is_grad_enabled():
            return super().forward(x)
        factor, shift = self._factor_and_shift()
        out: Tensor = self._conv_forward(x, self.weight * factor[:, None, None, None], shift)
        return out

    def absorb(self) -> None:
        """Make the norm's factor a part of the weights, in place; the norm keeps the shift.

        Both together compute what they did, and their parameters still say so.
        """
        (norm,) = self._norm
        with torch.no_grad():
            factor, shift = self._factor_and_shift()
            self.weight.mul_(factor[:, None, None, None])
            if self.bias is not None:
                self.bias.zero_()
            norm.become_shift(shift)

    def _factor_and_shift(self) -> tuple[Float[Tensor, " o"], Float[Tensor, " o"]]:
        (norm,) = self._norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        mean = norm.running_mean if self.bias is None else norm.running_mean - self.bias
        return factor, norm.bias - mean * factor


class DoneNorm(nn.BatchNorm2d):
    """A frozen norm whose work the convolution before it does where gradients are made."""

    absorbed = False
    """Only its shift is left, and the convolution before it adds that, with or without gradients.
    New parameters end this."""

    @classmethod
    def in_place_of(cls, norm: nn.BatchNorm2d) -> "DoneNorm":
        """With the same parameters and statistics."""
        made = cls.__new__(cls)
        made.__dict__.update(norm.__dict__)
        return made

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """What comes in, where the convolution has done the work; else the norm of it."""
        return x if self.absorbed or torch.is_grad_enabled() else super().forward(x)

    def become_shift(self, shift: Float[Tensor, " c"]) -> None:
        """Factor 1, mean 0, variance 1 and this shift."""
        assert self.running_mean is not None
        assert self.running_var is not None
        self.weight.fill_(1)
        self.bias.copy_(shift)
        self.running_mean.zero_()
        self.running_var.fill_(1 - self.eps)
        self.absorbed = True

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        self.absorbed = False
        super()._load_from_state_dict(*args, **options)


def fold_norms(net: nn.Module) -> None:
    """Fold the batch norms of a timm ResNet in place; whatever else there is stays as it is.

    They must never learn nor follow a batch again.
    """
    for parent, conv_name, norm_name in list(_pairs(net)):
        conv, norm = getattr(parent, conv_name), getattr(parent, norm_name)
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            done = DoneNorm.in_place_of(norm)
            setattr(parent, conv_name, FoldedConv.in_place_of(conv, done))
            setattr(parent, norm_name, done)


def absorb_norms(net: nn.Module) -> None:
    """Write the norms that `fold_norms` has folded into the weights, for a network that predicts.

    The outputs change by rounding alone.
    """
    for module in net.modules():
        if isinstance(module, FoldedConv):
            module.absorb()


def _pairs(net: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """(module, name of a convolution in it, name of the norm that alone sees its output)."""
    from timm.models.resnet import BasicBlock, Bottleneck

    blocks = [m for m in net.modules() if isinstance(m, BasicBlock | Bottleneck)]
    for module in [net, *blocks] if blocks else ():
        for number in (1, 2, 3):
            if hasattr(module, f"conv{number}") and hasattr(module, f"bn{number}"):
                yield module, f"conv{number}", f"bn{number}"
        if isinstance(shortcut := getattr(module, "downsample", None), nn.Sequential):
            names = [name for name, _ in shortcut.named_children()]
            yield from ((shortcut, a, b) for a, b in pairwise(names))
