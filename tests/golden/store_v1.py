"""Draws the committed store of schema 1: `python tests/golden/store_v1.py` (never needed again).

The store stays as it was written: every later reader must still read it.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from boxdepth.depthgen.datasets.sample import CLASSES, Scene, render_scene, scene_seed
from boxdepth.depthgen.store import Category, ImageRecord, write_store

STORE = Path(__file__).parent / "store_v1.zarr"
SIZES = ((96, 128), (96, 128), (128, 96), (96, 128), (128, 96), (96, 128), (96, 112), (96, 128))
GRID = (48, 64)
WITHOUT_DEPTH = 3
"""This scene's depth is missing, as where a predictor failed."""


def draw() -> Path:
    """Eight scenes of three sizes with exact depth, boxes and masks; one box is a crowd."""
    scenes = [render_scene(scene_seed(1, "train", k), size) for k, size in enumerate(SIZES)]
    return write_store(
        STORE,
        [_record(k, scene) for k, scene in enumerate(scenes)],
        images=[_png(scene) for scene in scenes],
        depth=[None if k == WITHOUT_DEPTH else _depth(s) for k, s in enumerate(scenes)],
        categories=[Category(id=k + 1, name=shape.name) for k, shape in enumerate(CLASSES)],
        dataset="scenes",
        split="train",
        generator={"model": "exact"},
        masks=True,
        unit=4,
    )


def _record(number: int, scene: Scene) -> ImageRecord:
    height, width = scene.image.shape[:2]
    masks = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in scene.masks]
    boxes = np.array([coco_mask.toBbox(mask) for mask in masks], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    crowd = np.zeros(len(masks), bool)
    crowd[2:3] = number == 1
    return ImageRecord(
        id=100 + number,
        name=f"{number:06d}.png",
        path=None,
        height=height,
        width=width,
        boxes_xyxy=boxes,
        labels=scene.labels.astype(np.int64),
        box_ids=10 * (number + 1) + np.arange(len(masks), dtype=np.int64),
        crowd=crowd,
        areas=np.array([coco_mask.area(mask) for mask in masks], np.float32),
        masks=tuple({"size": m["size"], "counts": m["counts"].decode("ascii")} for m in masks),
    )


def _png(scene: Scene) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene.image).save(buffer, "PNG")
    return buffer.getvalue()


def _depth(scene: Scene) -> np.ndarray:
    resized = Image.fromarray(scene.inverse_depth).resize(
        (GRID[1], GRID[0]), Image.Resampling.BILINEAR
    )
    return np.asarray(resized)


if __name__ == "__main__":
    print(draw())
