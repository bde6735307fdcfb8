"""The reference backend: pycocotools' own `COCOeval`, fed with checked records."""

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxdepth.evaluate.coco_ap.boundary import boundaries
from boxdepth.evaluate.coco_ap.protocol import Curves, IouType
from boxdepth.evaluate.results import GroundTruth, Predictions
from boxdepth.evaluate.results.arrays import Float64


def evaluate_with_pycocotools(
    truth: GroundTruth,
    predictions: Predictions,
    iou_type: IouType,
    max_detections: tuple[int, ...],
) -> Curves:
    """Precision and recall of every class, by pycocotools."""
    evaluator = _BoundaryEvaluation if iou_type == "boundary" else COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        expected = _coco(truth, truth, truth.areas, iou_type)
        found = _coco(truth, predictions, predictions.areas(iou_type), iou_type)
        shape = "bbox" if iou_type == "bbox" else "segm"
        evaluation = evaluator(expected, found, shape)
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


def _coco(
    truth: GroundTruth,
    objects: GroundTruth | Predictions,
    areas: Float64[np.ndarray, " n"],
    iou_type: IouType,
) -> COCO:
    """Plain records, ids from 1 (an id of 0 reads as "unmatched" in COCO's code)."""
    crowd, scores = np.zeros(len(objects), dtype=np.int64), np.ones(len(objects))
    if isinstance(objects, GroundTruth):
        crowd = objects.crowd.astype(np.int64)
    else:
        scores = objects.scores
    columns: dict[str, Any] = {
        "id": np.arange(1, len(objects) + 1),
        "image_id": objects.image_index,
        "category_id": objects.category_index + 1,
        "bbox": objects.boxes_xywh,
        "area": areas,
        "iscrowd": crowd,
        "score": scores,
    }
    values = [column.tolist() for column in columns.values()]
    if iou_type != "bbox":
        columns["segmentation"] = None
        values.append(objects.masks.rles())
    sizes = truth.image_sizes.tolist()
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(sizes)],
        "annotations": [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)],
        "categories": [{"id": k, "name": n} for k, n in enumerate(truth.category_names, start=1)],
    }
    coco.createIndex()
    return coco
