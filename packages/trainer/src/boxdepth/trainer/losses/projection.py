"""Projection loss (arXiv 2012.02310, Eq. 2): a mask's profiles are those of its box.

    L = dice(Proj_x(m), Proj_x(b)) + dice(Proj_y(m), Proj_y(b)),  Proj = maximum over the other axis

Of a box that a tile's edge cuts, only a part is seen.  If its right side is cut, the object goes on
to the right, and its highest and lowest point may lie there: which rows of the box the visible part
fills nobody knows, only that it fills none outside.  Its columns are known, for an object that
leaves through the edge has some pixel in each column up to it.  So the profile over the rows of a
box that is cut at the left or right has no target inside the box, and the profile over the columns
of one that is cut above or below neither: there the profile is its own target.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxdepth.trainer.losses.dice import dice_losses

SIDES_ACROSS = {1: (1, 3), 2: (0, 2)}
"""Cut sides (left, top, right, bottom) that leave a profile open, by the axis it is taken along."""


def projection_losses(
    logits: Float[Tensor, "p 1 hm wm"],
    box_bitmaps: Bool[Tensor, "m hm wm"],
    box_index: Int64[Tensor, " p"],
    cut: Bool[Tensor, "m 4"] | None = None,
) -> Float[Tensor, " p"]:
    """dice(max over rows) + dice(max over columns) of each mask; 0..2.

    The maximum is taken on the logits: the sigmoid keeps their order, and is needed on the
    profiles only.  It hands its gradient to one cell, the first that is largest.

    Args:
        box_index: box of each mask.
        cut: sides (left, top, right, bottom) at which a box goes on beyond the tile.
    """
    losses = []
    for dim in (1, 2):
        profile = logits[:, 0].max(dim=dim).values.sigmoid()
        target = box_bitmaps.any(dim=dim)[box_index]
        wanted = target.to(profile.dtype)
        if cut is not None:
            unknown = cut[:, SIDES_ACROSS[dim]].any(dim=1)[box_index]
            wanted = torch.where(unknown[:, None] & target, profile.detach(), wanted)
        losses.append(dice_losses(profile, wanted))
    return losses[0] + losses[1]
