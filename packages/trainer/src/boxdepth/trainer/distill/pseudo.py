"""Pseudo masks: the teacher's masks, one for each box, with how far each may be trusted."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from boxdepth.trainer.distill.candidates import (
    Candidates,
    GivenBoxes,
    candidates_of,
    given_boxes,
)
from boxdepth.trainer.distill.frames import resized_images
from boxdepth.trainer.distill.matchers import Matcher, Matches
from boxdepth.trainer.distill.teacher import teaching
from boxdepth.trainer.geometry.boxes import box_bitmaps
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec
from boxdepth.trainer.structures import (
    MASK_STRIDE,
    Batch,
    DenseOutputs,
    Detections,
    PseudoMasks,
)

Detect = Callable[[DenseOutputs, Int64[Tensor, "b 2"]], Sequence[Detections]]
"""Dense outputs and unpadded sizes to the detections of each image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distiller:
    """How the teacher's predictions become targets."""

    detect: Detect
    """With the limits of training (arXiv 2403.01214 trains with those of inference)."""
    matcher: Matcher
    mask_head: MaskHeadSpec
    short_side: int | None = 800
    """Of the teacher's input; None: the student's size."""
    max_size: int = 1333
    binarize: bool = True
    mask_threshold: float = 0.5
    batch_stats: bool = True
    """BatchNorm of the teacher in training mode."""
    autocast: torch.dtype | None = None
    """Precision of the teacher's network; masks and matching are in fp32 whatever it is."""


@torch.no_grad()
def pseudo_masks(
    teacher: nn.Module, batch: Batch, distiller: Distiller, *, progress: float
) -> PseudoMasks:
    """The teacher's mask for each box of the batch, cropped to it.

    Args:
        teacher: called with the student's own images, resized, and their sizes.
        progress: share of the run that is over, for weights that change with it.
    """
    images, sizes = resized_images(
        batch.images, batch.sizes, short_side=distiller.short_side, max_size=distiller.max_size
    )
    dtype, device = distiller.autocast, images.device.type
    precision = torch.autocast(device, dtype=dtype) if dtype else nullcontext()
    with teaching(teacher, batch_stats=distiller.batch_stats), precision:
        outputs: DenseOutputs = teacher(images, sizes)
    detections = distiller.detect(outputs, sizes)
    grid = (batch.images.shape[-2] // MASK_STRIDE, batch.images.shape[-1] // MASK_STRIDE)
    box_masks = box_bitmaps(batch.boxes_xyxy, grid=grid, stride=MASK_STRIDE)
    parts = []
    for image, found in enumerate(detections):
        given = given_boxes(batch, box_masks, image)
        candidates = candidates_of(
            found,
            outputs.mask_features[image : image + 1],
            distiller.mask_head,
            frame=given.size,
            grid=grid,
        )
        matches = distiller.matcher(given, candidates, progress=progress)
        parts.append(_assembled(given, candidates, matches, distiller))
    return _concatenated(parts)


def _assembled(
    given: GivenBoxes, candidates: Candidates, matches: Matches, distiller: Distiller
) -> PseudoMasks:
    masks = candidates.masks.new_zeros(given.box_masks.shape)
    matched = matches.index >= 0
    masks[matched] = candidates.masks[matches.index[matched]]
    if distiller.binarize:
        masks = (masks > distiller.mask_threshold).to(masks.dtype)
    return PseudoMasks(
        mask=masks * given.box_masks,
        score=matches.score,
        keep=matches.keep,
        weight=matches.weight,
    )


def _concatenated(parts: Sequence[PseudoMasks]) -> PseudoMasks:
    return PseudoMasks(
        mask=torch.cat([part.mask for part in parts]),
        score=torch.cat([part.score for part in parts]),
        keep=torch.cat([part.keep for part in parts]),
        weight=torch.cat([part.weight for part in parts]),
    )
