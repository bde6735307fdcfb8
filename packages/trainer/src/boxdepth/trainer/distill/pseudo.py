"""Pseudo masks: the teacher's masks, one for each box, with how far each may be trusted."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from boxdepth.trainer.distill.candidates import Candidates, GivenBoxes, candidates_of, given_boxes
from boxdepth.trainer.distill.ema import teaching
from boxdepth.trainer.distill.frames import resized_images, teacher_size
from boxdepth.trainer.distill.matchers import Matches, matches_of
from boxdepth.trainer.distill.rules import Distillation
from boxdepth.trainer.geometry.grid import equally_padded
from boxdepth.trainer.model.detections import detect
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec
from boxdepth.trainer.model.rules import DetectionLimits
from boxdepth.trainer.structures import Batch, DenseOutputs, MaskGrid, PseudoMasks


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoRules:
    """How the teacher's predictions become targets."""

    distillation: Distillation
    mask_head: MaskHeadSpec
    limits: DetectionLimits = field(default_factory=DetectionLimits)
    """Of the teacher's detections (arXiv 2403.01214 trains with those of inference)."""
    theta: float
    """Scale of the depth similarity, as in the pairs' rule."""
    autocast: torch.dtype | None = None
    """Precision of the teacher's network; masks and matching are in fp32 whatever it is."""


@torch.no_grad()
def pseudo_masks(
    network: nn.Module, batch: Batch, grid: MaskGrid, rules: PseudoRules, *, progress: float
) -> PseudoMasks:
    """The teacher's mask for each box of the batch, cropped to it.

    Args:
        network: called with the student's own images, resized, and their sizes.
        progress: share of the run that is over, for weights that change with it.
    """
    settings = rules.distillation
    frames = [
        teacher_size(
            frame, short_side=settings.teacher_short_side, max_size=settings.teacher_max_size
        )
        for frame in batch.frames
    ]
    together = [list(range(len(frames)))]
    found: dict[int, PseudoMasks] = {}
    with teaching(network, batch_stats=settings.teacher_batch_stats):
        for images in together if settings.teacher_batch_stats else equally_padded(frames):
            own = {image: frames[image] for image in images}
            found |= _taught(network, batch, grid, rules, own, progress=progress)
    return PseudoMasks.cat([found[image] for image in range(len(frames))])


def _taught(
    network: nn.Module,
    batch: Batch,
    grid: MaskGrid,
    rules: PseudoRules,
    frames: Mapping[int, tuple[int, int]],
    *,
    progress: float,
) -> dict[int, PseudoMasks]:
    """The pseudo masks of some images of the batch, by their number; one forward pass.

    Args:
        frames: the teacher's size of each of them.
    """
    images, own = list(frames), list(frames.values())
    pixels = resized_images(batch.images, batch.frames, images=images, targets=own)
    sizes = torch.tensor(own).to(pixels.device, non_blocking=True)
    device = pixels.device.type
    with torch.autocast(device, dtype=rules.autocast) if rules.autocast else nullcontext():
        outputs: DenseOutputs = network(pixels, sizes)
    taught = {}
    for place, detections in enumerate(detect(outputs, own, rules.limits, say_cut=False)):
        given = given_boxes(batch, grid, images[place])
        candidates = candidates_of(
            detections,
            outputs.mask_features[place : place + 1],
            rules.mask_head,
            frame=given.size,
            grid=(grid.box_bitmaps.shape[1], grid.box_bitmaps.shape[2]),
        )
        matches = matches_of(
            given, candidates, rules.distillation, theta=rules.theta, progress=progress
        )
        taught[images[place]] = _assembled(given, candidates, matches, rules.distillation)
    return taught


def _assembled(
    given: GivenBoxes, candidates: Candidates, matches: Matches, settings: Distillation
) -> PseudoMasks:
    masks = _of_the_matched(candidates, matches.index)
    if settings.binarize:
        masks = (masks > settings.mask_threshold).to(masks.dtype)
    return PseudoMasks(
        mask=masks * given.box_masks,
        score=matches.score,
        keep=matches.keep,
        weight=matches.weight,
    )


def _of_the_matched(candidates: Candidates, index: Int64[Tensor, " g"]) -> Tensor:
    """The mask of each box's candidate; zeros where there is none."""
    if not len(candidates.scores):
        return candidates.masks.new_zeros(len(index), *candidates.masks.shape[1:])
    return candidates.masks[index.clamp(min=0)] * (index >= 0)[:, None, None]
