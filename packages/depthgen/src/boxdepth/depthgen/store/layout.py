"""How the arrays are cut into objects, and the bytes of those objects."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from boxdepth.depthgen.store.schema import (
    ARRAYS,
    DEPTH_MEASURED,
    DEPTH_Q,
    IMAGE_DATA,
    ArraySchema,
    StoreAttributes,
)

IMAGE_CHUNK: Final = 256 * 1024
"""Bytes of one inner chunk of ``image/data``."""

_DATASET_CHUNK: Final = 1 << 22

_COMPRESSORS: Mapping[str, tuple[Any, ...]] = {
    "none": (),
    "zstd": (ZstdCodec(level=3), Crc32cCodec()),
    # typesize is written out: zarr would fill it in from the dtype, but only when the array is
    # created.
    "blosc": (
        BloscCodec(typesize=2, cname="zstd", clevel=3, shuffle="bitshuffle", blocksize=0),
        Crc32cCodec(),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayLayout:
    """One array of one store: its sides in numbers, and how it is cut."""

    schema: ArraySchema
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None

    def object_name(self, unit: int) -> str:
        """The key of the array's object that belongs to ``unit``."""
        return f"{self.schema.name}/c/{unit}" + "/0" * (len(self.shape) - 1)


def shape_of(schema: ArraySchema, attributes: StoreAttributes, *, nbytes: int) -> tuple[int, ...]:
    """The sides of an array in numbers; ``nbytes`` where only its content tells."""
    rows, columns = attributes.depth.grid
    numbers = {
        "N": attributes.images,
        "N + 1": attributes.images + 1,
        "K": attributes.boxes,
        "K + 1": attributes.boxes + 1,
        "G * capacity": attributes.units * attributes.image_capacity,
        "rows": rows,
        "columns": columns,
        "bytes": nbytes,
    }
    return tuple(numbers[dim] if isinstance(dim, str) else dim for dim in schema.dims)


def per_unit_layouts(attributes: StoreAttributes) -> tuple[ArrayLayout, ...]:
    """The arrays of which each unit writes its own object."""
    layouts = []
    for schema in ARRAYS:
        if not schema.per_unit or not schema.belongs_to(attributes):
            continue
        shape = shape_of(schema, attributes, nbytes=0)
        chunks: tuple[int, ...] = (attributes.unit, *shape[1:])
        shards: tuple[int, ...] | None = None
        if schema.name == IMAGE_DATA:
            chunks, shards = (IMAGE_CHUNK,), (attributes.image_capacity,)
        elif schema.name in (DEPTH_Q, DEPTH_MEASURED):
            chunks, shards = (1, *shape[1:]), chunks
        layouts.append(ArrayLayout(schema=schema, shape=shape, chunks=chunks, shards=shards))
    return tuple(layouts)


def dataset_layouts(values: Mapping[str, np.ndarray]) -> tuple[ArrayLayout, ...]:
    """The dataset's arrays: one chunk each, 4 MiB chunks for the mask bytes."""
    return tuple(
        ArrayLayout(
            schema=schema,
            shape=values[schema.name].shape,
            chunks=tuple(max(1, min(side, _DATASET_CHUNK)) for side in values[schema.name].shape),
        )
        for schema in ARRAYS
        if not schema.per_unit and schema.name in values
    )


def encode_unit(
    layouts: Iterable[ArrayLayout], values: Mapping[str, np.ndarray], *, unit: int
) -> dict[str, bytes]:
    """The objects of one unit, by name. Encoded in memory: hashed, and then written as they are."""
    layouts = tuple(layouts)
    objects: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(store_dict=objects))
    for layout in layouts:
        start = unit * (layout.shards or layout.chunks)[0]
        part = values[layout.schema.name]
        _create(group, layout)[start : start + len(part)] = part
    names = {layout.object_name(unit) for layout in layouts}
    # A unit without any usable depth (or image) has no object of that array.
    return {name: objects[name].to_bytes() for name in sorted(names) if name in objects}


def encode_dataset(
    attributes: StoreAttributes, values: Mapping[str, np.ndarray]
) -> dict[str, bytes]:
    """The metadata of the whole store, and the objects of the dataset's arrays, by name."""
    objects: dict[str, Buffer] = {}
    store = MemoryStore(store_dict=objects)
    group = zarr.create_group(store, attributes=attributes.to_json())
    for layout in per_unit_layouts(attributes):
        _create(group, layout)
    for layout in dataset_layouts(values):
        _create(group, layout)[...] = values[layout.schema.name]
    with warnings.catch_warnings():
        # zarr warns that consolidated metadata is an extension; it is optional for readers.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(store)
    return {name: buffer.to_bytes() for name, buffer in sorted(objects.items())}


def decode_arrays(
    objects: Mapping[str, bytes], names: Iterable[str]
) -> Iterator[tuple[str, zarr.Array]]:
    """Arrays whose objects and metadata are in memory."""
    buffer = default_buffer_prototype().buffer
    store = MemoryStore(
        store_dict={name: buffer.from_bytes(data) for name, data in objects.items()},
        read_only=True,
    )
    group = zarr.open_group(store, mode="r", use_consolidated=False)
    for name in names:
        array = group[name]
        assert isinstance(array, zarr.Array)
        yield name, array


def _create(group: zarr.Group, layout: ArrayLayout) -> zarr.Array:
    schema = layout.schema
    group.create_array(
        schema.name,
        shape=layout.shape,
        dtype=schema.dtype,
        chunks=layout.chunks,
        shards=layout.shards,
        compressors=_COMPRESSORS[schema.codec] or None,
        fill_value=schema.fill,
    )
    array = group[schema.name]
    assert isinstance(array, zarr.Array)
    # A column of zeros is written too: an object that must exist cannot go missing unseen.
    return array.with_config({"write_empty_chunks": layout.shards is None})
