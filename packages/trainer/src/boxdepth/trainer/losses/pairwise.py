"""Pairwise term: two neighbours share a label (arXiv 2012.02310, Eq. 4; 2403.01214, Eq. 4-5).

ell(p, q) = -log(m_p m_q + (1 - m_p)(1 - m_q)) with m = sigmoid(z), which equals
softplus(z_p) + softplus(z_q) - softplus(z_p + z_q).  Three things make it cheap: ell is symmetric,
so that two opposite neighbours are one pair with the sum of their weights; where few pairs count,
only those are looked at, else all, shift by shift (always on an accelerator, which would have to
wait for their number); and the gradient sigmoid(z_p) - sigmoid(z_p + z_q) comes with the value, so
that the backward pass is one product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.autograd.function import once_differentiable

from boxdepth.trainer.geometry.neighbours import Offset, overlap

FEW = 0.08
"""Share of the pairs up to which a list of them is faster than looking at all (tests/bench)."""

CELLS_AT_ONCE = 1 << 16
"""Cells of the masks whose pairs are looked at together on a CPU: what its caches hold."""

LARGE = 80.0
"""exp(-80) has its full precision; below exp(-87) numbers are denormal, and ten times as slow."""


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
    offsets: Sequence[Offset],
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """(sum of ell over the counted pairs, number of counted pairs) of every mask.

    Args:
        counted: per box (or image), the (cell, neighbour) pairs that count.  One that points out
            of the map adds 0 to the sum but one to the number.
        box_index: box (or image) of each mask.
        offsets: the neighbours of ``counted``, in order.
    """
    numbers = counted.flatten(1).sum(dim=1)[box_index].to(logits.dtype)
    pairs_of_a_mask = counted[0].numel() if len(counted) else 0
    few = logits.device.type == "cpu" and bool(numbers.sum() <= FEW * len(logits) * pairs_of_a_mask)
    form = sums_over_list if few else sums_over_shifts
    return form(logits, counted, box_index, offsets), numbers


def sums_over_list(
    logits: Float[Tensor, "p 1 hm wm"],
    counted: Bool[Tensor, "m k hm wm"],
    box_index: Int64[Tensor, " p"],
    offsets: Sequence[Offset],
) -> Float[Tensor, " p"]:
    """Sum of ell over the counted pairs of every mask, which are listed first."""
    pairs = pairs_of_masks(counted, box_index, offsets)
    sums: Tensor = _SumsOverList.apply(
        logits, pairs.mask, pairs.first, pairs.second, pairs.weight.to(logits.dtype)
    )
    return sums


def sums_over_shifts(
    logits: Float[Tensor, "p 1 hm wm"],
    counted: Bool[Tensor, "m k hm wm"],
    box_index: Int64[Tensor, " p"],
    offsets: Sequence[Offset],
) -> Float[Tensor, " p"]:
    """Sum of ell over the counted pairs of every mask, all cells at once, shift by shift."""
    half = tuple(offsets[len(offsets) // 2 :])
    sums: Tensor = _SumsOverShifts.apply(logits, folded(counted, offsets), box_index, half)
    return sums


def disagreement(z: Tensor, other: Tensor) -> Tensor:
    """ell of two logits, without cancellation for saturated ones."""
    return _of_opposite(z, other) + _tail(z) + _tail(other) - _tail(z + other)


def _of_opposite(z: Tensor, other: Tensor) -> Tensor:
    """max(z, 0) + max(other, 0) - max(z + other, 0): the smaller of two opposite logits, else 0."""
    return torch.maximum(torch.minimum(z, -other), torch.minimum(-z, other)).clamp_(min=0)


def _tail(z: Tensor) -> Tensor:
    """softplus(z) - max(z, 0).  Beyond 80 it is 0, and no number so small that CPUs stumble."""
    return z.abs().clamp_(max=LARGE).neg_().exp_().log1p_()


def pairs_of_masks(
    counted: Bool[Tensor, "m k hm wm"], box_index: Int64[Tensor, " p"], offsets: Sequence[Offset]
) -> Pairs:
    """The pairs of every mask: those of its box, which several masks share."""
    height, width = counted.shape[-2:]
    cells, half = height * width, len(offsets) // 2
    weights = folded(counted, offsets).flatten()
    found = weights.nonzero()[:, 0]
    box = found // (half * cells)
    cell = found % cells
    steps = box_index.new_tensor([dy * width + dx for dy, dx in offsets[half:]])
    step = steps[found // cells % half]
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


def folded(
    counted: Bool[Tensor, "m k hm wm"], offsets: Sequence[Offset]
) -> UInt8[Tensor, "m half hm wm"]:
    """How many of a pair's two cells count it; 0 where the second lies outside the map."""
    half = len(offsets) // 2
    height, width = counted.shape[-2:]
    both = counted.new_zeros((len(counted), half, height, width), dtype=torch.uint8)
    for number, offset in enumerate(offsets[half:]):
        here, there = overlap(height, width, offset)
        both[:, number, *here] = counted[:, half + number, *here].to(torch.uint8)
        both[:, number, *here] += counted[:, half - 1 - number, *there]
    return both


class _SumsOverList(torch.autograd.Function):
    """Weighted sum of ell over the listed pairs; the gradient is made on the way."""

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


class _SumsOverShifts(torch.autograd.Function):
    """The same over all cells and one shift after the other, some masks at a time on a CPU."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        weights: Tensor,
        box_index: Tensor,
        offsets: tuple[Offset, ...],
    ) -> Tensor:
        sums = logits.new_zeros(len(logits))
        gradient = torch.zeros_like(logits[:, 0]) if ctx.needs_input_grad[0] else None
        together = len(logits)
        if logits.device.type == "cpu":
            together = max(CELLS_AT_ONCE // max(logits[0].numel(), 1), 1) if together else 1
        for first in range(0, len(logits), together):
            part = slice(first, first + together)
            _add_shifts(
                logits[part, 0],
                weights,
                box_index[part],
                offsets,
                sums[part],
                None if gradient is None else gradient[part],
            )
        if gradient is not None:
            ctx.save_for_backward(gradient[:, None])
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_sums[:, None, None, None], None, None, None


def _add_shifts(
    maps: Float[Tensor, "p hm wm"],
    weights: UInt8[Tensor, "m half hm wm"],
    box_index: Int64[Tensor, " p"],
    offsets: tuple[Offset, ...],
    sums: Float[Tensor, " p"],
    gradient: Float[Tensor, "p hm wm"] | None,
) -> None:
    """Add to the masks' sums, and to their gradient where one is wanted."""
    scores, tails = maps.sigmoid(), _tail(maps)
    for number, offset in enumerate(offsets):
        here, there = overlap(maps.shape[1], maps.shape[2], offset)
        weight = weights[:, number, *here][box_index].to(maps.dtype)
        z, other = maps[:, *here], maps[:, *there]
        both = z + other
        loss = _of_opposite(z, other).add_(tails[:, *here]).add_(tails[:, *there])
        loss.sub_(_tail(both)).mul_(weight)
        sums += loss.sum(dim=(1, 2))
        if gradient is not None:
            both.sigmoid_()
            gradient[:, *here] += weight * (scores[:, *here] - both)
            gradient[:, *there] += weight.mul_(both.neg_().add_(scores[:, *there]))
