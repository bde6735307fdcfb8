"""Checked columns as the plain records that COCO evaluators read."""

from typing import Any

import numpy as np
from jaxtyping import Int64

from boxdepth.evaluate.coco_ap.protocol import IouType
from boxdepth.evaluate.results import GroundTruth, Predictions

Document = dict[str, list[dict[str, Any]]]


def truth_document(
    truth: GroundTruth, *, rows: Int64[np.ndarray, " n"], iou_type: IouType, images: Any
) -> Document:
    """Annotations `rows` with ids from 1 (an id of 0 reads as "unmatched" in COCO's code)."""
    annotations = _objects(truth, rows, iou_type)
    crowd, areas = truth.crowd[rows].tolist(), truth.areas[rows].tolist()
    for annotation, is_crowd, area in zip(annotations, crowd, areas, strict=True):
        annotation["iscrowd"] = int(is_crowd)
        annotation["area"] = area
    return {"images": images, "annotations": annotations, "categories": _categories(truth)}


def prediction_document(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    rows: Int64[np.ndarray, " n"],
    iou_type: IouType,
    images: Any,
) -> Document:
    """Detections `rows` with ids from 1, and the area of the shape that is being compared."""
    annotations = _objects(predictions, rows, iou_type)
    areas = detection_areas(predictions, iou_type)[rows].tolist()
    scores = predictions.scores[rows].tolist()
    for annotation, area, score in zip(annotations, areas, scores, strict=True):
        annotation["iscrowd"] = 0
        annotation["area"] = area
        annotation["score"] = score
    return {"images": images, "annotations": annotations, "categories": _categories(truth)}


def detection_areas(predictions: Predictions, iou_type: IouType) -> np.ndarray:
    """Area that files a detection under small, medium or large: of its box, or of its mask."""
    if iou_type == "bbox":
        return predictions.boxes_xywh[:, 2:].prod(axis=1)
    return predictions.masks.areas


def image_records(truth: GroundTruth, indices: Int64[np.ndarray, " i"]) -> list[dict[str, Any]]:
    """COCO's image records under the images' places as ids."""
    sizes = truth.image_sizes[indices].tolist()
    return [
        {"id": index, "height": height, "width": width}
        for index, (height, width) in zip(indices.tolist(), sizes, strict=True)
    ]


def _objects(
    table: GroundTruth | Predictions, rows: np.ndarray, iou_type: IouType
) -> list[dict[str, Any]]:
    images, classes = table.image_index[rows].tolist(), table.category_index[rows].tolist()
    boxes = table.boxes_xywh[rows].tolist()
    objects: list[dict[str, Any]] = [
        {"id": place + 1, "image_id": image, "category_id": category + 1, "bbox": box}
        for place, (image, category, box) in enumerate(zip(images, classes, boxes, strict=True))
    ]
    if iou_type != "bbox":
        for record, row in zip(objects, rows.tolist(), strict=True):
            record["segmentation"] = table.masks.rle(row)
    return objects


def _categories(truth: GroundTruth) -> list[dict[str, Any]]:
    return [{"id": k + 1, "name": name} for k, name in enumerate(truth.category_names)]
