"""Frozen batch norms folded into the convolutions before them, where gradients are made.

A norm that never changes is a factor and a shift of its channels: as part of the convolution's own
weights they cost nothing at the size of the maps, and no map has to be kept for their backward
pass. Without gradients a norm is cheaper than the product of its factor and the weights, so that
the two stay apart. All parameters keep their names and places.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FoldedConv(nn.Conv2d):
    """A convolution that does the work of the frozen norm behind it, where gradients are made."""

    _norm: tuple[nn.BatchNorm2d]

    @classmethod
    def in_place_of(cls, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> "FoldedConv":
        """The same convolution, with the norm's work; both keep their own parameters."""
        made = cls.__new__(cls)
        made.__dict__.update(conv.__dict__)
        made._norm = (norm,)  # in a tuple: not a part of this module, which would rename it
        return made

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o hs ws"]:
        """norm(conv(x)), the norm with its running statistics; conv(x) without gradients."""
        if not torch.is_grad_enabled():
            return super().forward(x)
        (norm,) = self._norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        mean = norm.running_mean if self.bias is None else norm.running_mean - self.bias
        weight = self.weight * factor[:, None, None, None]
        out: Tensor = self._conv_forward(x, weight, norm.bias - mean * factor)
        return out


class DoneNorm(nn.BatchNorm2d):
    """A frozen norm whose work the convolution before it does where gradients are made."""

    @classmethod
    def in_place_of(cls, norm: nn.BatchNorm2d) -> "DoneNorm":
        """With the same parameters and statistics."""
        made = cls.__new__(cls)
        made.__dict__.update(norm.__dict__)
        return made

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """What comes in, where gradients are made; else the norm of it."""
        return x if torch.is_grad_enabled() else super().forward(x)


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
