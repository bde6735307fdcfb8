"""A finished store as training samples and as images to predict on."""

import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from PIL import Image
from pycocotools import mask as coco_mask

from boxdepth.depthgen.store import Boxes, DataError, Store, open_store
from boxdepth.trainer.data.augment import (
    Geometry,
    draw_geometry,
    mask_center,
    sample_mask,
    transform_boxes,
    transform_inverse_depth,
    transform_pixels,
)
from boxdepth.trainer.data.color import recolored
from boxdepth.trainer.data.depth_cells import cell_means, cell_steps
from boxdepth.trainer.data.rules import Data
from boxdepth.trainer.geometry.boxes import raster_centers
from boxdepth.trainer.geometry.tiles import Tiling, Window, parts_in
from boxdepth.trainer.structures import MASK_STRIDE, Sample

DepthForm = Literal["pixels", "cells", "steps"]
"""Of every pixel; means over the cells of the mask grid, all that the losses read; these and, for
matching by depth, single pixels of each cell."""

MIN_SIDE = 1e-5
"""Pixels; a box with a shorter side after clipping holds nothing (detectron2's value)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What of a store can be learnt from, and what was left out and why."""

    images: int
    images_used: int
    images_without_boxes: int
    images_without_depth: int
    boxes: int
    boxes_used: int
    boxes_crowd: int
    boxes_empty: int
    """Zero area after clipping to the image."""
    boxes_clipped: int
    """Reached out of the image; used inside of it."""

    def to_json(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What is not learnt from, in words."""
        counts = (
            (self.boxes_crowd, "crowd boxes"),
            (self.boxes_empty, "boxes without area"),
            (self.images - self.images_used, "images without a box"),
        )
        return tuple(f"{count} {what}" for count, what in counts if count)


@final
class TrainingSet:
    """The images of a store that hold something to learn, by row; loads one sample at a time."""

    def __init__(
        self, store: Store, settings: Data, *, seed: int, depth: DepthForm = "pixels"
    ) -> None:
        """Counts what there is.

        Args:
            seed: of the augmentation, and of the choice of masks.
            depth: how it is wanted; with Pillow's resize, the plain form of everything, always
                every pixel's.

        Raises:
            DataError: without what the supervision needs, or empty.
        """
        if settings.supervision == "masks" and not store.attributes.masks:
            raise DataError(
                f"{store.path}: holds no masks, but supervision is 'masks'; make the store with "
                "`depthgen run --with-masks`, or learn from boxes (--set data.supervision=boxes)"
            )
        self.store = store
        self._settings, self._seed = settings, seed
        self._depth: DepthForm = "pixels" if settings.augmentation.resize == "pillow" else depth
        self.census, used = _take_census(store, keep_empty=settings.keep_empty)
        self._rows = used
        self._windows: list[Window | None] = [None] * len(used)
        tiling = settings.augmentation.tiling
        if tiling is not None:
            self._rows, self._windows = _tiles(store, used, tiling, keep_empty=settings.keep_empty)
        if not used.size:
            raise DataError(f"{store.path}: no image with a usable box: nothing to learn from")

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> Int64[np.ndarray, " n"]:
        """Row in the store of each sample."""
        return self._rows

    @property
    def box_counts(self) -> Int64[np.ndarray, " n"]:
        """Boxes of each sample."""
        counts = [int(self._seen(index)[0].sum()) for index in range(len(self))]
        return np.array(counts, dtype=np.int64)

    @property
    def landscape(self) -> Bool[np.ndarray, " n"]:
        """True for images that are wider than high."""
        sizes = np.array([self._frame(index) for index in range(len(self))]).reshape(-1, 4)
        wider: np.ndarray = sizes[:, 2] - sizes[:, 0] > sizes[:, 3] - sizes[:, 1]
        return wider

    def image_id(self, index: int) -> int:
        """The dataset's id of sample ``index``."""
        return int(self.store.image_ids[self._rows[index]])

    def as_stored(
        self, index: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], Float32[np.ndarray, "n 4"]]:
        """The pixels of sample ``index``, neither resized nor flipped, and its boxes in them."""
        row, (left, top, right, bottom) = int(self._rows[index]), self._frame(index)
        pixels = self.store.image(row)[top:bottom, left:right]
        boxes = self.store.boxes(row).xyxy[self._seen(index)[0]]
        limits = [right - left, bottom - top] * 2
        inside = np.clip(boxes - np.array([left, top] * 2, np.float32), 0, limits)
        return np.ascontiguousarray(pixels), inside.astype(np.float32)

    def load(self, index: int, *, epoch: int) -> Sample:
        """Sample ``index`` as it looks in ``epoch``.

        Raises:
            DataError: damaged or unreadable; names the image and the store.
        """
        row = int(self._rows[index])
        try:
            return self._load(row, index=index, epoch=epoch)
        except DataError:
            raise
        except Exception as error:
            name = self.store.image_names[row]
            raise DataError(
                f"{self.store.path}: image {self.image_id(index)} ({name}): "
                f"{type(error).__name__}: {error}"
            ) from error

    def _frame(self, index: int) -> Window:
        """The tile that a sample is, or its whole image."""
        height, width = (int(side) for side in self.store.image_sizes[self._rows[index]])
        return self._windows[index] or (0, 0, width, height)

    def _seen(self, index: int) -> tuple[Bool[np.ndarray, " b"], Bool[np.ndarray, "u 4"] | None]:
        """Which boxes of its image a sample learns, and which of their sides its tile cuts off."""
        row, window = int(self._rows[index]), self._windows[index]
        height, width = (int(side) for side in self.store.image_sizes[row])
        boxes = self.store.boxes(row)
        used = _usable(boxes, height=height, width=width)
        tile = self._settings.augmentation.tile
        if window is None or tile is None:
            return used, None
        inside = np.clip(boxes.xyxy, 0, [width, height, width, height])
        kept, cut = parts_in(inside, window, size=(height, width), tile=tile)
        return used & kept, cut[used & kept]

    def _load(self, row: int, *, index: int, epoch: int) -> Sample:
        settings, store = self._settings, self.store
        augmentation, window = settings.augmentation, self._frame(index)
        left, top, right, bottom = window
        height, width = bottom - top, right - left
        geometry = draw_geometry(
            (height, width), augmentation, seed=self._seed, epoch=epoch, index=index
        )
        boxes = store.boxes(row)
        used, cut = self._seen(index)
        inside = boxes.xyxy[used] - np.array([left, top, left, top], np.float32)
        boxes_xyxy = transform_boxes(inside, geometry)
        supervision = self._masks(row, boxes, used, boxes_xyxy, geometry, window)
        new_height = geometry.new_size[0]
        pixels = store.image(row)[top:bottom, left:right]
        image = transform_pixels(pixels, geometry, augmentation.resize)
        depth = self._moved_depth(row, window, geometry)
        student_image = None
        if augmentation.color != "none":
            clean = image.permute(1, 2, 0).numpy()
            seen = recolored(clean, augmentation.color, seed=self._seed, epoch=epoch, index=index)
            student_image = _tensor(seen.transpose(2, 0, 1))
        return Sample(
            image=image,
            student_image=student_image,
            inverse_depth=depth.values,
            depth_stride=depth.stride,
            depth_steps=depth.steps,
            depth_valid=bool(store.depth_valid[row]),
            boxes_xyxy=_tensor(boxes_xyxy),
            labels=_tensor(boxes.label[used]),
            masks=None if supervision.masks is None else _tensor(supervision.masks),
            has_mask=_tensor(supervision.has_mask),
            centers_xy=_tensor(supervision.centers_xy),
            bottom_rows_removed=int(
                settings.bottom_rows_removed * new_height / height
                if bottom == store.image_sizes[row, 0]
                else 0
            ),
            image_id=int(store.image_ids[row]),
            cut=None if cut is None else _tensor(cut[:, [2, 1, 0, 3]] if geometry.flip else cut),
        )

    def _moved_depth(self, row: int, window: Window, geometry: Geometry) -> "_MovedDepth":
        """Inverse depth of what a sample sees, resized, in the form that is wanted."""
        stored = self._seen_depth(row, window, geometry)
        if self._depth == "pixels":
            values = transform_inverse_depth(stored, geometry)
            return _MovedDepth(values=_tensor(values[None]), stride=1, steps=None)
        # Turned in memory, which is well here: the batch they are copied into is not.
        steps = cell_steps(stored, geometry) if self._depth == "steps" else None
        return _MovedDepth(
            values=torch.from_numpy(cell_means(stored, geometry)[None]),
            stride=MASK_STRIDE,
            steps=None if steps is None else torch.from_numpy(steps),
        )

    def _seen_depth(
        self, row: int, window: Window, geometry: Geometry
    ) -> Float32[np.ndarray, "rows columns"]:
        """The stored map; of a tile its part, whose borders lie between cells, at the new size."""
        height, width = (int(side) for side in self.store.image_sizes[row])
        depth = self._stored_depth(row)
        if window == (0, 0, width, height):
            return depth
        x, y = depth.shape[1] / width, depth.shape[0] / height
        part = (window[0] * x, window[1] * y, window[2] * x, window[3] * y)
        size = geometry.new_size[::-1]
        return np.asarray(Image.fromarray(depth).resize(size, Image.Resampling.BILINEAR, box=part))

    def _stored_depth(self, row: int) -> Float32[np.ndarray, "rows columns"]:
        """Inverse depth, NaN in the holes of a sensor: no loss looks at those."""
        depth = self.store.inverse_depth(row)
        if not (self.store.attributes.depth.holes and self.store.depth_valid[row]):
            return depth
        return np.where(self.store.depth_measured(row), depth, np.float32("nan"))

    def _masks(
        self,
        row: int,
        boxes: Boxes,
        used: Bool[np.ndarray, " n"],
        boxes_xyxy: Float32[np.ndarray, "u 4"],
        geometry: Geometry,
        window: Window,
    ) -> "_MaskSupervision":
        centers = raster_centers(boxes_xyxy)
        has_mask = np.zeros(len(boxes_xyxy), dtype=bool)
        if self._settings.supervision == "boxes":
            return _MaskSupervision(masks=None, has_mask=has_mask, centers_xy=centers)
        rows, columns = (-(-(side - MASK_STRIDE // 2) // MASK_STRIDE) for side in geometry.new_size)
        masks = np.zeros((len(boxes_xyxy), max(rows, 0), max(columns, 0)), dtype=bool)
        stored = [rle for rle, keep in zip(self.store.masks(row), used, strict=True) if keep]
        for k, (rle, box_id) in enumerate(zip(stored, boxes.id[used], strict=True)):
            if rle is None or not self._may_use_mask(int(box_id)):
                continue
            mask = coco_mask.decode(rle)[window[1] : window[3], window[0] : window[2]].astype(bool)
            center = mask_center(mask, geometry)
            if center is None:
                continue
            masks[k], centers[k], has_mask[k] = (
                sample_mask(mask, geometry, stride=MASK_STRIDE), center, True,
            )  # fmt: skip
        return _MaskSupervision(masks=masks, has_mask=has_mask, centers_xy=centers)

    def _may_use_mask(self, box_id: int) -> bool:
        if self._settings.supervision == "masks":
            return True
        lot = zlib.crc32(f"{self._seed}/{box_id}".encode()) / 2**32
        return lot < self._settings.mask_fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class _MovedDepth:
    values: Float32[torch.Tensor, "1 hd wd"]
    stride: int
    steps: Float32[torch.Tensor, "2 hm wm"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _MaskSupervision:
    masks: Bool[np.ndarray, "n hm wm"] | None
    has_mask: Bool[np.ndarray, " n"]
    centers_xy: Float32[np.ndarray, "n 2"]


def open_training_set(
    path: Path, settings: Data, *, seed: int, depth: DepthForm = "pixels"
) -> TrainingSet:
    """Open a store to learn from; the rest is `TrainingSet`'s.

    Raises:
        DataError: unfinished, damaged, without what the supervision needs, or empty.
    """
    return TrainingSet(open_store(path), settings, seed=seed, depth=depth)


def _tiles(
    store: Store, rows: Int64[np.ndarray, " n"], tiling: Tiling, *, keep_empty: bool
) -> tuple[Int64[np.ndarray, " t"], list[Window | None]]:
    """(row of the store, window) of every tile that holds something to learn."""
    of_row: list[int] = []
    windows: list[Window | None] = []
    for row in rows.tolist():
        height, width = (int(side) for side in store.image_sizes[row])
        boxes = store.boxes(row)
        used = _usable(boxes, height=height, width=width)
        inside = np.clip(boxes.xyxy[used], 0, [width, height, width, height])
        for window in tiling.windows(height, width):
            kept, _ = parts_in(inside, window, size=(height, width), tile=tiling.size)
            if keep_empty or kept.any():
                of_row.append(row)
                windows.append(window)
    return np.array(of_row, dtype=np.int64), windows


def _usable(boxes: Boxes, *, height: int, width: int) -> Bool[np.ndarray, " n"]:
    usable: np.ndarray = ~boxes.crowd & _has_area(boxes.xyxy, height=height, width=width)
    return usable


def _has_area(
    boxes_xyxy: Float32[np.ndarray, "n 4"], *, height: int, width: int
) -> Bool[np.ndarray, " n"]:
    clipped = np.clip(boxes_xyxy, 0, [width, height, width, height])
    solid: np.ndarray = ((clipped[:, 2:] - clipped[:, :2]) > MIN_SIDE).all(axis=1)
    return solid


def _take_census(store: Store, *, keep_empty: bool) -> tuple[Census, Int64[np.ndarray, " n"]]:
    used_rows: list[int] = []
    counts = np.zeros(5, dtype=np.int64)
    with_boxes = 0
    for row in range(len(store)):
        boxes = store.boxes(row)
        height, width = (int(side) for side in store.image_sizes[row])
        usable = _usable(boxes, height=height, width=width)
        empty = ~boxes.crowd & ~usable
        limits = np.array([width, height, width, height], np.float32)
        outside = ((boxes.xyxy < 0) | (boxes.xyxy > limits)).any(axis=1) & usable
        counts += [len(usable), usable.sum(), boxes.crowd.sum(), empty.sum(), outside.sum()]
        with_boxes += bool(usable.any())
        if keep_empty or usable.any():
            used_rows.append(row)
    total, used, crowd, empty_count, clipped = (int(count) for count in counts)
    census = Census(
        images=len(store),
        images_used=len(used_rows),
        images_without_boxes=len(store) - with_boxes,
        images_without_depth=int((~store.depth_valid).sum()),
        boxes=total,
        boxes_used=used,
        boxes_crowd=crowd,
        boxes_empty=empty_count,
        boxes_clipped=clipped,
    )
    return census, np.array(used_rows, dtype=np.int64)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, order="C", copy=True))
