"""Neighbour pairs on the mask grid that colour or pseudo depth believes to share a label.

No gradient flows from here.  Everything is computed once per image, never per box.
"""

from collections.abc import Container

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from boxdepth.trainer.geometry.neighbours import Offset, shifted
from boxdepth.trainer.structures import MaskGrid, TrustedPairs
from boxdepth.trainer.targets.rules import PAIR_TERMS, PairRule


def trusted_pairs(
    grid: MaskGrid, rule: PairRule, terms: Container[str] = PAIR_TERMS
) -> tuple[TrustedPairs, ...]:
    """The pairs of every source that one of the terms learns from.

    A further source is a further entry with a term of its own.
    """
    sources = {"color": color_pairs, "consistency": depth_pairs}
    return tuple(source(grid, rule) for term, source in sources.items() if term in terms)


@torch.no_grad()
def color_pairs(grid: MaskGrid, rule: PairRule) -> TrustedPairs:
    """Pairs whose colour similarity reaches the threshold (arXiv 2012.02310, Eq. 5)."""
    values = similarity(grid.lab, grid.valid, rule)
    return TrustedPairs(source="color", term="color", pairs=agreeing(values, rule.color_threshold))


@torch.no_grad()
def depth_pairs(grid: MaskGrid, rule: PairRule) -> TrustedPairs:
    """Pairs whose depth similarity reaches tau_d, in images that have a usable depth.

    arXiv 2403.01214, Eq. 3-5.
    """
    values = similarity(grid.inverse_depth, grid.valid, rule)
    pairs = agreeing(values, rule.depth_threshold) & grid.depth_valid[:, None, None, None]
    return TrustedPairs(source="depth", term="consistency", pairs=pairs)


def similarity(
    maps: Float[Tensor, "b c hm wm"], valid: Bool[Tensor, "b hm wm"], rule: PairRule
) -> Float[Tensor, "b k hm wm"]:
    """exp(-||x_p - x_q|| / theta) for each neighbour q; 0 where q is invalid or outside the map.

    arXiv 2012.02310, Eq. 5 on LAB colours, arXiv 2403.01214, Eq. 3 on inverse depth in 0..255.
    Only the neighbour's validity counts, not the centre's.
    """
    offsets = rule.offsets
    forward = offsets[len(offsets) // 2 :]
    ahead = [_similarity(maps, offset, theta=rule.theta) for offset in forward]
    behind = [shifted(value, (-dy, -dx)) for (dy, dx), value in zip(forward, ahead, strict=True)]
    both = torch.stack([*reversed(behind), *ahead], dim=1)
    neighbour_valid = torch.stack([shifted(valid, offset) for offset in offsets], dim=1)
    return both * neighbour_valid


def _similarity(
    maps: Float[Tensor, "b c hm wm"], offset: Offset, *, theta: float
) -> Float[Tensor, "b hm wm"]:
    """Similarity to one neighbour; meaningless where it lies outside the map."""
    difference = maps - shifted(maps, offset)
    distance = (
        difference.abs()[:, 0] if maps.shape[1] == 1 else difference.square().sum(dim=1).sqrt()
    )
    return torch.exp(-distance / theta)


def agreeing(values: Float[Tensor, "b k hm wm"], threshold: float) -> Bool[Tensor, "b k hm wm"]:
    """Pairs that are similar enough, and not 0: that says invalid or outside."""
    return (values >= threshold) & (values > 0)
