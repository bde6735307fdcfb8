"""The reference backend: pycocotools' own `COCOeval`, fed with checked records."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxdepth.evaluate.coco_ap.documents import (
    Document,
    prediction_document,
    truth_document,
)
from boxdepth.evaluate.coco_ap.protocol import Curves, IouType
from boxdepth.evaluate.results import GroundTruth, Predictions, UsageError


def evaluate_with_pycocotools(
    truth: GroundTruth, predictions: Predictions, iou_type: IouType
) -> Curves:
    """Precision and recall of every class, by pycocotools."""
    if iou_type == "boundary":
        raise UsageError("pycocotools has no boundary AP. Use --backend fast.")
    images = np.arange(len(truth.image_ids))
    expected = truth_document(truth, iou_type=iou_type, images=images)
    found = prediction_document(predictions, truth, iou_type=iou_type, images=images)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(expected), _coco(found), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
    parts = evaluation.eval
    return Curves(precision=parts["precision"], recall=parts["recall"], scores=parts["scores"])


def _coco(document: Document) -> COCO:
    coco = COCO()
    coco.dataset = document
    coco.createIndex()
    return coco
