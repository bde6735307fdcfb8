"""Reading inner chunks of zarr v3 shards with one ranged read each; the index is cached."""

import os
import struct
from pathlib import Path
from typing import Final

import google_crc32c
import numpy as np
from jaxtyping import UInt64
from numcodecs import blosc  # type: ignore[import-untyped]

from boxdepth.depthgen.store.errors import StoreError, environment_failure, is_of_the_machine

EMPTY: Final = (1 << 64) - 1
"""Offset and size of an inner chunk that was not written (zarr v3, codec ``sharding_indexed``)."""

_CRC_BYTES: Final = 4


def read_range(path: Path, *, start: int, nbytes: int) -> bytes:
    """Read ``nbytes`` bytes from ``start``.

    Raises:
        StoreError: The file is missing, or ends too early.
        EnvironmentFailure: The disk fails.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, nbytes, start)
        finally:
            os.close(descriptor)
    except OSError as error:
        if is_of_the_machine(error):
            raise environment_failure(error, path) from error
        raise StoreError(
            f"{path}: {error.strerror}; `depthgen verify` tells what else is"
        ) from error
    if len(data) != nbytes:
        raise StoreError(
            f"{path}: {len(data)} bytes at {start}, expected {nbytes}; verify the store"
        )
    return data


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


def read_shard_index(path: Path, *, chunks: int) -> UInt64[np.ndarray, "chunks 2"]:
    """Read a shard's index (at its end): offset and size of every inner chunk, in C order.

    Raises:
        StoreError: The index is damaged, or points outside the shard.
    """
    nbytes = chunks * 16 + _CRC_BYTES
    size = path.stat().st_size if path.is_file() else 0
    if size < nbytes:
        raise StoreError(f"{path}: missing or shorter than its index; verify the store")
    body = strip_crc32c(read_range(path, start=size - nbytes, nbytes=nbytes), where=str(path))
    index = np.frombuffer(body, dtype="<u8").reshape(chunks, 2)
    written = index[index[:, 0] != EMPTY]
    if (written > size).any() or (written.sum(axis=1) > size - nbytes).any():
        raise StoreError(f"{path}: its index points outside the shard; verify the store")
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
