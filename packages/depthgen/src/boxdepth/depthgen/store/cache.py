"""Ranges of remote objects on the local disk, within a bound; never whole shards."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, final
from uuid import uuid4

import google_crc32c

from boxdepth.depthgen.store.location import Location

FOLDER_VARIABLE: Final = "BOXDEPTH_CACHE"
LIMIT_VARIABLE: Final = "BOXDEPTH_CACHE_GB"
_DEFAULT_GB: Final = 10.0
_KEEP: Final = 0.8
_CRC_BYTES: Final = 4


@final
class RangeCache:
    """Files of one range each, by the fingerprint of the store that they are of.

    Several processes may share a folder. What is damaged or cannot be written is fetched again.
    """

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._nbytes: int | None = None

    def get(self, key: str) -> bytes | None:
        """What was put there, unless it was evicted or is damaged."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        body, crc = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
        return body if google_crc32c.value(body).to_bytes(_CRC_BYTES, "little") == crc else None

    def put(self, key: str, data: bytes) -> None:
        """Keep ``data``; the least recently used go where the bound is passed."""
        if len(data) > self._limit // 4:
            return
        path = self._path(key)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f"{path.name}.{uuid4().hex[:8]}.tmp")
            aside.write_bytes(data + google_crc32c.value(data).to_bytes(_CRC_BYTES, "little"))
            aside.replace(path)
            self._make_room(len(data) + _CRC_BYTES)

    def _make_room(self, added: int) -> None:
        if self._nbytes is not None:
            self._nbytes += added
            if self._nbytes <= self._limit:
                return
        # Others may share the folder, so the sum is taken anew before anything is removed.
        files = []
        for path in self._folder.rglob("*"):
            with suppress(OSError):
                info = path.stat()
                if path.is_file():
                    files.append((info.st_mtime, info.st_size, path))
        total = sum(size for _, size, _ in files)
        if total > self._limit:
            for _, size, path in sorted(files):
                with suppress(OSError):
                    path.unlink()
                    total -= size
                if total <= _KEEP * self._limit:
                    break
        self._nbytes = total

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        return self._folder / name[:2] / name


@final
class CachedReader:
    """Ranged reads of a finished store's objects, which never change."""

    def __init__(self, location: Location, fingerprint: str, cache: RangeCache | None) -> None:
        self._location = location
        self._fingerprint = fingerprint
        self._cache = cache

    def read_range(self, name: str, *, start: int, nbytes: int) -> bytes:
        """As ``Location.read_range``."""
        return self.read_ranges(name, [(start, nbytes)])[0]

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """As ``Location.read_ranges``."""
        if self._cache is None:
            return self._location.read_ranges(name, ranges)
        keys = [f"{self._fingerprint}/{name}/{start}+{nbytes}" for start, nbytes in ranges]
        found = [self._cache.get(key) for key in keys]
        missing = [i for i, data in enumerate(found) if data is None]
        if missing:
            fetched = self._location.read_ranges(name, [ranges[i] for i in missing])
            for i, data in zip(missing, fetched, strict=True):
                found[i] = data
                self._cache.put(keys[i], data)
        return [data for data in found if data is not None]


def default_cache() -> RangeCache | None:
    """The cache that the environment asks for: ``BOXDEPTH_CACHE`` (folder; by default
    ``~/.cache/boxdepth/ranges``), ``BOXDEPTH_CACHE_GB`` (10; 0 turns it off)."""
    try:
        limit = int(float(os.environ.get(LIMIT_VARIABLE, _DEFAULT_GB)) * 1e9)
    except (ValueError, OverflowError):
        limit = int(_DEFAULT_GB * 1e9)
    if limit <= 0:
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = os.environ.get(FOLDER_VARIABLE)
    return RangeCache(Path(folder) if folder else home / "boxdepth" / "ranges", limit=limit)
