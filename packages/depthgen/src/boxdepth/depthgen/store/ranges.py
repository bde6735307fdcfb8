"""Byte ranges of the two large arrays: which shard, where in it, several at once."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from jaxtyping import UInt64

from boxdepth.depthgen.store.cache import CachedReader, default_cache
from boxdepth.depthgen.store.errors import StoreError
from boxdepth.depthgen.store.layout import IMAGE_CHUNK
from boxdepth.depthgen.store.manifest import Manifest
from boxdepth.depthgen.store.schema import IMAGE_DATA
from boxdepth.depthgen.store.shards import EMPTY, decode_blosc, read_shard_index, strip_crc32c

CURE = (
    "Bring the store back: remove the named unit's record (.boxdepth/records/NNNNNN.json) if it "
    "is there, and repeat the same `depthgen run`; only what is missing is computed again."
)


@final
class ShardReader:
    """Reads by row; the index of each shard is read once. Rows of one unit are fetched together:
    one request for neighbours, remotely."""

    def __init__(self, manifest: Manifest) -> None:
        self._location = manifest.location
        self._attributes = manifest.attributes
        self._units = manifest.units
        cache = default_cache() if manifest.location.is_remote else None
        self._reader = CachedReader(manifest.location, manifest.fingerprint, cache)
        self._indices: dict[tuple[str, int], UInt64[np.ndarray, "chunks 2"]] = {}
        self._contiguous: dict[int, bool] = {}

    def images(self, places: Mapping[int, tuple[int, int]]) -> dict[int, bytes]:
        """The bytes at ``places``: (start in ``image/data``, bytes) by row."""
        found: dict[int, bytes] = {}
        for unit, rows in self._by_unit(places).items():
            name, base = self._shard(IMAGE_DATA, unit), unit * self._attributes.image_capacity
            ranges = [(places[row][0] - base, places[row][1]) for row in rows]
            if self._images_contiguous(unit):
                parts = self._reader.read_ranges(name, ranges)
            else:
                parts = [self._gather(unit, start=start, nbytes=n) for start, n in ranges]
            found.update(zip(rows, parts, strict=True))
        return found

    def maps(self, array: str, rows: Sequence[int], *, nbytes: int) -> dict[int, bytes]:
        """Decompressed inner chunks of ``nbytes`` bytes each, by row.

        Raises:
            StoreError: A chunk is missing or damaged.
        """
        found: dict[int, bytes] = {}
        for unit, members in self._by_unit(rows).items():
            index, name = self._index(array, unit), self._shard(array, unit)
            ranges = []
            for row in members:
                start, length = (int(v) for v in index[row % self._attributes.unit])
                if start == EMPTY:
                    raise StoreError(f"{self.where(array, row)}: the chunk is missing\n{CURE}")
                ranges.append((start, length))
            for row, chunk in zip(members, self._reader.read_ranges(name, ranges), strict=True):
                where = self.where(array, row)
                body = strip_crc32c(chunk, where=where)
                found[row] = decode_blosc(body, nbytes=nbytes, where=where)
        return found

    def where(self, array: str, row: int) -> str:
        """Array, shard and image in words."""
        unit = row // self._attributes.unit
        number = self._units[unit].image_ids[row % self._attributes.unit]
        return f"{self._location}: array {array}, shard {unit}, image {number}"

    def _by_unit(self, rows: Sequence[int] | Mapping[int, object]) -> dict[int, list[int]]:
        units: dict[int, list[int]] = defaultdict(list)
        for row in sorted(set(rows)):
            units[row // self._attributes.unit].append(row)
        return units

    def _shard(self, array: str, unit: int) -> str:
        return f"{array}/c/{unit}" + ("/0/0" if array != IMAGE_DATA else "")

    def _index(self, array: str, unit: int) -> UInt64[np.ndarray, "chunks 2"]:
        if (array, unit) not in self._indices:
            name, attributes = self._shard(array, unit), self._attributes
            recorded = self._units[unit].objects.get(name)
            if recorded is None:
                raise StoreError(f"{self._location}: unit {unit} has no {name}\n{CURE}")
            images = array == IMAGE_DATA
            self._indices[array, unit] = read_shard_index(
                self._reader,
                name,
                nbytes=recorded.nbytes,
                chunks=attributes.image_capacity // IMAGE_CHUNK if images else attributes.unit,
                where=f"{self._location}/{name}",
            )
        return self._indices[array, unit]

    def _images_contiguous(self, unit: int) -> bool:
        """Whether a unit's written chunks are the first ones, in order and without gaps, so that
        a place in the array is the same place in the object."""
        if unit not in self._contiguous:
            index = self._index(IMAGE_DATA, unit)
            used = np.flatnonzero(index[:, 0] != EMPTY)
            expected = np.arange(len(used), dtype=np.uint64) * np.uint64(IMAGE_CHUNK)
            self._contiguous[unit] = bool(
                used.size
                and used[-1] == len(used) - 1
                and (index[used, 0] == expected).all()
                and (index[used, 1] == IMAGE_CHUNK).all()
            )
        return self._contiguous[unit]

    def _gather(self, unit: int, *, start: int, nbytes: int) -> bytes:
        """Bytes of a shard whose chunks another writer has ordered in its own way."""
        name = self._shard(IMAGE_DATA, unit)
        first, last = start // IMAGE_CHUNK, (start + nbytes - 1) // IMAGE_CHUNK
        chunks = [(int(s), int(n)) for s, n in self._index(IMAGE_DATA, unit)[first : last + 1]]
        if any(offset == EMPTY or length != IMAGE_CHUNK for offset, length in chunks):
            raise StoreError(f"{self._location}: {name}: a chunk is missing\n{CURE}")
        begin = start - first * IMAGE_CHUNK
        return b"".join(self._reader.read_ranges(name, chunks))[begin : begin + nbytes]
