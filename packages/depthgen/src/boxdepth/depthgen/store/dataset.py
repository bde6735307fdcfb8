"""A store as a dataset for ``torch.utils.data.DataLoader``, without torch and without a trainer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float32, UInt8

from boxdepth.depthgen.store.images import decode_image
from boxdepth.depthgen.store.read import Boxes, Store, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreItem:
    """One image of a store.

    Attributes:
        image_id: The dataset's own id.
        name: Path relative to the dataset's image folder.
        image: RGB pixels.
        inverse_depth: 0..255 within the image, larger = nearer, on the store's grid, which covers
            the whole image; zeros without depth.
        depth_valid: False where there is no depth.
        boxes: Boxes, labels, ids, crowd flags and areas.
    """

    image_id: int
    name: str
    image: UInt8[np.ndarray, "h w 3"]
    inverse_depth: Float32[np.ndarray, "rows columns"]
    depth_valid: bool
    boxes: Boxes


@final
class StoreDataset:
    """``len``, index, and ``__getitems__`` (a whole batch, its neighbours fetched together).

    Sizes differ, so a ``DataLoader`` needs a ``collate_fn`` (``list`` will do). An object may be
    pickled, sent to spawned workers, and, for a local store, forked. A remote store needs
    ``multiprocessing_context="spawn"``, and says so.

    Args:
        where: Path or URL of a finished store.

    Raises:
        StoreError: Not a store, unfinished or damaged.
    """

    def __init__(self, where: Path | str) -> None:
        self.store: Store = open_store(where)

    def __reduce__(self) -> tuple[Any, ...]:
        return StoreDataset, (self.store.path,)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> StoreItem:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index}: the store has {len(self)} images")
        return self.__getitems__([index % len(self)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[StoreItem]:
        store, wanted = self.store, [int(index) for index in indices]
        files, maps = store.images_bytes(wanted), store.quantised_depths(wanted)
        return [
            StoreItem(
                image_id=int(store.image_ids[i]),
                name=store.image_names[i],
                image=decode_image(
                    data,
                    expected_size=(int(store.image_sizes[i][0]), int(store.image_sizes[i][1])),
                    name=store.image_names[i],
                ),
                inverse_depth=store.normalised(i, q),
                depth_valid=bool(store.depth_valid[i]),
                boxes=store.boxes(i),
            )
            for i, data, q in zip(wanted, files, maps, strict=True)
        ]
