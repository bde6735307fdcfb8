"""The scenes in COCO's layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from boxdepth.depthgen.datasets.records import DRAWN
from boxdepth.depthgen.datasets.sample.files import save_inverse_depth, save_photo
from boxdepth.depthgen.datasets.sample.render import Scene
from boxdepth.depthgen.datasets.sample.shapes import CLASSES

_FIRST_ID = {"train": 1, "val": 1_000_001}
_MOST_SHAPES = 100


def _annotations(scene: Scene, image_id: int) -> list[dict[str, Any]]:
    found = []
    for index, (mask, label) in enumerate(zip(scene.masks, scene.labels, strict=True)):
        encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        left, top, width, height = (float(side) for side in rle.toBbox(encoded))
        counts = encoded["counts"].decode("ascii")
        found.append(
            {
                "id": image_id * _MOST_SHAPES + index,
                "image_id": image_id,
                "category_id": int(label) + 1,
                "bbox": [left, top, width, height],
                "area": float(rle.area(encoded)),
                "iscrowd": 0,
                "segmentation": {"size": list(mask.shape), "counts": counts},
                "camouflaged": bool(scene.camouflaged[index]),
                "distance": round(float(scene.distances[index]), 4),
            }
        )
    return found


class CocoWriter:
    """Writes one split as ``<split>2017/``, ``depth/<split>2017/`` and its annotation file.

    The annotation file is written last, by :meth:`finish`.
    """

    def __init__(self, root: Path, split: str) -> None:
        self._first = _FIRST_ID[split]
        self._images = root / f"{split}2017"
        self._depth = root / "depth" / f"{split}2017"
        self._file = root / "annotations" / f"instances_{split}2017.json"
        self._records: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        for folder in (self._images, self._depth, self._file.parent):
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, index: int, scene: Scene) -> None:
        """Write the pictures of one scene and note its annotations."""
        image_id = self._first + index
        name = f"{image_id:012d}.jpg"
        save_photo(self._images / name, scene.image)
        save_inverse_depth(self._depth / f"{image_id:012d}.png", scene.inverse_depth)
        height, width = scene.inverse_depth.shape
        self._records.append(
            {"id": image_id, "file_name": name, "height": height, "width": width, "license": 1}
        )
        self._annotations += _annotations(scene, image_id)

    def finish(self) -> None:
        """Write the annotation file."""
        content = {
            "info": {"description": DRAWN, "version": "1"},
            "licenses": [{"id": 1, "name": "CC0-1.0", "url": ""}],
            "categories": [
                {"id": index + 1, "name": shape.name, "supercategory": "shape"}
                for index, shape in enumerate(CLASSES)
            ],
            "images": self._records,
            "annotations": self._annotations,
        }
        self._file.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
