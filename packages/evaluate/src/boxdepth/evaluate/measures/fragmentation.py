"""Objects in pieces: parts of a mask, one object as several masks, several objects as one.

Splits and merges are the over- and under-segmentation of Hoover et al. (1996, "An experimental
comparison of range image segmentation algorithms", tolerance 0.5), with one addition for masks
that may overlap: near copies of one piece count once. Classes are not looked at.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from boxdepth.evaluate.coco_ap.matching import ImageOverlaps
from boxdepth.evaluate.measures.outcomes import IOU
from boxdepth.evaluate.results import GroundTruth, MaskTable, Predictions
from boxdepth.evaluate.results.arrays import Bool, Int64
from boxdepth.evaluate.results.masks import mask_ious

_HALF = 0.5
_TOUCHING = np.ones((3, 3), dtype=int)  # pixels that meet at a corner are one part


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragmentation:
    """How whole objects stay, among detections from a score on.

    Attributes:
        parts, truth_parts: mean number of connected parts of a predicted, of an annotated mask;
            None where there is none.
        in_parts, truth_in_parts: share of masks of more than one part.
        objects, detections: annotations (no crowds) and detections that were looked at.
        split: annotations that no detection finds at IoU 0.5, and two or more detections lie in by
            half or more, together covering half of it or more.
        merged: detections that find no annotation at IoU 0.5, and hold half or more of two or more
            annotations that make up half of it or more.
    """

    parts: float | None
    in_parts: float | None
    truth_parts: float | None
    truth_in_parts: float | None
    objects: int
    detections: int
    split: int
    merged: int

    def to_json(self) -> dict[str, float | int | None]:
        """The numbers by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def fragmentation(
    truth: GroundTruth,
    predictions: Predictions,
    overlaps: Iterable[ImageOverlaps],
    kept: Bool[np.ndarray, " n"],
) -> Fragmentation:
    """Count parts, splits and merges.

    Args:
        truth: annotations with masks.
        predictions: detections with masks.
        overlaps: of both, image by image.
        kept: which detections take part.
    """
    split = merged = 0
    for image in overlaps:
        rows = np.flatnonzero(kept[image.detections])
        columns = np.flatnonzero(~truth.crowd[image.annotations])
        if not len(rows) or not len(columns):
            continue
        found = predictions.masks.take(image.detections[rows])
        objects = truth.masks.take(image.annotations[columns])
        iou = image.iou[np.ix_(rows, columns)]
        split += _split(found, objects, iou)
        merged += _split(objects, found, iou.T)
    parts = count_parts(predictions.masks, np.flatnonzero(kept))
    real = np.flatnonzero(~truth.crowd)
    truth_parts = count_parts(truth.masks, real)
    return Fragmentation(
        parts=_mean(parts[parts > 0]),
        in_parts=_mean(parts[parts > 0] > 1),
        truth_parts=_mean(truth_parts[truth_parts > 0]),
        truth_in_parts=_mean(truth_parts[truth_parts > 0] > 1),
        objects=len(real),
        detections=int(kept.sum()),
        split=split,
        merged=merged,
    )


def count_parts(masks: MaskTable, rows: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """Connected parts (eight neighbours) of the masks at `rows`."""
    from scipy import ndimage  # half a second to import, which AP alone need not pay

    chosen = masks.take(rows)
    boxes = chosen.boxes_xywh().astype(np.int64).tolist()
    counts = np.zeros(len(rows), dtype=np.int64)
    for place, (x, y, width, height) in enumerate(boxes):
        if width and height:
            window = chosen.pixels(place)[y : y + height, x : x + width]
            counts[place] = ndimage.label(window, structure=_TOUCHING)[1]
    return counts


def _split(pieces: MaskTable, wholes: MaskTable, iou: np.ndarray) -> int:
    """How many wholes that no piece equals are made up of several pieces."""
    alone = np.flatnonzero(iou.max(axis=0) < IOU)
    inside = mask_ious(pieces, wholes.take(alone), np.ones(len(alone), dtype=bool)) >= _HALF
    inside &= (pieces.areas > 0)[:, None]
    count = 0
    for column in np.flatnonzero(inside.sum(axis=0) >= 2).tolist():
        rows = _without_copies(pieces, np.flatnonzero(inside[:, column]))
        if len(rows) < 2:
            continue
        whole = wholes.pixels(int(alone[column]))
        covered = np.zeros_like(whole)
        for row in rows:
            covered |= pieces.pixels(row)
        count += bool((covered & whole).sum() >= _HALF * whole.sum())
    return count


def _without_copies(pieces: MaskTable, rows: Int64[np.ndarray, " m"]) -> list[int]:
    """The pieces that do not equal an earlier one at IoU 0.5."""
    chosen = pieces.take(rows)
    same = mask_ious(chosen, chosen, np.zeros(len(rows), dtype=bool)) >= IOU
    kept: list[int] = []
    for place in range(len(rows)):
        if not same[place, kept].any():
            kept.append(place)
    return [int(row) for row in rows[kept]]


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None
