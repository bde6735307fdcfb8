"""The reference backend: pycocotools' own `COCOeval`, fed with checked records."""

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxdepth.evaluate.coco_ap.boundary import boundaries
from boxdepth.evaluate.coco_ap.documents import (
    Document,
    prediction_document,
    truth_document,
)
from boxdepth.evaluate.coco_ap.protocol import Curves, IouType
from boxdepth.evaluate.results import GroundTruth, Predictions


def evaluate_with_pycocotools(
    truth: GroundTruth,
    predictions: Predictions,
    iou_type: IouType,
    max_detections: tuple[int, ...],
) -> Curves:
    """Precision and recall of every class, by pycocotools."""
    images = np.arange(len(truth.image_ids))
    expected = truth_document(truth, iou_type=iou_type, images=images)
    found = prediction_document(predictions, truth, iou_type=iou_type, images=images)
    evaluator = _BoundaryEvaluation if iou_type == "boundary" else COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        shape = "bbox" if iou_type == "bbox" else "segm"
        evaluation = evaluator(_coco(expected), _coco(found), shape)
        evaluation.params.maxDets = list(max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
    parts = evaluation.eval
    return Curves(
        precision=parts["precision"],
        recall=parts["recall"],
        scores=parts["scores"],
        max_detections=max_detections,
    )


class _BoundaryEvaluation(COCOeval):  # type: ignore[misc]
    """Masks and boundaries must both overlap: the smaller IoU counts (arXiv:2103.16562).

    A crowd region has no boundary of its own: there the share inside it counts as ever.
    """

    def computeIoU(self, imgId: Any, catId: Any) -> Any:
        whole = super().computeIoU(imgId, catId)
        if not len(whole):
            return whole
        with boundaries(self._gts[imgId, catId], self._dts[imgId, catId]):
            outlines = super().computeIoU(imgId, catId)
        crowd = np.array([annotation["iscrowd"] for annotation in self._gts[imgId, catId]]) == 1
        return np.where(crowd[None], whole, np.minimum(whole, outlines))


def _coco(document: Document) -> COCO:
    coco = COCO()
    coco.dataset = document
    coco.createIndex()
    return coco
