"""What is matched in one image: the given boxes and the teacher's detections, in one frame."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from boxdepth.trainer.distill.frames import masks_on_student_grid
from boxdepth.trainer.distill.matching import depth_steps
from boxdepth.trainer.geometry.boxes import clip_boxes, rescale_boxes
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec, mask_probabilities
from boxdepth.trainer.structures import Batch, Detections, MaskGrid

CELLS_AT_ONCE = 1 << 18
"""Cells of the mask features' grid, over all candidates, whose masks are made together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenBoxes:
    """The ground truth of one image, in the student's frame."""

    boxes_xyxy: Float[Tensor, "g 4"]
    box_masks: Bool[Tensor, "g hm wm"]
    depth_steps: Float[Tensor, "2 hm wm"] | None
    """Inverse depth, 0..255, at pixel (4i + 2, 4j + 2) and `DEPTH_STEP` to the right of it; None
    in a batch of depth on the mask grid that nobody matches by."""
    depth_valid: Bool[Tensor, ""]
    size: tuple[int, int]
    """(height, width) of the unpadded image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The teacher's detections of one image, in the student's frame."""

    boxes_xyxy: Float[Tensor, "p 4"]
    scores: Float[Tensor, " p"]
    masks: Float[Tensor, "p hm wm"]
    """Probabilities on the mask grid."""


def given_boxes(batch: Batch, grid: MaskGrid, image: int) -> GivenBoxes:
    """What the batch says about one of its images."""
    first = sum(batch.counts[:image])
    own = slice(first, first + batch.counts[image])
    return GivenBoxes(
        boxes_xyxy=batch.boxes_xyxy[own],
        box_masks=grid.box_bitmaps[own],
        depth_steps=_depth_steps(batch, grid, image),
        depth_valid=batch.depth_valid[image],
        size=batch.frames[image],
    )


def _depth_steps(batch: Batch, grid: MaskGrid, image: int) -> Float[Tensor, "2 hm wm"] | None:
    if batch.depth_steps is not None:
        return batch.depth_steps[image]
    on_grid = batch.inverse_depth.shape[-2:] == grid.valid.shape[-2:]
    return None if on_grid else depth_steps(batch.inverse_depth[image])


def candidates_of(
    found: Detections,
    mask_features: Float[Tensor, "1 c h8 w8"],
    mask_head: MaskHeadSpec,
    *,
    frame: tuple[int, int],
    grid: tuple[int, int],
) -> Candidates:
    """The teacher's detections with their masks, brought to the student's ``frame``.

    Boxes are clipped; detections without an area inside the image are dropped.
    """
    boxes = clip_boxes(rescale_boxes(found.boxes_xyxy, size=found.size, new_size=frame), frame)
    some = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1).nonzero()[:, 0]
    found, boxes = found.take(some), boxes[some]
    together = max(CELLS_AT_ONCE // mask_features[0, 0].numel(), 32)
    masks = [
        masks_on_student_grid(part, teacher_frame=found.size, student_frame=frame, grid=grid)
        for part in mask_probabilities(mask_features, found, mask_head, chunk=together)
    ]
    if not masks:
        masks = [mask_features.new_zeros((0, *grid), dtype=torch.float32)]
    return Candidates(
        boxes_xyxy=boxes,
        scores=found.scores,
        masks=masks[0] if len(masks) == 1 else torch.cat(masks),
    )
