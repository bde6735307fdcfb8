"""Projection loss (arXiv 2012.02310, Eq. 2): a mask's profiles are those of its box."""

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxdepth.trainer.losses.dice import dice_losses


def projection_losses(
    logits: Float[Tensor, "p 1 hm wm"],
    box_bitmaps: Bool[Tensor, "m hm wm"],
    box_index: Int64[Tensor, " p"],
) -> Float[Tensor, " p"]:
    """dice(max over rows) + dice(max over columns) of each mask; 0..2.

    The maximum is taken on the logits: the sigmoid keeps their order, and is needed on the
    profiles only.  It hands its gradient to one cell, the first that is largest.

    Args:
        box_index: box of each mask.
    """
    losses = []
    for dim in (1, 2):
        profile = logits[:, 0].max(dim=dim).values.sigmoid()
        target = box_bitmaps.any(dim=dim)[box_index]
        losses.append(dice_losses(profile, target.to(profile.dtype)))
    return losses[0] + losses[1]
