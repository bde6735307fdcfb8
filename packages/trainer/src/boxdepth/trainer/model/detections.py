"""Dense outputs -> detections: the best locations, or those of given boxes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, nms

from boxdepth.trainer.geometry.boxes import ltrb_to_boxes
from boxdepth.trainer.geometry.grid import pyramid_locations
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
    chosen = [
        _best(_of_image(outputs, image, places), limits, say_cut) for image in range(len(frames))
    ]
    return _at_rows(outputs, frames, chosen, places)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """The locations of a pyramid, level by level."""

    location_xy: Float[Tensor, "l 2"]
    """Pixels of the network's input."""
    level: Int64[Tensor, " l"]
    first: tuple[int, ...]
    """Location of each level, and behind the last."""
    rows: Int64[Tensor, "b l"]
    """Of each image's locations in the batch (order: level, image, row, column)."""


def _places(outputs: DenseOutputs) -> _Places:
    device, shapes = outputs.class_logits[0].device, outputs.level_shapes
    location_xy, level = pyramid_locations(shapes, strides=FPN_STRIDES, device=device)
    counts = [height * width for height, width in shapes]
    first = tuple(accumulate(counts, initial=0))
    images = len(outputs.class_logits[0])
    rows = torch.arange(images * first[-1], device=device)
    of_levels = torch.split(rows, [images * cells for cells in counts])
    return _Places(
        location_xy=location_xy,
        level=level,
        first=first,
        rows=torch.cat([part.view(images, -1) for part in of_levels], dim=1),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _OneImage:
    """What is said of one image at the locations of all levels, in fp32."""

    class_scores: Float[Tensor, "cls l"]
    quality: Float[Tensor, " l"]
    boxes_xyxy: Float[Tensor, "l 4"]
    first: tuple[int, ...]
    """Location of each level, and behind the last."""


def _of_image(outputs: DenseOutputs, image: int, places: _Places) -> _OneImage:
    logits, quality, ltrb = (
        torch.cat([x[image].float().flatten(1) for x in maps], dim=1)
        for maps in (outputs.class_logits, outputs.quality_logits, outputs.ltrb)
    )
    return _OneImage(
        class_scores=logits.sigmoid_(),
        quality=quality[0].sigmoid_(),
        boxes_xyxy=ltrb_to_boxes(places.location_xy, ltrb.T),
        first=places.first,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """What one image's detections are made of."""

    row: Int64[Tensor, " d"]
    """Location among those of all levels."""
    boxes_xyxy: Float[Tensor, "d 4"]
    scores: Float[Tensor, " d"]
    labels: Int64[Tensor, " d"]
    cut: bool = False


def _best(seen: _OneImage, limits: DetectionLimits, say_cut: bool) -> _Chosen:
    """The best (location, class) pairs of every level, then NMS."""
    all_scores = seen.class_scores * seen.quality
    passed, more = _passed(seen, all_scores, limits)
    labels, rows = passed.nonzero().unbind(1)
    crowded = say_cut and len(rows) >= limits.candidates and _any(more)
    scores = all_scores[labels, rows].sqrt()
    for best in _looks(scores, limits):
        label, row, score = labels[best], rows[best], scores[best]
        boxes_xyxy = seen.boxes_xyxy[row]
        kept = _nms_by_class(boxes_xyxy, score, label, limits.nms_iou)
        if len(kept) > limits.max_detections:
            break
    cut = len(kept) > limits.max_detections or (crowded and len(kept) < limits.max_detections)
    kept = kept[: limits.max_detections]
    return _Chosen(
        row=row[kept],
        boxes_xyxy=boxes_xyxy[kept],
        scores=score[kept],
        labels=label[kept],
        cut=cut,
    )


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
    return bool(flags) and bool(torch.stack(flags).any())


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


def _passed(
    seen: _OneImage, scores: Float[Tensor, "cls l"], limits: DetectionLimits
) -> tuple[Bool[Tensor, "cls l"], list[Bool[Tensor, ""]]]:
    """Which pairs are looked at: the best of each level among those that pass the threshold; and
    of each level with so many pairs, whether more than those pass."""
    by = scores if limits.threshold_with_quality else seen.class_scores
    passed = by > limits.score_threshold
    flags = []
    for first, end in pairwise(seen.first):
        if (end - first) * len(scores) <= limits.candidates:
            continue
        own = passed[:, first:end]
        more = own.sum() > limits.candidates
        flags.append(more)
        on_host = scores.device.type == "cpu"  # a device would have to be waited for
        if on_host and not more:
            continue
        level = torch.where(own, scores[:, first:end], -1)
        best = level.flatten().topk(limits.candidates).indices
        within = torch.zeros_like(own).flatten().index_fill_(0, best, True)
        own &= within.view_as(own)
    return passed, flags


def _at_rows(
    outputs: DenseOutputs,
    frames: Sequence[tuple[int, int]],
    chosen: Sequence[_Chosen],
    places: _Places,
) -> list[Detections]:
    """Detections of every image; the controller is asked once for all of them."""
    row = torch.cat([found.row for found in chosen])
    location_xy, level = places.location_xy[row], places.level[row]
    rows = torch.cat([own[found.row] for own, found in zip(places.rows, chosen, strict=True)])
    params = outputs.controller.at(rows, level).float()
    counts = [len(found.row) for found in chosen]
    shares = (torch.split(part, counts) for part in (location_xy, level, params))
    return [
        Detections(
            boxes_xyxy=found.boxes_xyxy,
            scores=found.scores,
            labels=found.labels,
            location_xy=location_xy,
            level=level,
            params=params,
            size=frame,
            cut=found.cut,
        )
        for found, frame, location_xy, level, params in zip(chosen, frames, *shares, strict=True)
    ]


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
    chosen = [
        _best_fitting(_of_image(outputs, image, places), boxes)
        for image, boxes in enumerate(boxes_xyxy)
    ]
    return _at_rows(outputs, frames, chosen, places)


def _best_fitting(seen: _OneImage, boxes_xyxy: Float[Tensor, "n 4"]) -> _Chosen:
    best = seen.class_scores.max(dim=0)
    scores = (best.values * seen.quality).sqrt()
    given = boxes_xyxy.to(seen.boxes_xyxy)
    row = box_iou(given, seen.boxes_xyxy).argmax(dim=1)
    return _Chosen(row=row, boxes_xyxy=given, scores=scores[row], labels=best.indices[row])
