"""Everything that decides a store's bytes, fixed before the first of them is written."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from boxdepth.depthgen.store.canonical import sha256_hex
from boxdepth.depthgen.store.errors import StoreError
from boxdepth.depthgen.store.layout import IMAGE_CHUNK
from boxdepth.depthgen.store.schema import (
    ARRAYS,
    Category,
    DepthInfo,
    ImageRecord,
    StoreAttributes,
)


def plan_store(
    records: Sequence[ImageRecord],
    *,
    dataset: str,
    split: str,
    categories: tuple[Category, ...],
    image_nbytes: Int64[np.ndarray, " n"],
    depth: DepthInfo,
    generator: Mapping[str, Any],
    unit: int,
    masks: bool,
) -> StoreAttributes:
    """Fix everything that decides a store's bytes, before the first of them is written.

    Args:
        records: The images in the order of the rows.
        image_nbytes: Size of every image file in bytes; 0 for a file that is not there.
        generator: Model, revision, settings and library versions, as flat JSON.
        unit: Images of one unit (shard).

    Raises:
        StoreError: No image at all, or a unit, a grid or a number of bits out of range.
    """
    if not records:
        raise StoreError(f"{dataset} {split}: no image to store; check the annotation file")
    if unit < 1 or not 1 <= depth.bits <= 16 or min(depth.grid) < 1:
        raise StoreError(f"unit {unit}, depth {depth}: unit and grid >= 1, bits in 1..16 expected")
    sums = np.add.reduceat(image_nbytes, np.arange(0, len(records), unit))
    largest = max(1, int(sums.max()))
    values = dataset_arrays(records, masks=masks)
    return StoreAttributes(
        dataset=dataset,
        split=split,
        categories=categories,
        images=len(records),
        boxes=int(values["boxes/ptr"][-1]),
        masks=masks,
        unit=unit,
        image_capacity=-(-largest // IMAGE_CHUNK) * IMAGE_CHUNK,
        depth=depth,
        generator=generator,
        fingerprint={
            "images": _hash_arrays(values, prefix="image/"),
            "files": sha256_hex(image_nbytes.astype("<i8").tobytes()),
            "annotations": _hash_arrays(values, prefix="boxes/"),
            "masks": _hash_arrays(values, prefix="masks/"),
        },
    )


def _hash_arrays(values: Mapping[str, np.ndarray], *, prefix: str) -> str:
    parts = (value.tobytes() for name, value in sorted(values.items()) if name.startswith(prefix))
    return sha256_hex(b"".join(parts))


def dataset_arrays(records: Sequence[ImageRecord], *, masks: bool) -> dict[str, np.ndarray]:
    """The arrays that follow from the dataset alone; they are written before the first unit."""
    names = [record.name.encode() for record in records]
    values: dict[str, Any] = {
        "image/id": [record.id for record in records],
        "image/size": [(record.height, record.width) for record in records],
        "image/name_utf8": np.frombuffer(b"".join(names), dtype=np.uint8),
        "image/name_ptr": _pointers([len(name) for name in names]),
        "boxes/ptr": _pointers([len(record.labels) for record in records]),
        "boxes/xyxy": np.concatenate([record.boxes_xyxy for record in records]),
        "boxes/label": np.concatenate([record.labels for record in records]),
        "boxes/id": np.concatenate([record.box_ids for record in records]),
        "boxes/crowd": np.concatenate([record.crowd for record in records]),
        "boxes/area": np.concatenate([record.areas for record in records]),
    }
    if masks:
        counts = [mask_counts(record, i) for record in records for i in range(len(record.labels))]
        values["masks/counts"] = np.frombuffer(b"".join(counts), dtype=np.uint8)
        values["masks/ptr"] = _pointers([len(part) for part in counts])
    return {
        array.name: np.asarray(values[array.name]).astype(array.dtype)
        for array in ARRAYS
        if array.name in values
    }


def mask_counts(record: ImageRecord, index: int) -> bytes:
    """The ASCII run lengths of one box's mask; empty where it has none."""
    mask = None if record.masks is None else record.masks[index]
    return b"" if mask is None else str(mask["counts"]).encode("ascii")


def _pointers(lengths: list[int]) -> Int64[np.ndarray, " n_plus_1"]:
    return np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]).astype(np.int64)
