"""The fast backend: faster-coco-eval, one class at a time, in as many processes as wanted.

Classes don't touch one another in COCO AP, so each is evaluated over just the images it occurs
in, and its records are dropped before the next one's are made: memory stays at one class.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from faster_coco_eval import COCO
from faster_coco_eval import COCOeval_faster as COCOeval

from boxdepth.evaluate.coco_ap.documents import prediction_document, truth_document
from boxdepth.evaluate.coco_ap.protocol import AREA_RANGES, Curves, IouType, empty_curves
from boxdepth.evaluate.results import GroundTruth, Predictions
from boxdepth.evaluate.results.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTask:
    """All of one class: what a worker process is sent."""

    category: int
    truth: GroundTruth
    predictions: Predictions
    iou_type: IouType


def evaluate_fast(
    truth: GroundTruth, predictions: Predictions, iou_type: IouType, workers: Workers
) -> Curves:
    """Precision and recall of every class, by faster-coco-eval."""
    curves = empty_curves(len(truth.category_ids))
    for category, parts in workers.map(evaluate_class, _tasks(truth, predictions, iou_type)):
        curves.precision[:, :, category] = parts.precision[:, :, 0]
        curves.recall[:, category] = parts.recall[:, 0]
        curves.scores[:, :, category] = parts.scores[:, :, 0]
    return curves


def evaluate_class(task: ClassTask) -> tuple[int, Curves]:
    """The class and its precision and recall."""
    truth, found = task.truth, task.predictions
    images = np.union1d(truth.image_index, found.image_index)
    expected = truth_document(truth, iou_type=task.iou_type, images=images)
    given = prediction_document(found, truth, iou_type=task.iou_type, images=images)
    evaluation = COCOeval(COCO(expected), COCO(given), task.iou_type, rle_iou_max_workers=1)
    evaluation.params.catIds = [task.category + 1]
    evaluation.params.areaRng = [list(limits) for limits in AREA_RANGES.values()]
    evaluation.params.areaRngLbl = list(AREA_RANGES)
    evaluation.evaluate()
    evaluation.accumulate()
    parts = evaluation.eval
    return task.category, Curves(
        precision=np.asarray(parts["precision"], dtype=np.float64),
        recall=np.asarray(parts["recall"], dtype=np.float64),
        scores=np.asarray(parts["scores"], dtype=np.float64),
    )


def _tasks(truth: GroundTruth, predictions: Predictions, iou_type: IouType) -> Iterator[ClassTask]:
    """Classes that have an annotation, the largest first so that workers finish together."""
    nameless = replace(truth, image_names=())
    sizes = np.bincount(predictions.category_index, minlength=len(truth.category_ids))
    for category in sorted(set(truth.category_index.tolist()), key=lambda k: -sizes[k]):
        wanted = nameless.take(np.flatnonzero(truth.category_index == category))
        found = predictions.take(np.flatnonzero(predictions.category_index == category))
        # Where nothing is annotated nothing is compared: only a mask's area matters there.
        compared = np.isin(found.image_index, wanted.image_index)
        yield ClassTask(
            category=category,
            truth=wanted,
            predictions=replace(found, masks=found.masks.only(compared)),
            iou_type=iou_type,
        )
