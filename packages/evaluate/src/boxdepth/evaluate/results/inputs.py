"""What Python callers hand in: paths, documents, or arrays of one image each.

Arrays are recognised by what they can do, not by their type: tensors (torch and others), NumPy
arrays, `supervision.Detections`, torchvision's dicts. No such library is imported.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from msgspec import UNSET
from pycocotools import mask as mask_api

from boxdepth.evaluate.results.annotations import GroundTruth
from boxdepth.evaluate.results.arrays import Bool, Float64
from boxdepth.evaluate.results.predictions import Predictions
from boxdepth.evaluate.results.problems import DataError, quoted

PathLike = str | os.PathLike[str]
PredictionsInput = PathLike | Sequence[Mapping[str, Any]] | Mapping[int, Any] | Predictions
AnnotationsInput = PathLike | Mapping[Any, Any] | GroundTruth

_NAMES = {
    "boxes": ("boxes", "xyxy"),
    "labels": ("labels", "class_id"),
    "scores": ("scores", "confidence"),
    "masks": ("masks", "mask"),
    "crowd": ("iscrowd", "crowd"),
    "areas": ("area", "areas"),
    "size": ("size", "orig_size"),
}
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """Objects of one image as COCO columns; what was not given is None.

    Attributes:
        labels: category ids.
        boxes_xywh: pixels.
        scores, crowd, areas: as in COCO files.
        masks: run lengths.
        size: (height, width) of the image in pixels, where masks or the caller told it.
    """

    labels: list[Any]
    boxes_xywh: Float64[np.ndarray, "n 4"] | None
    scores: list[Any] | None
    crowd: list[Any] | None
    areas: list[Any] | None
    masks: list[dict[str, Any]] | None
    size: tuple[int, int] | None

    @classmethod
    def of(cls, given: Any, where: str) -> "Instances":
        """From a mapping or an object with arrays `boxes` (or `xyxy`), `labels`, `scores`, `masks`.

        Raises:
            DataError: arrays are missing, of different lengths, or not of their shapes.
        """
        found = {name: _array(given, spellings) for name, spellings in _NAMES.items()}
        labels, boxes, masks, size = (found[k] for k in ("labels", "boxes", "masks", "size"))
        if labels is None or (boxes is None and masks is None):
            raise DataError(f"{where}: expected arrays labels and boxes (xyxy), masks or both")
        count = len(labels)
        for name, array in found.items():
            if name != "size" and array is not None and len(array) != count:
                raise DataError(f"{where}: {len(array)} {name} for {count} labels")
        if boxes is not None and (boxes.shape != (count, 4) and boxes.size):
            raise DataError(f"{where}: boxes of shape {boxes.shape}, expected [{count}, 4] xyxy")
        flat = None if masks is None else _masks(masks, where)
        if flat is not None and size is None and flat.ndim == 3:
            size = np.array(flat.shape[1:])
        return cls(
            labels=labels.tolist(),
            boxes_xywh=None if boxes is None else _xywh(boxes.reshape(-1, 4)),
            scores=_listed(found["scores"]),
            crowd=_listed(found["crowd"]),
            areas=_listed(found["areas"]),
            masks=None if flat is None else [_encoded(mask) for mask in flat],
            size=None if size is None else (int(size[0]), int(size[1])),
        )

    def columns(self, image_id: int) -> dict[str, list[Any]]:
        """Columns of a results table."""
        nothing = [UNSET] * len(self.labels)
        return {
            "image_id": [image_id] * len(self.labels),
            "category_id": self.labels,
            "score": self.scores if self.scores is not None else nothing,
            "bbox": nothing if self.boxes_xywh is None else self.boxes_xywh.tolist(),
            "segmentation": nothing if self.masks is None else list(self.masks),
        }

    def records(self, image_id: int) -> list[dict[str, Any]]:
        """The same as annotation records without ids."""
        columns = self.columns(image_id)
        columns["iscrowd"] = self.crowd or [0] * len(self.labels)
        columns["area"] = self.areas or [None] * len(self.labels)
        del columns["score"]
        rows = zip(*columns.values(), strict=True)
        return [{k: v for k, v in zip(columns, row, strict=True) if v is not UNSET} for row in rows]


def as_input(value: Any) -> Any:
    """A caller's argument in the form that readers take; nothing is read from disk here."""
    if isinstance(value, str | os.PathLike):
        return Path(value)
    if isinstance(value, Mapping) and not any(isinstance(key, str) for key in value):
        return results_columns(
            {image: Instances.of(given, f"image {quoted(image)}") for image, given in value.items()}
        )
    return value


def results_columns(images: Mapping[int, Instances]) -> dict[str, list[Any]]:
    """Detections of several images as the columns of a results table."""
    columns: dict[str, list[Any]] = {
        key: [] for key in ("image_id", "category_id", "score", "bbox", "segmentation")
    }
    for image_id, instances in images.items():
        for key, values in instances.columns(image_id).items():
            columns[key].extend(values)
    return columns


def annotations_document(
    images: Mapping[int, Instances],
    names: Mapping[int, str] | None = None,
    sizes: Mapping[int, tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """Ground truth of several images as a COCO document.

    Args:
        images: image id to its objects.
        names: category id to name; the ids that occur, where it is missing.
        sizes: (height, width) of images whose instances don't tell.
    """
    labels = sorted({label for instances in images.values() for label in instances.labels})
    categories = names or {label: f"category {label}" for label in labels}
    records = [record for image, instances in images.items() for record in instances.records(image)]
    return {
        "images": [
            {"id": image, "height": size[0], "width": size[1]}
            for image, instances in images.items()
            for size in [instances.size or (sizes or {}).get(image) or _extent(instances)]
        ],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
        "annotations": [{"id": n, **record} for n, record in enumerate(records, start=1)],
    }


def _extent(instances: Instances) -> tuple[int, int]:
    """The smallest image that holds the boxes."""
    boxes = instances.boxes_xywh
    if boxes is None or not len(boxes) or not np.isfinite(boxes).all():
        return 1, 1
    right, bottom = np.clip(np.ceil((boxes[:, :2] + boxes[:, 2:]).max(axis=0)), 1, 65_535)
    return int(bottom), int(right)


def _array(given: Any, spellings: Sequence[str]) -> np.ndarray | None:
    for name in spellings:
        value = given.get(name) if isinstance(given, Mapping) else getattr(given, name, None)
        if value is not None and not callable(value):
            return to_numpy(value)
    return None


def to_numpy(value: Any) -> np.ndarray:
    """An array of anything array-like; tensors are detached and brought to the host."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(getattr(value, "dtype", "")).endswith("bfloat16"):
            value = value.float()
    return np.asarray(value)


def _xywh(boxes: np.ndarray) -> Float64[np.ndarray, "n 4"]:
    values = boxes.astype(np.float64)
    return np.concatenate((values[:, :2], values[:, 2:] - values[:, :2]), axis=1)


def _masks(masks: np.ndarray, where: str) -> Bool[np.ndarray, "n h w"]:
    flat = masks[:, 0] if masks.ndim == 4 and masks.shape[1] == 1 else masks
    if flat.ndim != 3 and flat.size:
        raise DataError(f"{where}: masks of shape {masks.shape}, expected [n, height, width]")
    if flat.dtype.kind == "f" and not np.isin(flat, (0, 1)).all():
        raise DataError(f"{where}: masks are fractions, expected 0 and 1. Pass masks > 0.5.")
    return np.asarray(flat, dtype=bool)


def _encoded(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    coded: dict[str, Any] = mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))
    return coded


def _listed(array: np.ndarray | None) -> list[Any] | None:
    return None if array is None else array.tolist()
