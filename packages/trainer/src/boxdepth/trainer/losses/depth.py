"""Depth regression (arXiv 2403.01214, Eq. 2): what the depth layer says against pseudo depth."""

from jaxtyping import Bool, Float
from torch import Tensor

from boxdepth.trainer.losses.rules import Reduction


def depth_loss(
    depth: Float[Tensor, "p 1 hm wm"],
    target: Float[Tensor, "p 1 hm wm"],
    box_bitmaps: Bool[Tensor, "p hm wm"],
    *,
    reduction: Reduction = "pixels",
) -> Float[Tensor, ""]:
    """Mean over in-box cells of (P_depth - T)^2; 0, with a graph, where there are none.

    Args:
        depth: prediction in (0, 1), after its sigmoid.
        target: inverse depth / 255.
        box_bitmaps: cells that count; an instance without usable depth has none.
        reduction: one mean over all cells, so that large boxes weigh more (the authors' code), or
            the mean of every instance's mean.
    """
    error = ((depth - target.detach()).square() * box_bitmaps[:, None]).sum(dim=(1, 2, 3))
    cells = box_bitmaps.sum(dim=(1, 2))
    if reduction == "pixels":
        return error.sum() / cells.sum().clamp(min=1)
    return (error / cells.clamp(min=1)).sum() / (cells > 0).sum().clamp(min=1)
