"""Numbers that tell a healthy run from a collapsed one, and what they say in words.

All are shares in [0, 1] taken from what a step computes anyway; none has a gradient.  The page
docs/healthy-training.md says what to expect of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxdepth.trainer.criterion.terms import MaskTargets, StudentPass
from boxdepth.trainer.structures import Batch, PseudoMasks, TrustedPairs

HISTOGRAM_BINS = 10

MATCHING_SCORE = "matching_score/"
"""Prefix of the histogram's bins: the lower end of each follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Where a number is expected once the warm-ups are over, and what it means if it isn't."""

    low: float
    high: float
    too_low: str
    too_high: str = ""


EXPECTED = {
    "mask_by_box_area": Range(
        low=0.15,
        high=0.95,
        too_low="masks have collapsed: raise losses.projection, or lower the learning rate",
        too_high="masks fill or leave their boxes: the pair terms have no effect; "
        "look at the pair shares",
    ),
    "tightness": Range(
        low=0.5,
        high=1.0,
        too_low="masks don't reach the sides of their boxes: the projection term isn't learnt yet",
    ),
    "color_pairs": Range(
        low=0.05,
        high=0.97,
        too_low="hardly a pair agrees in colour: lower losses.pairs.color_threshold",
        too_high="nearly every pair agrees in colour: raise losses.pairs.color_threshold",
    ),
    "depth_pairs": Range(
        low=0.05,
        high=0.97,
        too_low="hardly a pair agrees in depth: images without usable depth (flat maps; "
        "`depthgen info` counts them under depth_invalid), noisy depth, or "
        "losses.pairs.depth_threshold is too high",
        too_high="nearly every pair agrees in depth: depth without relief, or not in 0..255 units",
    ),
    "reliable_boxes": Range(
        low=0.05,
        high=1.0,
        too_low="hardly a box gets a pseudo mask: the teacher starts too early, or "
        "distillation.reliability is too high",
    ),
    "teacher_agreement": Range(
        low=0.3,
        high=1.0,
        too_low="student and teacher disagree: the teacher was made from other weights, or the "
        "student has diverged",
    ),
}
"""Expected ranges; the reasons for the bounds are in docs/healthy-training.md."""


@torch.no_grad()
def watched(student: StudentPass, batch: Batch, learns: MaskTargets) -> dict[str, Tensor]:
    """Everything below that this forward pass can tell; NaN where there is nothing to look at.

    With several teachers the numbers are the first one's.
    """
    positives, bitmaps = student.positives, learns.grid.box_bitmaps
    found, given = student.masks.logits[:, 0] > 0, bitmaps[positives.box_index]
    area = found.sum().float()
    numbers = {
        "positives": (student.targets.box_index >= 0).sum().float(),
        "mask_samples": torch.full((), float(len(found)), device=area.device),
        "mask_by_box_area": area / given.sum().clamp(min=1),
        "tightness": tightness(found, given),
    }
    if learns.sources:
        numbers |= pair_shares(learns.sources, bitmaps, batch.image_index)
    for pseudo in learns.pseudo[:1]:
        numbers |= pseudo_mask_shares(pseudo)
        numbers["teacher_agreement"] = teacher_agreement(found & given, pseudo, positives.box_index)
    return numbers


@torch.no_grad()
def tightness(
    masks: Bool[Tensor, "p hm wm"], box_masks: Bool[Tensor, "p hm wm"]
) -> Float[Tensor, ""]:
    """Mean IoU of the box around each mask and its given box; NaN without masks."""
    found, given = _extent(masks), _extent(box_masks)
    least, most = torch.maximum(found, given), torch.minimum(found, given)
    shared = (most[:, 2:] - least[:, :2]).clamp(min=0).prod(dim=1)
    union = _area(found) + _area(given) - shared
    return (shared / union.clamp(min=1))[_area(given) > 0].mean()


def _extent(masks: Bool[Tensor, "p hm wm"]) -> Int64[Tensor, "p 4"]:
    """(top, left, bottom, right) in cells, bottom and right exclusive; zeros for an empty mask."""
    top, bottom = _ends(masks.any(dim=2))
    left, right = _ends(masks.any(dim=1))
    return torch.stack([top, left, bottom, right], dim=1)


def _ends(profile: Bool[Tensor, "p _"]) -> tuple[Int64[Tensor, " p"], Int64[Tensor, " p"]]:
    """First true cell and the one behind the last; zeros if none is true."""
    some = profile.any(dim=1)
    first = profile.int().argmax(dim=1)
    end = profile.shape[1] - profile.flip(1).int().argmax(dim=1)
    return first * some, end * some


def _area(extent: Int64[Tensor, "p 4"]) -> Int64[Tensor, " p"]:
    return (extent[:, 2:] - extent[:, :2]).prod(dim=1)


@torch.no_grad()
def pair_shares(
    sources: Sequence[TrustedPairs],
    box_masks: Bool[Tensor, "m hm wm"],
    image_index: Int64[Tensor, " m"],
) -> dict[str, Float[Tensor, ""]]:
    """Shares of the neighbour pairs inside a box that each source, and all together, agree on."""
    boxed = torch.zeros_like(sources[0].pairs[:, 0], dtype=torch.int32)
    boxed = boxed.index_add_(0, image_index, box_masks.int()) > 0
    total = boxed.sum() * sources[0].pairs.shape[1]
    active = {f"{trusted.source}_pairs": trusted.pairs for trusted in sources}
    active["common_pairs"] = torch.stack(list(active.values())).all(dim=0)
    return {name: (p & boxed[:, None]).sum() / total for name, p in active.items()}


@torch.no_grad()
def pseudo_mask_shares(pseudo: PseudoMasks) -> dict[str, Float[Tensor, ""]]:
    """How many boxes the teacher serves, and the histogram of the matching scores.

    ``matching_score/0.8`` is the share of all boxes whose score lies in [0.8, 0.9); the first bin
    takes in negative scores of matched boxes, the last one scores of 1.  Boxes without a match
    are in no bin.
    """
    matched = pseudo.score[pseudo.score > -1]
    boxes = max(len(pseudo.score), 1)
    shares = {
        "matched_boxes": (pseudo.score > -1).float().mean(),
        "reliable_boxes": pseudo.keep.float().mean(),
    }
    bins = (matched * HISTOGRAM_BINS).long().clamp(0, HISTOGRAM_BINS - 1)
    for index in range(HISTOGRAM_BINS):
        shares[f"{MATCHING_SCORE}{index / HISTOGRAM_BINS:.1f}"] = (bins == index).sum() / boxes
    return shares


@torch.no_grad()
def teacher_agreement(
    masks: Bool[Tensor, "p hm wm"], pseudo: PseudoMasks, box_index: Int64[Tensor, " p"]
) -> Float[Tensor, ""]:
    """Mean IoU of the student's masks and their boxes' reliable pseudo masks; NaN without any.

    Give it masks cropped to their boxes, as the pseudo masks are.
    """
    kept = pseudo.keep[box_index]
    student, teacher = masks[kept], pseudo.mask[box_index[kept]] > 0.5
    shared = (student & teacher).sum(dim=(1, 2))
    union = (student | teacher).sum(dim=(1, 2))
    return (shared / union.clamp(min=1)).mean()


def complaints(numbers: Mapping[str, float]) -> list[str]:
    """What of the given numbers is out of its expected range, one sentence each.

    Args:
        numbers: the means of a stretch of a run, after its warm-ups; NaN and unknown names are
            passed over.
    """
    said = []
    for name, expected in EXPECTED.items():
        value = numbers.get(name)
        if value is None or value != value:
            continue
        if value < expected.low:
            said.append(f"{name} {value:.2f} < {expected.low:.2f}: {expected.too_low}")
        elif value > expected.high and expected.too_high:
            said.append(f"{name} {value:.2f} > {expected.high:.2f}: {expected.too_high}")
    return said
