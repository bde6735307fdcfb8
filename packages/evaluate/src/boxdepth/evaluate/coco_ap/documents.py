"""Checked columns as the plain records that COCO evaluators read."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from boxdepth.evaluate.coco_ap.protocol import IouType
from boxdepth.evaluate.results import GroundTruth, Predictions

Document = dict[str, list[dict[str, Any]]]


def truth_document(
    truth: GroundTruth, *, iou_type: IouType, images: Int64[np.ndarray, " i"]
) -> Document:
    """All annotations, ids from 1 (an id of 0 reads as "unmatched" in COCO's code)."""
    document = _document(truth, iou_type, images)
    crowd, areas = truth.crowd.tolist(), truth.areas.tolist()
    for annotation, is_crowd, area in zip(document["annotations"], crowd, areas, strict=True):
        annotation["iscrowd"] = int(is_crowd)
        annotation["area"] = area
    return document


def prediction_document(
    predictions: Predictions,
    truth: GroundTruth,
    *,
    iou_type: IouType,
    images: Int64[np.ndarray, " i"],
) -> Document:
    """All detections, ids from 1, with the area of the shape that is being compared."""
    document = _document(truth, iou_type, images, predictions)
    areas, scores = detection_areas(predictions, iou_type).tolist(), predictions.scores.tolist()
    for annotation, area, score in zip(document["annotations"], areas, scores, strict=True):
        annotation["iscrowd"] = 0
        annotation["area"] = area
        annotation["score"] = score
    return document


def detection_areas(predictions: Predictions, iou_type: IouType) -> Float64[np.ndarray, " n"]:
    """Area that files a detection under small, medium or large: of its box, or of its mask."""
    if iou_type == "bbox":
        return np.asarray(predictions.boxes_xywh[:, 2:].prod(axis=1))
    return predictions.masks.areas


def _document(
    truth: GroundTruth,
    iou_type: IouType,
    images: np.ndarray,
    predictions: Predictions | None = None,
) -> Document:
    table = truth if predictions is None else predictions
    image, category = table.image_index.tolist(), table.category_index.tolist()
    objects: list[dict[str, Any]] = [
        {"id": place + 1, "image_id": i, "category_id": k + 1, "bbox": box}
        for place, (i, k, box) in enumerate(
            zip(image, category, table.boxes_xywh.tolist(), strict=True)
        )
    ]
    if iou_type != "bbox":
        for record, segmentation in zip(objects, table.masks.rles(), strict=True):
            record["segmentation"] = segmentation
    sizes = truth.image_sizes[images].tolist()
    return {
        "images": [
            {"id": index, "height": height, "width": width}
            for index, (height, width) in zip(images.tolist(), sizes, strict=True)
        ],
        "annotations": objects,
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(truth.category_names)],
    }
