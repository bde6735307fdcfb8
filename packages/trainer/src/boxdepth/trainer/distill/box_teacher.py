"""BoxTeacher's way of turning teacher masks into targets (arXiv 2210.05174; condinst.md 9)."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import box_iou

MIN_IOU = 0.5
"""A candidate goes only to a box that it overlaps at least this much."""


def pseudo_mask_weights(
    scores: Float[Tensor, " p"], quality: Float[Tensor, " p"]
) -> Float[Tensor, " p"]:
    """How much each pseudo mask's loss counts: sqrt(sqrt(score) quality)."""
    return (scores.sqrt() * quality).sqrt()


def assign_greedily(
    *,
    boxes_xyxy: Float[Tensor, "g 4"],
    candidate_boxes_xyxy: Float[Tensor, "p 4"],
    ranking: Float[Tensor, " p"],
    min_iou: float = MIN_IOU,
    first_is_free: bool = False,
) -> Int64[Tensor, " g"]:
    """Candidate of each box, -1 for none: the best-ranked first, each to its closest free box.

    Args:
        first_is_free: reproduce the reference's bug, for parity: a box held by candidate 0 does
            not count as taken, so that a worse candidate can take it over.
    """
    assigned = torch.full((len(boxes_xyxy),), -1, dtype=torch.int64)
    if len(boxes_xyxy) and len(ranking):
        overlaps = box_iou(boxes_xyxy, candidate_boxes_xyxy)
        *rows, order = torch.cat([overlaps, ranking[None]]).cpu()  # one wait for both
        table = torch.stack(rows)
        for candidate in order.argsort(descending=True, stable=True).tolist():
            free = _free(assigned, first_is_free=first_is_free)
            best, box = table[:, candidate].masked_fill(~free, -1.0).max(dim=0)
            if best >= min_iou:
                assigned[box] = candidate
    return assigned.to(boxes_xyxy.device, non_blocking=True)


def _free(assigned: Int64[Tensor, " g"], *, first_is_free: bool) -> Bool[Tensor, " g"]:
    return assigned <= 0 if first_is_free else assigned < 0
