"""Pairwise term: two neighbours share a label (arXiv 2012.02310, Eq. 4; 2403.01214, Eq. 4-5).

ell(p, q) = -log(m_p m_q + (1 - m_p)(1 - m_q)) with m = sigmoid(z), which equals
softplus(z_p) + softplus(z_q) - softplus(z_p + z_q).  Three things make it cheap: ell is symmetric,
so that two opposite neighbours are one pair with the sum of their weights; only pairs that count
are looked at, which are a few percent; and its gradient sigmoid(z_p) - sigmoid(z_p + z_q) comes
with it, so that the backward pass is one product.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from boxdepth.trainer.geometry.neighbours import neighbour_offsets, overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Unordered neighbour pairs of every mask, sorted by mask."""

    mask: Int64[Tensor, " e"]
    first: Int64[Tensor, " e"]
    """Cell in the flattened stack of masks."""
    second: Int64[Tensor, " e"]
    weight: Float[Tensor, " e"]
    """1 if one of the two cells counts the pair, 2 if both do."""


def pairwise_sums(
    logits: Float[Tensor, "p 1 hm wm"],
    counted: Bool[Tensor, "m k hm wm"],
    box_index: Int64[Tensor, " p"],
    *,
    kernel_size: int = 3,
    dilation: int = 2,
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """(sum of ell over the counted pairs, number of counted pairs) of every mask.

    Args:
        counted: per box, the (cell, neighbour) pairs that count.  One that points out of the map
            adds 0 to the sum but one to the number.
        box_index: box of each mask.
    """
    numbers = counted.flatten(1).sum(dim=1)[box_index].to(logits.dtype)
    pairs = pairs_of_masks(counted, box_index, kernel_size=kernel_size, dilation=dilation)
    sums: Tensor = _PairSums.apply(
        logits, pairs.mask, pairs.first, pairs.second, pairs.weight.to(logits.dtype)
    )
    return sums, numbers


def disagreement(z: Tensor, other: Tensor) -> Tensor:
    """ell of two logits, without cancellation for saturated ones."""
    opposite = (z < 0) != (other < 0)
    smaller = torch.minimum(z.abs(), other.abs())
    return torch.where(opposite, smaller, 0) + _tail(z) + _tail(other) - _tail(z + other)


def _tail(z: Tensor) -> Tensor:
    """softplus(z) - max(z, 0)."""
    return torch.log1p(torch.exp(-z.abs()))


def pairs_of_masks(
    counted: Bool[Tensor, "m k hm wm"],
    box_index: Int64[Tensor, " p"],
    *,
    kernel_size: int,
    dilation: int,
) -> Pairs:
    """The pairs of every mask: those of its box, which several masks share."""
    height, width = counted.shape[-2:]
    folded, steps = _folded(counted, kernel_size, dilation)
    weights = folded.flatten()
    found = weights.nonzero()[:, 0]
    cells = height * width
    box = found // (len(steps) * cells)
    cell = found % cells
    step = steps[found // cells % len(steps)]
    per_box = torch.bincount(box, minlength=len(counted))
    start = per_box.cumsum(0) - per_box
    per_mask = per_box[box_index]
    mask = torch.arange(len(box_index), device=box_index.device).repeat_interleave(per_mask)
    shift = start[box_index] - (per_mask.cumsum(0) - per_mask)
    pair = torch.arange(len(mask), device=mask.device) + shift[mask]
    first = mask * cells + cell[pair]
    return Pairs(
        mask=mask, first=first, second=first + step[pair], weight=weights[found][pair].float()
    )


def _folded(
    counted: Bool[Tensor, "m k hm wm"], kernel_size: int, dilation: int
) -> tuple[Tensor, Int64[Tensor, " half"]]:
    """How many of a pair's two cells count it [m k/2 hm wm], and the step to the other cell."""
    offsets = neighbour_offsets(kernel_size, dilation)
    half = len(offsets) // 2
    height, width = counted.shape[-2:]
    folded = counted.new_zeros((len(counted), half, height, width), dtype=torch.uint8)
    for number, offset in enumerate(offsets[half:]):
        here, there = overlap(height, width, offset)
        folded[:, number, *here] = counted[:, half + number, *here].to(torch.uint8)
        folded[:, number, *here] += counted[:, half - 1 - number, *there]
    steps = torch.tensor([dy * width + dx for dy, dx in offsets[half:]], device=counted.device)
    return folded, steps


class _PairSums(torch.autograd.Function):
    """Weighted sum of ell over the pairs of every mask; the gradient is made on the way."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, mask: Tensor, first: Tensor, second: Tensor, weight: Tensor
    ) -> Tensor:
        flat = logits.flatten()
        z, other = flat[first], flat[second]
        sums = logits.new_zeros(len(logits))
        sums.index_add_(0, mask, weight * disagreement(z, other))
        if ctx.needs_input_grad[0]:
            both = (z + other).sigmoid_()
            gradient = torch.zeros_like(flat)
            gradient.index_add_(0, first, weight * (z.sigmoid_() - both))
            gradient.index_add_(0, second, weight * (other.sigmoid_() - both))
            ctx.save_for_backward(gradient.view_as(logits))
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_sums[:, None, None, None], None, None, None, None
