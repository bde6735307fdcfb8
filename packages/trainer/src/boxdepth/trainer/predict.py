"""Dense outputs -> detections -> masks at the original size -> COCO results."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from boxdepth.trainer.geometry.boxes import clip_boxes, ltrb_to_boxes, rescale_boxes
from boxdepth.trainer.geometry.grid import cell_locations
from boxdepth.trainer.geometry.resize import LinearResize, mask_to_image
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec, mask_outputs
from boxdepth.trainer.structures import (
    FPN_STRIDES,
    MASK_FEATURE_STRIDE,
    MASK_STRIDE,
    DenseOutputs,
    Detections,
    Positives,
)

Rle = dict[str, Any]
"""COCO run-length encoding: ``size`` (height, width) and compressed ``counts``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """What is found in one image, in the frame of the original image."""

    boxes_xyxy: Float[np.ndarray, "d 4"]
    scores: Float[np.ndarray, " d"]
    labels: Int64[np.ndarray, " d"]
    masks: tuple[Rle, ...]
    size: tuple[int, int]
    """(height, width)."""


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
        found.append(_chosen(everything, keep[:max_detections]))
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


def _chosen(found: Detections, rows: Tensor) -> Detections:
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
        chosen = _chosen(everything, best)
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


@torch.no_grad()
def predict_masks(
    outputs: DenseOutputs,
    detections: Sequence[Detections],
    spec: MaskHeadSpec,
    *,
    original_sizes: Sequence[tuple[int, int]],
    mask_threshold: float = 0.5,
    drop_empty_boxes: bool = True,
    chunk: int = 32,
) -> list[Instances]:
    """Masks of all detections at the original size, as RLE, ``chunk`` instances at a time.

    Probabilities at stride 4 are upsampled by the aligned bilinear, cut to the unpadded input and
    resized bilinearly to the original size, in one product of two thin matrices; only the part
    that can exceed the threshold is computed (condinst.md 5).

    Args:
        original_sizes: (height, width) of every image before it was resized for the network.
        drop_empty_boxes: leave out detections whose clipped box has no area.
        chunk: bounds the memory: about 40 bytes a cell of the mask grid for each.
    """
    results = []
    for image, (found, original) in enumerate(zip(detections, original_sizes, strict=True)):
        boxes = rescale_boxes(found.boxes_xyxy, size=found.size, new_size=original)
        boxes = clip_boxes(boxes, original)
        if drop_empty_boxes:
            rows = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1).nonzero()[:, 0]
            found, boxes = _chosen(found, rows), boxes[rows]
        features = outputs.mask_features[image : image + 1]
        rows_of, columns_of = mask_resizers(features, size=found.size, new_size=original)
        masks = [
            encode_rle(part, offset=offset, size=original)
            for probabilities in mask_probabilities(features, found, spec, chunk=chunk)
            for part, offset in enlarged_masks(
                probabilities, rows_of, columns_of, threshold=mask_threshold
            )
        ]
        results.append(
            Instances(
                boxes_xyxy=boxes.cpu().numpy(),
                scores=found.scores.cpu().numpy(),
                labels=found.labels.cpu().numpy(),
                masks=tuple(masks),
                size=original,
            )
        )
    return results


def mask_probabilities(
    mask_features: Float[Tensor, "1 c h8 w8"],
    found: Detections,
    spec: MaskHeadSpec,
    *,
    chunk: int = 32,
) -> Iterator[Float[Tensor, "d hm wm"]]:
    """Mask probabilities of one image's detections on the mask grid, ``chunk`` at a time."""
    for start in range(0, len(found.scores), chunk):
        part = slice(start, start + chunk)
        zeros = torch.zeros_like(found.level[part])
        positives = Positives(
            location_xy=found.location_xy[part],
            level=found.level[part],
            box_index=zeros,
            image_index=zeros,
            params=found.params[part],
        )
        yield mask_outputs(mask_features, positives, spec).logits[:, 0].sigmoid()


def mask_resizers(
    mask_features: Tensor, *, size: tuple[int, int], new_size: tuple[int, int]
) -> tuple[LinearResize, LinearResize]:
    """Mask grid -> original image, for the rows and for the columns."""
    factor = MASK_FEATURE_STRIDE // MASK_STRIDE
    rows, columns = (
        mask_to_image(factor * cells, stride=MASK_STRIDE, size=length, new_size=new_length).to(
            mask_features.device
        )
        for cells, length, new_length in zip(mask_features.shape[-2:], size, new_size, strict=True)
    )
    return rows, columns


def enlarged_masks(
    probabilities: Float[Tensor, "d hm wm"],
    rows: LinearResize,
    columns: LinearResize,
    *,
    threshold: float,
) -> Iterator[tuple[Bool[np.ndarray, "hp wp"], tuple[int, int]]]:
    """(part of each mask that isn't empty, its first row and column), at the original size.

    Interpolated values lie between their cells', so that only what is linked to a cell above the
    threshold needs to be computed.
    """
    above = probabilities > threshold
    vertical = _extents(above.any(dim=2))
    horizontal = _extents(above.any(dim=1))
    for one, y_range, x_range in zip(probabilities, vertical, horizontal, strict=True):
        (y, y_end), (top, bottom) = rows.reached(*y_range)
        (x, x_end), (left, right) = columns.reached(*x_range)
        part = rows.weights[y:y_end, top:bottom] @ one[top:bottom, left:right]
        part = part @ columns.weights[x:x_end, left:right].T
        yield (part > threshold).cpu().numpy(), (y, x)


def _extents(above: Bool[Tensor, "d n"]) -> list[tuple[int, int]]:
    """(first True, last True + 1) of each row; (0, 0) where there is none."""
    number = above.shape[1]
    index = torch.arange(number, device=above.device)
    first = torch.where(above, index, number).amin(dim=1)
    end = torch.where(above, index + 1, 0).amax(dim=1)
    return [(min(a, b), b) for a, b in zip(first.tolist(), end.tolist(), strict=True)]


def encode_rle(
    part: Bool[np.ndarray, "hp wp"], *, offset: tuple[int, int], size: tuple[int, int]
) -> Rle:
    """COCO RLE of a mask of ``size`` that is ``part`` at ``offset`` and empty elsewhere.

    Only the columns of the part are looked at; the counts before and after them are arithmetic.
    """
    height, width = size
    (y, x), columns = offset, part.shape[1]
    slab = np.zeros((height, columns), dtype=bool, order="F")
    slab[y : y + part.shape[0]] = part
    flat = slab.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)) + x * height
    if part.any() and flat[-1] and (x + columns) < width:
        changes = np.append(changes, (x + columns) * height)
    counts = np.diff(changes, prepend=0, append=height * width).tolist()
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def to_coco_results(
    instances: Instances, *, image_id: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Entries of a COCO results file: original category ids, boxes xywh, RLE masks.

    Args:
        category_ids: original id of each label.
    """
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
            "segmentation": mask,
        }
        for (x1, y1, x2, y2), score, label, mask in zip(
            instances.boxes_xyxy.tolist(),
            instances.scores.tolist(),
            instances.labels.tolist(),
            instances.masks,
            strict=True,
        )
    ]
