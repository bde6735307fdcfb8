"""IoU losses of box sides (arXiv 1608.01471, 1902.09630), smoothed by one as the reference does."""

import torch
from jaxtyping import Float
from torch import Tensor

from boxdepth.trainer.losses.rules import BoxLoss


def smoothed_ious(
    ltrb: Float[Tensor, "p 4"], target_ltrb: Float[Tensor, "p 4"]
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """(IoU, GIoU) of boxes around the same locations: (I + 1) / (U + 1), minus (C - U) / C.

    In units of the level's stride, so that the one inflates small boxes (condinst.md 2.2).
    """
    low, high = torch.minimum(ltrb, target_ltrb), torch.maximum(ltrb, target_ltrb)
    intersection, hull = _area(low), _area(high)
    union = _area(ltrb) + _area(target_ltrb) - intersection
    iou = (intersection + 1) / (union + 1)
    return iou, iou - (hull - union) / hull


def box_losses(
    iou: Float[Tensor, " p"], giou: Float[Tensor, " p"], kind: BoxLoss = "giou"
) -> Float[Tensor, " p"]:
    """1 - GIoU, -log IoU or 1 - IoU of each location."""
    if kind == "giou":
        return 1 - giou
    return -iou.log() if kind == "iou" else 1 - iou


def _area(ltrb: Float[Tensor, "p 4"]) -> Float[Tensor, " p"]:
    left, top, right, bottom = ltrb.unbind(1)
    return (left + right) * (top + bottom)
