"""Instances in the frame of the original image, and as COCO results."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from pycocotools import mask as coco_mask

from boxdepth.trainer.predict.quality import expected_quality
from boxdepth.trainer.words import counted

Rle = dict[str, Any]
"""COCO run-length encoding: ``size`` (height, width) and compressed ``counts``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """What is found in one image, in the frame of the original image."""

    boxes_xyxy: Float[np.ndarray, "d 4"]
    scores: Float[np.ndarray, " d"]
    labels: Int64[np.ndarray, " d"]
    masks: tuple[Rle, ...]
    size: tuple[int, int]
    """(height, width)."""
    cues: Float32[np.ndarray, "d k"] | None = None
    """What each mask's quality is judged by (`quality.CUES`); None: nobody asked."""
    cut: bool = False
    """More was found than `inference.max_detections` lets through."""

    @property
    def quality(self) -> Float32[np.ndarray, " d"] | None:
        """Expected IoU of each mask with the true one, 0..1; None: nobody asked."""
        return None if self.cues is None else expected_quality(self.cues)

    def __len__(self) -> int:
        return len(self.masks)

    def __str__(self) -> str:
        height, width = self.size
        scores = f", scores {self.scores.min():.2f} to {self.scores.max():.2f}" if len(self) else ""
        return f"{counted(len(self), 'instance')} on {width} x {height} pixels{scores}"

    def take(self, rows: Int64[np.ndarray, " k"]) -> "Instances":
        """Some of the instances, in the order of ``rows``."""
        return Instances(
            boxes_xyxy=self.boxes_xyxy[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
            masks=tuple(self.masks[row] for row in rows.tolist()),
            size=self.size,
            cues=None if self.cues is None else self.cues[rows],
            cut=self.cut,
        )

    def above(self, score: float) -> "Instances":
        """Those of at least this score, in their order; if some fall below it, so did all that
        the limits had left out."""
        kept = self.take(np.flatnonzero(self.scores >= score))
        return replace(kept, cut=self.cut and len(kept) == len(self))

    def bitmaps(self) -> Bool[np.ndarray, "d h w"]:
        """The masks as arrays, at the image's size."""
        whole = np.zeros((len(self), *self.size), dtype=bool)
        for place, mask in enumerate(self.masks):
            whole[place] = coco_mask.decode(mask)
        return whole


def encode_rle(
    part: Bool[np.ndarray, "hp wp"], *, offset: tuple[int, int], size: tuple[int, int]
) -> Rle:
    """COCO RLE of a mask of ``size`` that is ``part`` at ``offset`` and empty elsewhere.

    Only the columns of the part are looked at; the counts before and after them are arithmetic.
    """
    height, width = size
    (y, x), columns = offset, part.shape[1]
    slab = np.zeros((height, columns), dtype=bool, order="F")
    slab[y : y + part.shape[0]] = part
    flat = slab.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)) + x * height
    if part.any() and flat[-1] and (x + columns) < width:
        changes = np.append(changes, (x + columns) * height)
    counts = np.diff(changes, prepend=0, append=height * width).tolist()
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def to_coco_results(
    instances: Instances, *, image_id: int, category_ids: Sequence[int | None]
) -> list[dict[str, Any]]:
    """Entries of a COCO results file: original category ids, boxes xywh, RLE masks.

    Args:
        category_ids: original id of each label; None: instances of it are left out.
    """
    quality = instances.quality
    extra = (
        [{}] * len(instances.masks)
        if quality is None
        else [{"quality": round(value, 4)} for value in quality.tolist()]
    )
    return [
        {
            "image_id": image_id,
            "category_id": category_id,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
            "segmentation": mask,
            **more,
        }
        for (x1, y1, x2, y2), score, label, mask, more in zip(
            instances.boxes_xyxy.tolist(),
            instances.scores.tolist(),
            instances.labels.tolist(),
            instances.masks,
            extra,
            strict=True,
        )
        if (category_id := category_ids[label]) is not None
    ]
