"""What can be learnt from a store, and what would be left out and why."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boxdepth.depthgen.store import DataError, Store, open_store
from boxdepth.trainer.data.rules import Augmentation, Data
from boxdepth.trainer.data.store_dataset import TrainingSet
from boxdepth.trainer.data.validation_set import check_images
from boxdepth.trainer.engine.run_folder import make_folder
from boxdepth.trainer.runs.pair_pictures import PairPicture

LOOKED_AT = 8
"""Images that are decoded unless all are asked for."""

CATEGORIES_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCheck:
    """A store as a run would see it."""

    store: Store
    training_set: TrainingSet
    decoded: int
    """Images that were decoded."""
    boxes_per_category: dict[str, int]
    """Crowd boxes left out."""
    problems: tuple[str, ...]
    """What is wrong with which image."""

    def to_json(self) -> dict[str, Any]:
        """Numbers, text and lists."""
        attributes = self.store.attributes
        return {
            "store": str(self.store.path),
            "dataset": attributes.dataset,
            "split": attributes.split,
            "fingerprint": self.store.fingerprint,
            "depth": dict(attributes.generator),
            "masks": attributes.masks,
            **self.training_set.census.to_json(),
            "images_decoded": self.decoded,
            "boxes_per_category": self.boxes_per_category,
            "problems": list(self.problems),
        }

    def rows(self) -> dict[str, str]:
        """The same in words, a line each."""
        heights, widths = self.store.image_sizes.T
        attributes, census = self.store.attributes, self.training_set.census
        landscape = float((widths > heights).mean())
        return {
            "dataset": f"{attributes.dataset} {attributes.split}",
            "images": f"{census.images}, {census.images_used} with a usable box",
            "sizes": f"{heights.min()}x{widths.min()} to {heights.max()}x{widths.max()}, "
            f"{100 * landscape:.0f} % wider than high",
            "boxes": f"{census.boxes}, {census.boxes_used} usable; crowd {census.boxes_crowd}, "
            f"without area {census.boxes_empty}, clipped {census.boxes_clipped}",
            "depth": f"missing on {census.images_without_depth} images",
            "masks": "yes" if attributes.masks else "no (boxes only)",
            "by category": self._most_frequent(),
            "decoded": f"{self.decoded} images, {len(self.problems)} with problems",
        }

    def _most_frequent(self) -> str:
        counts = sorted(self.boxes_per_category.items(), key=lambda item: -item[1])
        more = len(counts) - CATEGORIES_SHOWN
        shown = ", ".join(f"{name} {count}" for name, count in counts[:CATEGORIES_SHOWN])
        return shown + (f" and {more} more" if more > 0 else "")

    def require(self) -> None:
        """Raise if there is anything wrong.

        Raises:
            DataError: images that can't be used.
        """
        if self.problems:
            raise DataError(
                f"{self.store.path}: {len(self.problems)} images can't be used:\n  "
                + "\n  ".join(self.problems)
            )


def check_data(path: Path, *, deep: bool = False) -> DataCheck:
    """Count what a run would learn from, and decode some images, or all of them.

    Raises:
        StoreError: unfinished or damaged.
    """
    store = open_store(path)
    plain = Augmentation(short_sides=(800,), flip=0)
    training_set = TrainingSet(store, Data(augmentation=plain, bottom_rows_removed=0), seed=0)
    step = 1 if deep else max(len(store) // LOOKED_AT, 1)
    rows = range(0, len(store), step)
    return DataCheck(
        store=store,
        training_set=training_set,
        decoded=len(rows),
        boxes_per_category=_per_category(store),
        problems=tuple(check_images(store, rows)),
    )


def draw_pairs(training_set: TrainingSet, folder: Path, *, count: int) -> list[Path]:
    """Pictures of the pairs that the losses trust, on samples spread evenly over the store.

    Raises:
        ConfigError: the folder is a file, or below one.
    """
    make_folder(folder)
    last = len(training_set) - 1
    chosen = sorted({int(index) for index in np.linspace(0, last, min(count, last + 1))})
    files = []
    for index in chosen:
        picture = PairPicture(training_set.load(index, epoch=0))
        files.append(folder / f"{picture.sample.image_id}.png")
        picture.draw().save(files[-1])
    return files


def _per_category(store: Store) -> dict[str, int]:
    counts = np.zeros(len(store.attributes.categories), dtype=np.int64)
    for row in range(len(store)):
        boxes = store.boxes(row)
        counts += np.bincount(boxes.label[~boxes.crowd], minlength=len(counts))
    names = [category.name for category in store.attributes.categories]
    return dict(zip(names, counts.tolist(), strict=True))
