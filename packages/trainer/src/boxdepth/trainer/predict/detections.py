"""Dense outputs -> detections: the best locations, or those of given boxes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from boxdepth.trainer.geometry.boxes import ltrb_to_boxes
from boxdepth.trainer.geometry.grid import cell_locations
from boxdepth.trainer.structures import FPN_STRIDES, DenseOutputs, Detections


@torch.no_grad()
def detect(
    outputs: DenseOutputs,
    sizes: Int64[Tensor, "b 2"],
    *,
    score_threshold: float = 0.05,
    threshold_with_quality: bool = True,
    pre_nms: int = 1000,
    nms_iou: float = 0.6,
    max_detections: int = 100,
) -> list[Detections]:
    """Detections of every image, boxes in pixels of the network's input, not clipped.

    Scores are sqrt(class score x quality); per-class NMS (condinst.md 2.3).

    Args:
        sizes: (height, width) of the unpadded images.
        score_threshold: on class score x quality before the root, or on the class score alone.
        pre_nms: (location, class) pairs kept per level.
    """
    found = []
    for image, size in enumerate(sizes.tolist()):
        levels = [
            _level_candidates(
                outputs,
                image,
                level,
                score_threshold=score_threshold,
                with_quality=threshold_with_quality,
                limit=pre_nms,
            )
            for level in range(len(FPN_STRIDES))
        ]
        everything = _joined(levels, size=(size[0], size[1]))
        keep = batched_nms(everything.boxes_xyxy, everything.scores, everything.labels, nms_iou)
        found.append(chosen_rows(everything, keep[:max_detections]))
    return found


def _level_candidates(
    outputs: DenseOutputs,
    image: int,
    level: int,
    *,
    score_threshold: float,
    with_quality: bool,
    limit: int,
) -> Detections:
    """The best (location, class) pairs of one level of one image above the threshold."""
    logits = outputs.class_logits[level][image].float()
    class_scores = logits.flatten(1).sigmoid()
    scores = class_scores * outputs.quality_logits[level][image].float().flatten(1).sigmoid()
    passed = (scores if with_quality else class_scores) > score_threshold
    label, cell = passed.nonzero().unbind(1)
    best = scores[label, cell]
    if len(best) > limit:
        best, order = best.topk(limit)
        label, cell = label[order], cell[order]
    return _at_cells(outputs, image, level, cell=cell, label=label, score=best.sqrt())


def _at_cells(
    outputs: DenseOutputs,
    image: int,
    level: int,
    *,
    cell: Int64[Tensor, " d"],
    label: Int64[Tensor, " d"],
    score: Float[Tensor, " d"],
) -> Detections:
    ltrb = outputs.ltrb[level][image].float()
    location = cell_locations(
        (ltrb.shape[1], ltrb.shape[2]), stride=FPN_STRIDES[level], device=ltrb.device
    )[cell]
    return Detections(
        boxes_xyxy=ltrb_to_boxes(location, ltrb.flatten(1)[:, cell].T),
        scores=score,
        labels=label,
        location_xy=location,
        level=torch.full_like(cell, level),
        params=outputs.controller[level][image].flatten(1)[:, cell].T.float(),
        size=(0, 0),
    )


def _joined(parts: Sequence[Detections], *, size: tuple[int, int]) -> Detections:
    return Detections(
        boxes_xyxy=torch.cat([part.boxes_xyxy for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        location_xy=torch.cat([part.location_xy for part in parts]),
        level=torch.cat([part.level for part in parts]),
        params=torch.cat([part.params for part in parts]),
        size=size,
    )


def chosen_rows(found: Detections, rows: Tensor) -> Detections:
    return Detections(
        boxes_xyxy=found.boxes_xyxy[rows],
        scores=found.scores[rows],
        labels=found.labels[rows],
        location_xy=found.location_xy[rows],
        level=found.level[rows],
        params=found.params[rows],
        size=found.size,
    )


@torch.no_grad()
def detect_in_boxes(
    outputs: DenseOutputs,
    sizes: Int64[Tensor, "b 2"],
    boxes_xyxy: Sequence[Float[Tensor, "n 4"]],
) -> list[Detections]:
    """One detection for each given box, in the given order: that of the location that fits best.

    A box takes the location whose predicted box overlaps it most; its own box is kept, the label
    is the location's best class.

    Args:
        boxes_xyxy: boxes of every image, in pixels of the network's input.
    """
    found = []
    for image, (size, boxes) in enumerate(zip(sizes.tolist(), boxes_xyxy, strict=True)):
        levels = [
            _best_class_everywhere(outputs, image, level) for level in range(len(FPN_STRIDES))
        ]
        everything = _joined(levels, size=(size[0], size[1]))
        best = box_iou(boxes.to(everything.boxes_xyxy), everything.boxes_xyxy).argmax(dim=1)
        chosen = chosen_rows(everything, best)
        found.append(
            Detections(
                boxes_xyxy=boxes.to(everything.boxes_xyxy),
                scores=chosen.scores,
                labels=chosen.labels,
                location_xy=chosen.location_xy,
                level=chosen.level,
                params=chosen.params,
                size=chosen.size,
            )
        )
    return found


def _best_class_everywhere(outputs: DenseOutputs, image: int, level: int) -> Detections:
    class_scores, label = outputs.class_logits[level][image].float().flatten(1).sigmoid().max(dim=0)
    quality = outputs.quality_logits[level][image].float().flatten().sigmoid()
    cell = torch.arange(len(label), device=label.device)
    score = (class_scores * quality).sqrt()
    return _at_cells(outputs, image, level, cell=cell, label=label, score=score)
