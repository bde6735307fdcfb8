"""Dense outputs -> detections: the best locations, or those of given boxes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, nms

from boxdepth.trainer.geometry.boxes import ltrb_to_boxes
from boxdepth.trainer.geometry.grid import pyramid_locations
from boxdepth.trainer.geometry.levels import gather_rows
from boxdepth.trainer.model.rules import DetectionLimits
from boxdepth.trainer.structures import FPN_STRIDES, DenseOutputs, Detections

BEST_FIRST = 5
"""Times the wanted detections: so many are asked about first, where there are far more."""


@torch.no_grad()
def detect(
    outputs: DenseOutputs,
    frames: Sequence[tuple[int, int]],
    limits: DetectionLimits,
    *,
    say_cut: bool = True,
) -> list[Detections]:
    """Detections of every image, boxes in pixels of the network's input, not clipped.

    Scores are sqrt(class score x quality); per-class NMS.  A device is waited for twice an image,
    and once more where so many locations pass that some may have been left out.

    Args:
        frames: (height, width) of the unpadded images.
        say_cut: False: nobody reads `Detections.cut`, and nobody waits for it.
    """
    places = _places(outputs)
    return [
        _detect(
            _OneImage(outputs=outputs, image=image, frame=frame, places=places), limits, say_cut
        )
        for image, frame in enumerate(frames)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _OneImage:
    """One image's share of the outputs."""

    outputs: DenseOutputs
    image: int
    frame: tuple[int, int]
    places: tuple[Float[Tensor, "l 2"], Int64[Tensor, " l"]]
    """Locations in pixels of the network's input, and their levels: the same for every image."""


def _places(outputs: DenseOutputs) -> tuple[Float[Tensor, "l 2"], Int64[Tensor, " l"]]:
    device = outputs.class_logits[0].device
    return pyramid_locations(outputs.level_shapes, strides=FPN_STRIDES, device=device)


def _detect(seen: _OneImage, limits: DetectionLimits, say_cut: bool) -> Detections:
    """One image: the best (location, class) pairs of every level, then NMS."""
    outputs, image = seen.outputs, seen.image
    pairs = [_level_scores(outputs, image, level, limits) for level in range(len(FPN_STRIDES))]
    found = torch.cat([passed.flatten() for _, passed, _ in pairs]).nonzero()[:, 0]
    crowded = say_cut and len(found) >= limits.candidates and _any([more for *_, more in pairs])
    scores = torch.cat([scores.flatten() for scores, *_ in pairs])[found].sqrt()
    shapes = [tuple(scores.shape) for scores, *_ in pairs]
    for best in _looks(scores, limits):
        score = scores[best]
        label, row = _unravelled(found[best], shapes)
        kept = _nms_by_class(_boxes_at(seen, row), score, label, limits.nms_iou)
        if len(kept) > limits.max_detections:
            break
    cut = len(kept) > limits.max_detections or (crowded and len(kept) < limits.max_detections)
    kept = kept[: limits.max_detections]
    return replace(_at_rows(seen, row[kept], label=label[kept], score=score[kept]), cut=cut)


def _looks(
    scores: Float[Tensor, " d"], limits: DetectionLimits
) -> Iterator[slice | Int64[Tensor, " k"]]:
    """What NMS is asked about, until it keeps more than are wanted: the best few, then all.

    Whoever survives among the best survives among all, for only better ones can suppress it.  A
    device would have to be waited for between the two.
    """
    few = BEST_FIRST * limits.max_detections
    if scores.device.type == "cpu" and len(scores) > 2 * few:
        yield scores.sort(descending=True, stable=True).indices[:few]
    yield slice(None)


def _any(flags: list[Bool[Tensor, ""]]) -> bool:
    return bool(torch.stack(flags).any())


def _nms_by_class(
    boxes: Float[Tensor, "d 4"],
    scores: Float[Tensor, " d"],
    labels: Int64[Tensor, " d"],
    iou: float,
) -> Int64[Tensor, " k"]:
    """Rows that survive, in decreasing order of score."""
    if boxes.device.type == "cpu" or not len(scores):
        kept: Tensor = batched_nms(boxes, scores, labels, iou)
    else:  # torchvision's own trick, classes far apart, but without its copies from the host
        apart = labels.to(boxes.dtype) * (boxes.max() + 1)
        kept = nms(boxes + apart[:, None], scores, iou)
    return kept


def _level_scores(
    outputs: DenseOutputs, image: int, level: int, limits: DetectionLimits
) -> tuple[Float[Tensor, "cls l"], Bool[Tensor, "cls l"], Bool[Tensor, ""]]:
    """Class score x quality of one level of one image, which of them are looked at, and whether
    more of them pass the threshold."""
    class_scores = outputs.class_logits[level][image].float().flatten(1).sigmoid()
    scores = class_scores * outputs.quality_logits[level][image].float().flatten(1).sigmoid()
    passed = (scores if limits.threshold_with_quality else class_scores) > limits.score_threshold
    more = passed.sum() > limits.candidates
    few = scores.numel() <= limits.candidates
    on_host = scores.device.type == "cpu"  # a device would have to be waited for
    if few or (on_host and not more):
        return scores, passed, more
    best = torch.where(passed, scores, -1).flatten().topk(limits.candidates).indices
    within = torch.zeros_like(passed.flatten()).index_fill_(0, best, True)
    return scores, passed & within.view_as(passed), more


def _unravelled(
    found: Int64[Tensor, " d"], shapes: Sequence[tuple[int, ...]]
) -> tuple[Int64[Tensor, " d"], Int64[Tensor, " d"]]:
    """(class, location among all levels) of indices into the levels' flattened [cls, l] maps."""
    label, row = torch.zeros_like(found), torch.zeros_like(found)
    start = first = 0
    for classes, cells in shapes:
        local = found - start
        own = (local >= 0) & (local < classes * cells)
        label = torch.where(own, local // cells, label)
        row = torch.where(own, local % cells + first, row)
        start, first = start + classes * cells, first + cells
    return label, row


def _at_rows(
    seen: _OneImage, row: Int64[Tensor, " d"], *, label: Int64[Tensor, " d"], score: Tensor
) -> Detections:
    """What one image predicts at locations, counted through all levels."""
    locations, levels = seen.places
    return Detections(
        boxes_xyxy=_boxes_at(seen, row),
        scores=score,
        labels=label,
        location_xy=locations[row],
        level=levels[row],
        params=seen.outputs.controller.of_image(seen.image).at(row, levels[row]).float(),
        size=seen.frame,
    )


def _boxes_at(seen: _OneImage, row: Int64[Tensor, " d"]) -> Float[Tensor, "d 4"]:
    """The boxes that one image predicts at locations."""
    locations, levels = seen.places
    own = slice(seen.image, seen.image + 1)
    ltrb = gather_rows([x[own] for x in seen.outputs.ltrb], row, levels[row]).float()
    return ltrb_to_boxes(locations[row], ltrb)


@torch.no_grad()
def detect_in_boxes(
    outputs: DenseOutputs,
    frames: Sequence[tuple[int, int]],
    boxes_xyxy: Sequence[Float[Tensor, "n 4"]],
) -> list[Detections]:
    """One detection for each given box, in the given order: that of the location that fits best.

    A box takes the location whose predicted box overlaps it most; its own box is kept, the label
    is the location's best class.

    Args:
        frames: (height, width) of the unpadded images.
        boxes_xyxy: boxes of every image, in pixels of the network's input.
    """
    places = _places(outputs)
    return [
        _best_fitting(_OneImage(outputs=outputs, image=image, frame=frame, places=places), boxes)
        for image, (frame, boxes) in enumerate(zip(frames, boxes_xyxy, strict=True))
    ]


def _best_fitting(seen: _OneImage, boxes_xyxy: Float[Tensor, "n 4"]) -> Detections:
    outputs, image = seen.outputs, seen.image
    best = [x[image].float().flatten(1).sigmoid().max(dim=0) for x in outputs.class_logits]
    quality = torch.cat([x[image].float().flatten() for x in outputs.quality_logits]).sigmoid()
    label = torch.cat([values.indices for values in best])
    score = (torch.cat([values.values for values in best]) * quality).sqrt()
    row = torch.arange(len(label), device=label.device)
    ltrb = torch.cat([x[image].float().flatten(1) for x in outputs.ltrb], dim=1).T
    predicted = ltrb_to_boxes(seen.places[0], ltrb)
    given = boxes_xyxy.to(predicted)
    chosen = box_iou(given, predicted).argmax(dim=1)
    found = _at_rows(seen, row[chosen], label=label[chosen], score=score[chosen])
    return replace(found, boxes_xyxy=given)
