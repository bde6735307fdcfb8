"""A finished store as images to predict on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import UInt8

from boxdepth.depthgen.store import Category, DataError, Store, open_store


@final
class ValidationSet:
    """The images of a store as they were stored, to predict on."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def rgb(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image."""
        return self.store.image(row)

    def name(self, row: int) -> str:
        """Its file's name."""
        return self.store.image_names[row]

    def image_id(self, row: int) -> int:
        """The dataset's id of an image."""
        return int(self.store.image_ids[row])

    @property
    def categories(self) -> tuple[Category, ...]:
        """The dataset's own classes, in the order of its labels."""
        return tuple(self.store.attributes.categories)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The dataset's own category id of each label."""
        return tuple(category.id for category in self.categories)

    @property
    def has_masks(self) -> bool:
        """Whether every annotation has a mask: without, there is no mask AP."""
        return self.store.attributes.masks and all(
            mask is not None for row in range(len(self)) for mask in self.store.masks(row)
        )

    def ground_truth(self) -> dict[str, Any]:
        """The store's annotations as a COCO document, without segmentation where none is held."""
        sizes = zip(self.store.image_ids.tolist(), self.store.image_sizes.tolist(), strict=True)
        return {
            "images": [{"id": i, "height": h, "width": w} for i, (h, w) in sizes],
            "categories": [
                {"id": category.id, "name": category.name}
                for category in self.store.attributes.categories
            ],
            "annotations": [a for row in range(len(self)) for a in self._annotations(row)],
        }

    def _annotations(self, row: int) -> list[dict[str, Any]]:
        boxes, masks = self.store.boxes(row), self.store.masks(row)
        return [
            {
                "id": int(boxes.id[k]),
                "image_id": self.image_id(row),
                "category_id": self.category_ids[int(boxes.label[k])],
                "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                "area": float(boxes.area[k]),
                "iscrowd": int(boxes.crowd[k]),
                **({} if masks[k] is None else {"segmentation": masks[k]}),
            }
            for k, (x1, y1, x2, y2) in enumerate(boxes.xyxy)
        ]


def open_validation_set(path: Path) -> ValidationSet:
    """Open a store to predict on.

    Raises:
        StoreError: unfinished or damaged.
    """
    return ValidationSet(open_store(path))


def check_images(store: Store, rows: Sequence[int]) -> list[str]:
    """Decode images and depth of ``rows``; what is wrong with each, all of it."""
    problems = []
    for row in rows:
        try:
            store.image(row)
            if store.depth_valid[row] and not np.isfinite(store.inverse_depth(row)).all():
                problems.append(f"image {int(store.image_ids[row])}: depth is not finite")
        except DataError as error:
            problems.append(str(error))
    return problems
