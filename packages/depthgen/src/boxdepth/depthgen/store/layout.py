"""Which arrays a store has, how they are cut, and which objects belong to which unit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Int64

from boxdepth.depthgen.store.errors import StoreError
from boxdepth.depthgen.store.files import sha256_hex
from boxdepth.depthgen.store.schema import Category, DepthInfo, ImageRecord, StoreAttributes

IMAGE_CHUNK: Final = 256 * 1024
"""Bytes of one inner chunk of ``image/data``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """Name, type and layout of one array.

    Attributes:
        per_unit: True if every unit writes its own shard or chunk; False if the array belongs to
            the dataset and is written once, before the first unit.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    fill: float
    compression: Literal["none", "zstd", "blosc"]
    per_unit: bool

    def object_name(self, unit: int) -> str:
        """The key of the array's object that belongs to ``unit``."""
        return f"{self.name}/c/{unit}" + "/0" * (len(self.shape) - 1)


def per_unit_arrays(attributes: StoreAttributes) -> tuple[ArraySpec, ...]:
    """The arrays of which each unit writes its own object."""
    n, unit, (rows, columns) = attributes.images, attributes.unit, attributes.depth.grid
    capacity = attributes.image_capacity

    def column(name: str, dtype: str, fill: float) -> ArraySpec:
        return ArraySpec(
            name=name, dtype=dtype, shape=(n,), chunks=(unit,), shards=None, fill=fill,
            compression="zstd", per_unit=True,
        )  # fmt: skip

    return (
        ArraySpec(
            name="image/data", dtype="uint8", shape=(attributes.units * capacity,),
            chunks=(IMAGE_CHUNK,), shards=(capacity,), fill=0, compression="none", per_unit=True,
        ),
        column("image/start", "int64", 0),
        column("image/nbytes", "uint32", 0),
        column("image/crc32c", "uint32", 0),
        ArraySpec(
            name="depth/q", dtype="uint16", shape=(n, rows, columns), chunks=(1, rows, columns),
            shards=(unit, rows, columns), fill=0, compression="blosc", per_unit=True,
        ),
        column("depth/scale", "float32", float("nan")),
        column("depth/offset", "float32", float("nan")),
        column("depth/valid", "uint8", 0),
    )  # fmt: skip


def dataset_arrays(records: Sequence[ImageRecord], *, masks: bool) -> dict[str, np.ndarray]:
    """The arrays that follow from the dataset alone; they are written before the first unit."""
    names = [record.name.encode() for record in records]
    values: dict[str, np.ndarray] = {
        "image/id": np.array([record.id for record in records], dtype=np.int64),
        "image/size": np.array([(r.height, r.width) for r in records], dtype=np.uint16),
        "image/name_utf8": np.frombuffer(b"".join(names), dtype=np.uint8),
        "image/name_ptr": _pointers([len(name) for name in names]),
        "boxes/ptr": _pointers([len(record.labels) for record in records]),
        "boxes/xyxy": np.concatenate([r.boxes_xyxy for r in records]).astype(np.float32),
        "boxes/label": np.concatenate([r.labels for r in records]).astype(np.int32),
        "boxes/id": np.concatenate([r.box_ids for r in records]).astype(np.int64),
        "boxes/crowd": np.concatenate([r.crowd for r in records]).astype(np.uint8),
        "boxes/area": np.concatenate([r.areas for r in records]).astype(np.float32),
    }
    if masks:
        counts = [mask_counts(record, i) for record in records for i in range(len(record.labels))]
        values["masks/counts"] = np.frombuffer(b"".join(counts), dtype=np.uint8)
        values["masks/ptr"] = _pointers([len(part) for part in counts])
    return values


def mask_counts(record: ImageRecord, index: int) -> bytes:
    """The ASCII run lengths of one box's mask; empty where it has none."""
    mask = None if record.masks is None else record.masks[index]
    return b"" if mask is None else str(mask["counts"]).encode("ascii")


def _pointers(lengths: list[int]) -> Int64[np.ndarray, " n_plus_1"]:
    return np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]).astype(np.int64)


def dataset_array_specs(attributes: StoreAttributes, values: Mapping[str, Any]) -> list[ArraySpec]:
    """Layouts of the dataset's arrays: one chunk each, 4 MiB chunks for the mask bytes."""
    return [
        ArraySpec(
            name=name, dtype=str(value.dtype), shape=value.shape,
            chunks=tuple(max(1, min(side, 1 << 22)) for side in value.shape), shards=None,
            fill=0, compression="zstd", per_unit=False,
        )
        for name, value in values.items()
    ]  # fmt: skip


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
