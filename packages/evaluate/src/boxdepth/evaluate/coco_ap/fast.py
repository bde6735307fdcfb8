"""The fast backend: faster-coco-eval, one class at a time.

Classes don't touch one another in COCO AP, so each is evaluated over just the images it occurs
in, and its records are dropped before the next one's are made: memory stays at one class.
"""

import numpy as np
from faster_coco_eval import COCO
from faster_coco_eval import COCOeval_faster as COCOeval

from boxdepth.evaluate.coco_ap.documents import (
    image_records,
    prediction_document,
    truth_document,
)
from boxdepth.evaluate.coco_ap.protocol import AREA_RANGES, Curves, IouType, empty_curves
from boxdepth.evaluate.results import GroundTruth, Predictions


def evaluate_fast(truth: GroundTruth, predictions: Predictions, iou_type: IouType) -> Curves:
    """Precision and recall of every class, by faster-coco-eval."""
    curves = empty_curves(len(truth.category_ids))
    for category in np.unique(truth.category_index).tolist():
        parts = evaluate_class(truth, predictions, iou_type, category)
        curves.precision[:, :, category] = parts.precision[:, :, 0]
        curves.recall[:, category] = parts.recall[:, 0]
        curves.scores[:, :, category] = parts.scores[:, :, 0]
    return curves


def evaluate_class(
    truth: GroundTruth, predictions: Predictions, iou_type: IouType, category: int
) -> Curves:
    """Precision and recall of one class, which has at least one annotation."""
    wanted = np.flatnonzero(truth.category_index == category)
    found = np.flatnonzero(predictions.category_index == category)
    seen = np.union1d(truth.image_index[wanted], predictions.image_index[found])
    images = image_records(truth, seen)
    expected = truth_document(truth, rows=wanted, iou_type=iou_type, images=images)
    given = prediction_document(truth, predictions, rows=found, iou_type=iou_type, images=images)
    evaluation = COCOeval(COCO(expected), COCO(given), iou_type, extra_calc=False)
    evaluation.params.catIds = [category + 1]
    evaluation.params.areaRng = [list(limits) for limits in AREA_RANGES.values()]
    evaluation.params.areaRngLbl = list(AREA_RANGES)
    evaluation.evaluate()
    evaluation.accumulate()
    parts = evaluation.eval
    return Curves(
        precision=np.asarray(parts["precision"], dtype=np.float64),
        recall=np.asarray(parts["recall"], dtype=np.float64),
        scores=np.asarray(parts["scores"], dtype=np.float64),
    )
