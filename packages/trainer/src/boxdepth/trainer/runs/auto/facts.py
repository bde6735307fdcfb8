"""What a store holds, as numbers: all that the choice of a recipe looks at."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from pycocotools import mask as coco_mask

from boxdepth.depthgen.store import Category, Store
from boxdepth.trainer.geometry.tiles import Tiling, parts_in

HASHED_IMAGES = 20_000
"""Larger stores are not read whole to look for images that occur twice."""

SMALLEST_TOLD = 16
"""Pixels; of smaller boxes nobody can tell whether the mask is the box or a shape in it."""
RECTANGLES = 0.1
"""Share of masks that are their boxes from which on they are an exporter's work, not shapes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One split: sizes of images and boxes, classes, and how many boxes each class has.

    Crowd boxes and boxes without area inside their image are left out, as in training.
    """

    where: str
    """The store, for sentences about it."""
    categories: tuple[Category, ...]
    image_names: tuple[str, ...]
    image_sizes: Int64[np.ndarray, "n 2"]
    """(height, width) in pixels."""
    boxes_xyxy: Float32[np.ndarray, "m 4"]
    """Cut to their images, in pixels of the original image."""
    labels: Int64[np.ndarray, " m"]
    image_index: Int64[np.ndarray, " m"]
    """Row of ``image_sizes`` of each box, ascending."""
    images_without_depth: int = 0
    masks: int = 0
    """Boxes with a mask that is a shape of its own."""
    depth_grid: tuple[int, int] | None = None
    """(rows, columns) of every depth map, over the whole image."""
    filled_boxes: int = 0
    """Boxes whose mask is the box itself, as exporters write it where there is none."""
    depth_warning: str | None = None
    """What depthgen said of its depth model and these images; None: nothing."""

    @property
    def images(self) -> int:
        """How many there are."""
        return len(self.image_sizes)

    @property
    def boxes(self) -> int:
        """How many can be learnt from."""
        return len(self.boxes_xyxy)

    @property
    def images_with_boxes(self) -> int:
        """Images that a run learns from."""
        return len(np.unique(self.image_index))

    @property
    def boxes_per_image(self) -> Int64[np.ndarray, " n"]:
        """Of every image."""
        counts: np.ndarray = np.bincount(self.image_index, minlength=self.images)
        return counts

    @property
    def boxes_per_class(self) -> Int64[np.ndarray, " c"]:
        """In the order of ``categories``."""
        counts: np.ndarray = np.bincount(self.labels, minlength=len(self.categories))
        return counts

    @property
    def masks_are_boxes(self) -> bool:
        """Whether so many masks are their boxes that they can't be trusted as masks."""
        return self.filled_boxes > RECTANGLES * (self.masks + self.filled_boxes)

    def long_sides(self) -> Float32[np.ndarray, " m"]:
        """Longer side of each box, in pixels of the original image."""
        sides: np.ndarray = self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]
        longest: np.ndarray = sides.max(axis=1, initial=0.0)
        return longest

    def depth_cells(self) -> float | None:
        """Cells of the depth map along the longer side of the median box; None: not known."""
        if self.depth_grid is None or not self.boxes:
            return None
        per_pixel = np.array(self.depth_grid) / self.image_sizes[self.image_index]
        sides = self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]
        return float(np.median((sides * per_pixel[:, ::-1]).max(axis=1)))

    def image_short_sides(self) -> Int64[np.ndarray, " m"]:
        """Shorter side of the image of each box, in pixels."""
        shorter: np.ndarray = self.image_sizes.min(axis=1, initial=2**31)
        of_each: np.ndarray = shorter[self.image_index]
        return of_each


def in_tiles(facts: Facts, tiling: Tiling) -> Facts:
    """The same as a run sees it that learns from tiles: a tile is an image, a part is a box."""
    sizes: list[tuple[int, int]] = []
    names: list[str] = []
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for row, (height, width) in enumerate(facts.image_sizes.tolist()):
        mine = np.flatnonzero(facts.image_index == row)
        boxes = facts.boxes_xyxy[mine]
        for window in tiling.windows(height, width):
            left, top, right, bottom = window
            kept, _ = parts_in(boxes, window, size=(height, width), tile=tiling.size)
            if not kept.any():
                continue
            limits = np.array([right - left, bottom - top] * 2)
            part = np.clip(boxes[kept] - [left, top, left, top], 0, limits).astype(np.float32)
            parts.append((part, facts.labels[mine[kept]], np.full(len(part), len(sizes))))
            sizes.append((bottom - top, right - left))
            names.append(facts.image_names[row])
    return replace(
        facts,
        image_names=tuple(names),
        image_sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        boxes_xyxy=np.concatenate([np.zeros((0, 4), np.float32), *(p[0] for p in parts)]),
        labels=np.concatenate([np.zeros(0, np.int64), *(p[1] for p in parts)]),
        image_index=np.concatenate([np.zeros(0, np.int64), *(p[2] for p in parts)]),
    )


def read_facts(store: Store) -> Facts:
    """The facts of a finished store; no image is decoded."""
    boxes, labels, index, shapes, filled = [], [], [], 0, 0
    for row in range(len(store)):
        found = store.boxes(row)
        height, width = (int(side) for side in store.image_sizes[row])
        inside = np.clip(found.xyxy, 0, [width, height, width, height]).astype(np.float32)
        used = ~found.crowd & ((inside[:, 2:] - inside[:, :2]) > 0).all(axis=1)
        boxes.append(inside[used])
        labels.append(found.label[used])
        index.append(np.full(int(used.sum()), row, dtype=np.int64))
        full = [_fills(mask, box) for mask, box in zip(store.masks(row), inside, strict=True)]
        kept = [is_full for is_full, keep in zip(full, used, strict=True) if keep]
        shapes, filled = shapes + kept.count(False), filled + kept.count(True)
    return Facts(
        where=str(store.path),
        categories=tuple(store.attributes.categories),
        image_names=tuple(store.image_names),
        image_sizes=store.image_sizes,
        boxes_xyxy=np.concatenate([np.zeros((0, 4), np.float32), *boxes]),
        labels=np.concatenate([np.zeros(0, np.int64), *labels]),
        image_index=np.concatenate([np.zeros(0, np.int64), *index]),
        images_without_depth=int((~store.depth_valid).sum()),
        depth_grid=store.attributes.depth.grid,
        depth_warning=_text(store.attributes.generator.get("warning")),
        masks=shapes,
        filled_boxes=filled,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _fills(mask: dict[str, Any] | None, box_xyxy: Float32[np.ndarray, "4"]) -> bool | None:
    """Whether a mask is its box, to a pixel a side; None: there is no mask."""
    if mask is None:
        return None
    width, height = (float(side) for side in box_xyxy[2:] - box_xyxy[:2])
    if min(width, height) < SMALLEST_TOLD:
        return False
    return bool(coco_mask.area(mask) >= (width - 1) * (height - 1))


def duplicate_images(
    train: Store, val: Store | None = None
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, str], ...]] | None:
    """Images that occur more than once, byte for byte; None where a store is too large to read.

    Returns:
        Groups of names within ``train``; and pairs (name in train, name in val) of shared images.
    """
    if len(train) > HASHED_IMAGES or (val is not None and len(val) > HASHED_IMAGES):
        return None
    here = _by_content(train)
    groups = tuple(tuple(names) for names in here.values() if len(names) > 1)
    there = _by_content(val) if val is not None else {}
    shared = tuple((here[key][0], there[key][0]) for key in here if key in there)
    return groups, shared


def _by_content(store: Store) -> dict[bytes, list[str]]:
    names: dict[bytes, list[str]] = {}
    for row, name in enumerate(store.image_names):
        names.setdefault(hashlib.sha256(store.image_bytes(row)).digest(), []).append(name)
    return names
