"""The store's arrays as zarr makes and opens them."""

from collections.abc import Mapping
from typing import Any

import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from boxdepth.depthgen.store.layout import ArraySpec

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


def create_array(group: zarr.Group, spec: ArraySpec) -> None:
    """Create an array by its specification."""
    group.create_array(
        spec.name,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=spec.chunks,
        shards=spec.shards,
        compressors=_COMPRESSORS[spec.compression] or None,
        fill_value=spec.fill,
    )


def open_array(group: zarr.Group, spec: ArraySpec) -> zarr.Array:
    """Open an array for writing."""
    array = group[spec.name]
    assert isinstance(array, zarr.Array)
    # A column of zeros is written too: an object that must exist cannot go missing unseen.
    return array.with_config({"write_empty_chunks": spec.shards is None})
