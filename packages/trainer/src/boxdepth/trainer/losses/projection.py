"""Projection loss (arXiv 2012.02310, Eq. 2): a mask's profiles are those of its box."""

from jaxtyping import Bool, Float
from torch import Tensor

from boxdepth.trainer.losses.dice import dice_losses


def projection_losses(
    logits: Float[Tensor, "p 1 hm wm"], box_bitmaps: Bool[Tensor, "p hm wm"]
) -> Float[Tensor, " p"]:
    """dice(max over rows) + dice(max over columns) of each mask; 0..2.

    The maximum is taken on the logits: the sigmoid keeps their order, and is needed on the
    profiles only.  It hands its gradient to one cell, the first that is largest.
    """
    maps = logits[:, 0]
    return profile_losses(maps, box_bitmaps, dim=1) + profile_losses(maps, box_bitmaps, dim=2)


def profile_losses(
    logits: Float[Tensor, "p hm wm"], box_bitmaps: Bool[Tensor, "p hm wm"], *, dim: int
) -> Float[Tensor, " p"]:
    """Dice between the two profiles along one axis."""
    profile = logits.max(dim=dim).values.sigmoid()
    return dice_losses(profile, box_bitmaps.any(dim=dim).to(profile.dtype))
