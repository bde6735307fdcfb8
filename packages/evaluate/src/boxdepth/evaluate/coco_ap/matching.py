"""Which detection finds which annotation, at each IoU threshold: COCO's greedy rule, per detection.

The backends give precision and recall; comparisons, kinds of error and galleries need to know of
every detection whether it was right. AP from these matches equals the backends' (tested).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from boxdepth.evaluate.coco_ap.protocol import (
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    RECALL_LEVELS,
    IouType,
)
from boxdepth.evaluate.results import GroundTruth, Predictions
from boxdepth.evaluate.results.arrays import Bool, Float64, Int64
from boxdepth.evaluate.results.masks import box_ious, mask_ious


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """What became of every detection, for objects of any size.

    Attributes:
        annotation: row of the annotation each detection found, -1 for none, by threshold.
        ignored: it found a crowd region, or is beyond the best of its image and class: it counts
            neither way.
    """

    annotation: Int64[np.ndarray, "t n"]
    ignored: Bool[np.ndarray, "t n"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOverlaps:
    """One image: its detections by falling score, its annotations, and all their IoUs."""

    image: int
    detections: Int64[np.ndarray, " d"]
    annotations: Int64[np.ndarray, " g"]
    iou: Float64[np.ndarray, "d g"]


def image_overlaps(
    truth: GroundTruth, predictions: Predictions, iou_type: IouType
) -> Iterator[ImageOverlaps]:
    """Every image with its detections and annotations of all classes."""
    by_image = np.argsort(truth.image_index, kind="stable")
    every = np.arange(len(truth.image_ids) + 1)
    object_cuts = np.searchsorted(truth.image_index[by_image], every)
    cuts = np.searchsorted(predictions.image_index, every)
    for image in range(len(truth.image_ids)):
        detections = np.arange(cuts[image], cuts[image + 1])
        annotations = by_image[object_cuts[image] : object_cuts[image + 1]]
        crowd = truth.crowd[annotations]
        if iou_type == "bbox":
            boxes = predictions.boxes_xywh[detections], truth.boxes_xywh[annotations]
            iou = box_ious(*boxes, crowd)
        else:
            masks = predictions.masks.take(detections), truth.masks.take(annotations)
            iou = mask_ious(*masks, crowd)
        yield ImageOverlaps(image=image, detections=detections, annotations=annotations, iou=iou)


def match(
    truth: GroundTruth,
    predictions: Predictions,
    iou_type: IouType,
    most: int = MAX_DETECTIONS[-1],
) -> Matches:
    """Match every class of every image as COCO does, the best `most` detections of each."""
    shape = (len(IOU_THRESHOLDS), len(predictions))
    annotation, ignored = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=bool)
    for overlaps in image_overlaps(truth, predictions, iou_type):
        classes = predictions.category_index[overlaps.detections]
        of_objects = truth.category_index[overlaps.annotations]
        for category in np.unique(classes).tolist():
            rows = np.flatnonzero(classes == category)
            ignored[:, overlaps.detections[rows[most:]]] = True
            rows = rows[:most]
            columns = np.flatnonzero(of_objects == category)
            columns = columns[np.argsort(truth.crowd[overlaps.annotations[columns]], kind="stable")]
            objects = overlaps.annotations[columns]
            crowd = truth.crowd[objects]
            place = greedy(overlaps.iou[np.ix_(rows, columns)], crowd)
            found = place >= 0
            detections = overlaps.detections[rows]
            annotation[:, detections] = np.where(found, np.append(objects, -1)[place], -1)
            ignored[:, detections] = found & np.append(crowd, False)[place]
    return Matches(annotation=annotation, ignored=ignored)


def greedy(
    iou: Float64[np.ndarray, "d g"], last: Bool[np.ndarray, " g"], *, used_up: bool = False
) -> Int64[np.ndarray, "t d"]:
    """Object found by each detection at each IoU threshold, -1 for none.

    Detections choose in order; each takes the object of highest IoU that is free (among equals the
    last in order), and one of ``last`` only if there is no other.

    Args:
        last: COCO's crowd regions, which are never used up; what LVIS ignores.
        used_up: those of ``last`` are taken once, too.
    """
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None]
    chosen = np.full((len(IOU_THRESHOLDS), len(iou)), -1, dtype=np.int64)
    free = np.ones((len(IOU_THRESHOLDS), iou.shape[1]), dtype=bool)
    lines = np.arange(len(IOU_THRESHOLDS))
    for row in np.flatnonzero((iou >= thresholds[0, 0]).any(axis=1)).tolist():
        reached = (iou[row] >= thresholds) & free
        worth = np.where(reached, iou[row] + np.where(last, 0.0, 2.0), -1.0)
        best = worth.shape[1] - 1 - np.argmax(worth[:, ::-1], axis=1)
        found = worth[lines, best] >= 0
        chosen[found, row] = best[found]
        taken = found if used_up else found & ~last[best]
        free[lines[taken], best[taken]] = False
    return chosen


def average_precisions(
    right: Bool[np.ndarray, " n"],
    weights: Float64[np.ndarray, "b n"],
    wanted: Float64[np.ndarray, " b"],
) -> Float64[np.ndarray, " b"]:
    """COCO's 101-point AP of one class at one threshold, under several weightings of images.

    Args:
        right: of each counted detection by falling score, whether it found something.
        weights: how often each counts, one line per weighting (a bootstrap draws images anew).
        wanted: annotations to be found under each weighting.

    Returns:
        AP per weighting, NaN where nothing is to be found.
    """
    if not len(right):
        return np.where(wanted > 0, 0.0, np.nan)
    true = np.cumsum(np.where(right, weights, 0.0), axis=1)
    precision = true / (np.cumsum(weights, axis=1) + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(wanted[:, None] > 0, true / wanted[:, None], 0.0)
    lines = 2.0 * np.arange(len(weights))[:, None]
    places = np.searchsorted((recall + lines).reshape(-1), (RECALL_LEVELS + lines).reshape(-1))
    places = places.reshape(len(weights), -1) - len(right) * np.arange(len(weights))[:, None]
    padded = np.concatenate((precision, np.zeros((len(weights), 1))), axis=1)
    ap = np.take_along_axis(padded, np.minimum(places, len(right)), axis=1).mean(axis=1)
    return np.where(wanted > 0, ap, np.nan)
