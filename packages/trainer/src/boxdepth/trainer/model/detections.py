"""Dense outputs -> detections: the best locations, or those of given boxes."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, nms

from boxdepth.trainer.geometry.boxes import ltrb_to_boxes
from boxdepth.trainer.geometry.grid import pyramid_locations
from boxdepth.trainer.geometry.levels import gather_rows
from boxdepth.trainer.model.rules import DetectionLimits
from boxdepth.trainer.structures import FPN_STRIDES, DenseOutputs, Detections


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
    return [_detect(outputs, image, frame, limits, say_cut) for image, frame in enumerate(frames)]


def _detect(
    outputs: DenseOutputs,
    image: int,
    frame: tuple[int, int],
    limits: DetectionLimits,
    say_cut: bool,
) -> Detections:
    """One image: the best (location, class) pairs of every level, then NMS."""
    pairs = [_level_scores(outputs, image, level, limits) for level in range(len(FPN_STRIDES))]
    found = torch.cat([passed.flatten() for _, passed, _ in pairs]).nonzero()[:, 0]
    crowded = say_cut and len(found) >= limits.candidates and _any([more for *_, more in pairs])
    scores = torch.cat([scores.flatten() for scores, *_ in pairs])[found].sqrt()
    label, row = _unravelled(found, [tuple(scores.shape) for scores, *_ in pairs])
    boxes = _boxes_at(outputs, image, row)
    kept = _nms_by_class(boxes, scores, label, limits.nms_iou)
    cut = len(kept) > limits.max_detections or (crowded and len(kept) < limits.max_detections)
    kept = kept[: limits.max_detections]
    detections = _at_rows(
        outputs, image, row[kept], frame=frame, label=label[kept], score=scores[kept]
    )
    return replace(detections, cut=cut)


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
    outputs: DenseOutputs,
    image: int,
    row: Int64[Tensor, " d"],
    *,
    frame: tuple[int, int],
    label: Int64[Tensor, " d"],
    score: Float[Tensor, " d"],
) -> Detections:
    """What one image predicts at locations, counted through all levels."""
    location, level = _locations(outputs, row)
    return Detections(
        boxes_xyxy=_boxes_at(outputs, image, row),
        scores=score,
        labels=label,
        location_xy=location,
        level=level,
        params=outputs.controller.of_image(image).at(row, level).float(),
        size=frame,
    )


def _boxes_at(outputs: DenseOutputs, image: int, row: Int64[Tensor, " d"]) -> Float[Tensor, "d 4"]:
    """The boxes that one image predicts at locations."""
    location, level = _locations(outputs, row)
    ltrb = gather_rows([x[image : image + 1] for x in outputs.ltrb], row, level).float()
    return ltrb_to_boxes(location, ltrb)


def _locations(
    outputs: DenseOutputs, row: Int64[Tensor, " d"]
) -> tuple[Float[Tensor, "d 2"], Int64[Tensor, " d"]]:
    """(location in pixels of the network's input, level) of locations of one image."""
    locations, levels = pyramid_locations(
        outputs.level_shapes, strides=FPN_STRIDES, device=row.device
    )
    return locations[row], levels[row]


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
    return [
        _best_fitting(outputs, image, frame, boxes)
        for image, (frame, boxes) in enumerate(zip(frames, boxes_xyxy, strict=True))
    ]


def _best_fitting(
    outputs: DenseOutputs, image: int, frame: tuple[int, int], boxes_xyxy: Float[Tensor, "n 4"]
) -> Detections:
    best = [x[image].float().flatten(1).sigmoid().max(dim=0) for x in outputs.class_logits]
    quality = torch.cat([x[image].float().flatten() for x in outputs.quality_logits]).sigmoid()
    label = torch.cat([values.indices for values in best])
    score = (torch.cat([values.values for values in best]) * quality).sqrt()
    row = torch.arange(len(label), device=label.device)
    ltrb = torch.cat([x[image].float().flatten(1) for x in outputs.ltrb], dim=1).T
    locations, _ = pyramid_locations(outputs.level_shapes, strides=FPN_STRIDES, device=row.device)
    predicted = ltrb_to_boxes(locations, ltrb)
    given = boxes_xyxy.to(predicted)
    chosen = box_iou(given, predicted).argmax(dim=1)
    found = _at_rows(
        outputs, image, row[chosen], frame=frame, label=label[chosen], score=score[chosen]
    )
    return replace(found, boxes_xyxy=given)
