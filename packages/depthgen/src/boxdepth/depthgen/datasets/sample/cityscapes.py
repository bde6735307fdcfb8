"""The scenes in Cityscapes' layout, the eight shapes in the places of its eight thing classes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16

from boxdepth.depthgen.datasets.cityscapes import DRAWN_CITY
from boxdepth.depthgen.datasets.sample.files import save_ids, save_image, save_inverse_depth
from boxdepth.depthgen.datasets.sample.outline import outlines
from boxdepth.depthgen.datasets.sample.render import Scene
from boxdepth.depthgen.datasets.sample.shapes import CLASSES

THING_OF_SHAPE: dict[str, tuple[str, int]] = {
    "signpost": ("person", 24),
    "mushroom": ("rider", 25),
    "crate": ("car", 26),
    "barrel": ("truck", 27),
    "vase": ("bus", 28),
    "cone": ("train", 31),
    "ball": ("motorcycle", 32),
    "ring": ("bicycle", 33),
}
"""Name and label id, as Cityscapes has them, that stand for each shape."""
_ROAD, _WALL, _SKY = 7, 12, 23


def _label_ids(scene: Scene) -> UInt8[np.ndarray, "h w"]:
    ids = np.full(scene.inverse_depth.shape, _WALL, np.uint8)
    ids[scene.inverse_depth == 0] = _SKY
    ids[scene.ground] = _ROAD
    return ids


def _instance_ids(scene: Scene) -> UInt16[np.ndarray, "h w"]:
    """Label id, and for things 1000 times the label id plus a running number of the class."""
    ids = _label_ids(scene).astype(np.uint16)
    seen: dict[int, int] = {}
    for mask, label in zip(scene.masks, scene.labels, strict=True):
        thing = THING_OF_SHAPE[CLASSES[int(label)].name][1]
        number = seen.get(thing, 0)
        seen[thing] = number + 1
        ids[mask] = thing * 1000 + number
    return ids


def _polygons(scene: Scene) -> dict[str, Any]:
    """Whole silhouettes, farthest first: as in Cityscapes, later objects cover earlier ones."""
    height, width = scene.inverse_depth.shape
    ground = scene.ground | scene.silhouettes.any(axis=0)
    layers = [
        ("wall", np.ones((height, width), bool)),
        ("sky", scene.inverse_depth == 0),
        ("road", ground),
    ]
    layers += [
        (THING_OF_SHAPE[CLASSES[int(label)].name][0], silhouette)
        for silhouette, label in zip(scene.silhouettes, scene.labels, strict=True)
    ]
    objects = [
        {"label": name, "polygon": [list(point) for point in polygon]}
        for name, mask in layers
        for polygon in outlines(mask)[: 1 if name not in ("wall", "sky", "road") else None]
    ]
    return {"imgHeight": height, "imgWidth": width, "objects": objects}


class CityscapesWriter:
    """Writes one split as ``leftImg8bit/``, ``gtFine/`` and ``depth/`` folders."""

    def __init__(self, root: Path, split: str) -> None:
        self._images, self._truth, self._depth = (
            root / kind / split / DRAWN_CITY for kind in ("leftImg8bit", "gtFine", "depth")
        )
        for folder in (self._images, self._truth, self._depth):
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, index: int, scene: Scene) -> None:
        """Write all files of one scene."""
        stem = f"{DRAWN_CITY}_{index:06d}_000019"
        save_image(self._images / f"{stem}_leftImg8bit.png", scene.image)
        save_inverse_depth(self._depth / f"{stem}_depth.png", scene.inverse_depth)
        instances = _instance_ids(scene)
        labels = np.where(instances >= 1000, instances // 1000, instances).astype(np.uint8)
        save_ids(self._truth / f"{stem}_gtFine_instanceIds.png", instances)
        save_ids(self._truth / f"{stem}_gtFine_labelIds.png", labels)
        polygons = json.dumps(_polygons(scene), separators=(",", ":"))
        (self._truth / f"{stem}_gtFine_polygons.json").write_text(polygons + "\n", encoding="utf-8")

    def finish(self) -> None:
        """Nothing is left to write: Cityscapes keeps its truth beside each image."""
