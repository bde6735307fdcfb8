"""The fast backend: hotcoco (Rust), fed with columns.

hotcoco computes in threads of its own, which do not survive a fork: in a process that was forked
after its parent had used it, any call would wait for ever. `is_usable` knows; the reference then
counts instead, with the same result.
"""

import os
import warnings
from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval

from boxdepth.evaluate.coco_ap.protocol import AREA_RANGES, Curves, IouType
from boxdepth.evaluate.results import GroundTruth, Predictions

_first_user: int | None = None


def is_usable() -> bool:
    """Whether this process may call hotcoco: false in a fork of one that has."""
    return _first_user in (None, os.getpid())


def evaluate_with_hotcoco(
    truth: GroundTruth,
    predictions: Predictions,
    iou_type: IouType,
    max_detections: tuple[int, ...],
) -> Curves:
    """Precision and recall of every class, by hotcoco."""
    global _first_user
    _first_user = os.getpid()
    expected = _annotations(truth, with_masks=iou_type == "segm")
    found = _detections(expected, predictions, iou_type)
    evaluation = COCOeval(expected, found, iou_type)
    parameters = evaluation.params
    parameters.max_dets = list(max_detections)
    parameters.area_rng = [list(limits) for limits in AREA_RANGES.values()]
    parameters.area_rng_lbl = list(AREA_RANGES)
    evaluation.params = parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that max_detections is not COCO's
        evaluation.evaluate()
        evaluation.accumulate()
    parts = evaluation.eval or {}
    return Curves(
        precision=np.asarray(parts["precision"], dtype=np.float64),
        recall=np.asarray(parts["recall"], dtype=np.float64),
        scores=np.asarray(parts["scores"], dtype=np.float64),
        max_detections=max_detections,
    )


def _annotations(truth: GroundTruth, *, with_masks: bool) -> COCO:
    sizes = truth.image_sizes.tolist()
    segmentations: list[Any] | None = truth.masks.rles() if with_masks else None
    return COCO.from_arrays(
        [{"id": i, "height": height, "width": width} for i, (height, width) in enumerate(sizes)],
        [{"id": k, "name": name} for k, name in enumerate(truth.category_names)],
        truth.image_index,
        truth.category_index,
        truth.boxes_xywh,
        ids=np.arange(1, len(truth) + 1),  # an id of 0 reads as "unmatched" in COCO's code
        area=truth.areas,
        iscrowd=truth.crowd,
        segmentation=segmentations,
    )


def _detections(expected: COCO, predictions: Predictions, iou_type: IouType) -> COCO:
    columns = (
        predictions.image_index[:, None],
        predictions.boxes_xywh,
        predictions.scores[:, None],
        predictions.category_index[:, None],
    )
    rows = np.concatenate(columns, axis=1, dtype=np.float64)
    if iou_type == "bbox":
        return expected.load_res(rows)
    segmentations: list[Any] = predictions.masks.rles()
    found = expected.load_res(rows, segmentation=segmentations)
    found.update_anns(ids=np.arange(1, len(predictions) + 1), area=predictions.masks.areas)
    return found
