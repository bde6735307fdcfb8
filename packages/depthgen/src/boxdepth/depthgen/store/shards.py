"""Goes round zarr, whose reads of one image cost 0.9-1.5 ms and four requests (with the cached
index: one ranged read): with zarr-python the reader gets 0.41-0.44 of decode-only speed, this way
0.95 (store.md's bench; ``tests/bench/bench_store.py``). A test compares both byte for byte.
"""

import struct
from typing import Final

import google_crc32c
import numpy as np
from jaxtyping import UInt64
from numcodecs import blosc  # type: ignore[import-untyped]

from boxdepth.depthgen.store.cache import CachedReader
from boxdepth.depthgen.store.errors import StoreError

EMPTY: Final = (1 << 64) - 1
"""Offset and size of an inner chunk that was not written (zarr v3, codec ``sharding_indexed``)."""

_CRC_BYTES: Final = 4

# As zarr sets it wherever it is loaded: one chunk is too little work for blosc's own threads, which
# make a read a quarter slower, and readers run in threads and processes of their own anyway.
blosc.use_threads = False


def strip_crc32c(data: bytes, *, where: str) -> bytes:
    """Check and remove the checksum that zarr's ``crc32c`` codec appends.

    Raises:
        StoreError: The checksum differs.
    """
    body, (expected,) = data[:-_CRC_BYTES], struct.unpack("<I", data[-_CRC_BYTES:])
    if google_crc32c.value(body) != expected:
        raise StoreError(
            f"{where}: checksum differs, the stored bytes are damaged; verify the store"
        )
    return body


def index_nbytes(chunks: int) -> int:
    """Bytes of the index at the end of a shard of ``chunks`` inner chunks."""
    return chunks * 16 + _CRC_BYTES


def read_shard_index(
    reader: CachedReader, name: str, *, nbytes: int, chunks: int, where: str
) -> UInt64[np.ndarray, "chunks 2"]:
    """Read a shard's index (at its end): offset and size of every inner chunk, in C order.

    Args:
        nbytes: The recorded size of the shard.
        where: What messages call it.

    Raises:
        StoreError: The index is damaged, or points outside the shard.
    """
    tail = index_nbytes(chunks)
    if nbytes < tail:
        raise StoreError(f"{where}: shorter than its index; verify the store")
    data = reader.read_range(name, start=nbytes - tail, nbytes=tail)
    index = np.frombuffer(strip_crc32c(data, where=where), dtype="<u8").reshape(chunks, 2)
    written = index[index[:, 0] != EMPTY]
    if (written > nbytes).any() or (written.sum(axis=1) > nbytes - tail).any():
        raise StoreError(f"{where}: its index points outside the shard; verify the store")
    return index


def decode_blosc(data: bytes, *, nbytes: int, where: str) -> bytes:
    """Decompress one chunk, after a look at the size that it announces.

    Raises:
        StoreError: It would not decompress to ``nbytes`` bytes.
    """
    announced = struct.unpack_from("<I", data, 4)[0] if len(data) >= 16 else -1
    if announced != nbytes:
        raise StoreError(
            f"{where}: chunk of {announced} bytes, expected {nbytes}; verify the store"
        )
    try:
        decoded: bytes = blosc.decompress(data)
    except RuntimeError as error:
        raise StoreError(f"{where}: cannot be decompressed; verify the store") from error
    return decoded
