"""The fast backend: hotcoco (Rust), fed with some images at a time.

hotcoco computes in threads of its own, which do not survive a fork: in a process that was forked
after its parent had used it, any call would wait for ever. `is_usable` knows; the reference then
counts instead, with the same result.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from hotcoco import Params, StreamingEval

from boxdepth.evaluate.coco_ap.protocol import AREA_RANGES, Curves, IouType
from boxdepth.evaluate.results import GroundTruth, Predictions
from boxdepth.evaluate.results.arrays import Bool, Float64, Int64
from boxdepth.evaluate.results.bulk import without_collector
from boxdepth.evaluate.results.columns import positions

# Enough detections at once to occupy the threads, few enough to stay in cache.
_DETECTIONS_AT_ONCE = 2**14
_first_user: int | None = None


def is_usable() -> bool:
    """Whether this process may call hotcoco: false in a fork of one that has."""
    return _first_user in (None, os.getpid())


@without_collector
def evaluate_with_hotcoco(
    truth: GroundTruth,
    predictions: Predictions,
    iou_type: IouType,
    max_detections: tuple[int, ...],
) -> Curves:
    """Precision and recall of every class, by hotcoco."""
    global _first_user
    _first_user = os.getpid()
    parameters = Params(iou_type)
    parameters.max_dets = list(max_detections)
    parameters.area_rng = [list(limits) for limits in AREA_RANGES.values()]
    parameters.area_rng_lbl = list(AREA_RANGES)
    categories = [{"id": k, "name": name} for k, name in enumerate(truth.category_names)]
    streaming = StreamingEval(categories, iou_type, params=parameters)
    shown = _comparable(truth, predictions) if iou_type == "segm" else None
    for images, objects, rows in _batches(truth, predictions):
        found = predictions.take(rows)
        streaming.update(
            images,
            _annotations(truth.take(objects), objects + 1, iou_type),
            _detections(found, iou_type),
            segmentation=None if shown is None else _masks(found, shown[rows]),
        )
    evaluation = streaming.finalize()
    evaluation.accumulate()
    parts = evaluation.eval or {}
    return Curves(
        precision=np.asarray(parts["precision"], dtype=np.float64),
        recall=np.asarray(parts["recall"], dtype=np.float64),
        scores=np.asarray(parts["scores"], dtype=np.float64),
        max_detections=max_detections,
    )


def _batches(
    truth: GroundTruth, predictions: Predictions
) -> Iterator[tuple[list[dict[str, int]], Int64[np.ndarray, " g"], Int64[np.ndarray, " d"]]]:
    """Some images, the annotations and the detections in them."""
    count = len(truth.image_ids)
    by_image = np.argsort(truth.image_index, kind="stable")
    of_objects = np.searchsorted(truth.image_index[by_image], np.arange(count + 1))
    of_rows = np.searchsorted(predictions.image_index, np.arange(count + 1))
    weight = of_rows + of_objects
    ends = np.flatnonzero(np.diff(weight // _DETECTIONS_AT_ONCE, append=-1)) + 1
    sizes, begin = truth.image_sizes.tolist(), 0
    for end in np.minimum(ends, count).tolist():
        yield (
            [{"id": i, "height": sizes[i][0], "width": sizes[i][1]} for i in range(begin, end)],
            by_image[of_objects[begin] : of_objects[end]],
            np.arange(of_rows[begin], of_rows[end]),
        )
        begin = end


def _annotations(
    objects: GroundTruth, ids: Int64[np.ndarray, " g"], iou_type: IouType
) -> list[dict[str, Any]]:
    """Plain records; ids from 1, as one of 0 reads as "unmatched" in COCO's code."""
    columns: dict[str, list[Any]] = {
        "id": ids.tolist(),
        "image_id": objects.image_index.tolist(),
        "category_id": objects.category_index.tolist(),
        "bbox": objects.boxes_xywh.tolist(),
        "area": objects.areas.tolist(),
        "iscrowd": objects.crowd.astype(np.int64).tolist(),
    }
    if iou_type == "segm":
        columns["segmentation"] = objects.masks.rles()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _detections(found: Predictions, iou_type: IouType) -> Float64[np.ndarray, "d 7"]:
    """Image, box, score, class. hotcoco files a detection under small, medium or large by its box;
    where masks are compared, the box says nothing else, and is one of the mask's area."""
    boxes = found.boxes_xywh
    if iou_type == "segm":
        nothing = np.zeros(len(found))
        boxes = np.stack((nothing, nothing, found.masks.areas, nothing + 1), axis=1)
    columns = (
        found.image_index[:, None], boxes, found.scores[:, None], found.category_index[:, None]
    )  # fmt: skip
    return np.concatenate(columns, axis=1, dtype=np.float64)


def _masks(found: Predictions, shown: Bool[np.ndarray, " n"]) -> list[Any]:
    """Run lengths of those detections that are to be shown; nothing for the others."""
    rows = np.flatnonzero(shown)
    masks: list[Any] = [[]] * len(shown)
    for row, mask in zip(rows.tolist(), found.masks.take(rows).rles(), strict=True):
        masks[row] = mask
    return masks


def _comparable(truth: GroundTruth, predictions: Predictions) -> Bool[np.ndarray, " n"]:
    """Detections in whose image their class is annotated: the shape of no other one matters."""
    pairs = [
        table.image_index * len(truth.category_ids) + table.category_index
        for table in (predictions, truth)
    ]
    return positions(pairs[0], np.unique(pairs[1]))[1]
