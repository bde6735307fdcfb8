"""Reading: through the manifest only, every byte checked, random access at the cost of decoding."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import google_crc32c
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8, UInt16, UInt64

from boxdepth.depthgen.store.canonical import sha256_hex
from boxdepth.depthgen.store.depth import normalised_inverse_depth
from boxdepth.depthgen.store.errors import StoreError, summarise
from boxdepth.depthgen.store.images import decode_image
from boxdepth.depthgen.store.layout import IMAGE_CHUNK, decode_arrays, shape_of
from boxdepth.depthgen.store.location import Location, locate
from boxdepth.depthgen.store.manifest import Manifest, describe, object_problems, read_manifest
from boxdepth.depthgen.store.schema import (
    ARRAYS,
    DEPTH_MEASURED,
    DEPTH_Q,
    IMAGE_DATA,
    ArraySchema,
    StoreAttributes,
)
from boxdepth.depthgen.store.shards import EMPTY, decode_blosc, read_shard_index, strip_crc32c

_MAX_TEXT_BYTES = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """The boxes of one image.

    Attributes:
        xyxy: (left, top, right, bottom) in pixels of the stored image.
        label: 0-based class numbers, in the order of ``attributes.categories``.
        id: The dataset's own annotation ids.
        crowd: True for a group of objects.
        area: Annotated area in square pixels.
    """

    xyxy: Float32[np.ndarray, "n 4"]
    label: Int64[np.ndarray, " n"]
    id: Int64[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    area: Float32[np.ndarray, " n"]


def open_store(where: Path | str) -> "Store":
    """Open a finished store for reading.

    Args:
        where: A path, or a URL: ``s3://bucket/folder``, ``gs://``, ``az://``, ``file://``.

    Raises:
        StoreError: Not a store, unfinished, damaged, or of another major version.
        EnvironmentFailure: The disk or the network fails.
        MissingExtraError: A URL, and the extra ``remote`` is not installed.
    """
    return Store(locate(where))


@final
class Store:
    """A finished store. Rows of images that were skipped when it was built do not appear.

    No file stays open and no thread is started, so an object of this class may be used after a
    fork and by several threads; a pickled one opens its path again.
    """

    def __init__(self, location: Location) -> None:
        self._manifest = read_manifest(location)
        if problems := list(object_problems(self._manifest)):
            raise StoreError(f"{location}: damaged:\n{summarise(problems)}\n{CURE}")
        self._location = location
        arrays = _load_arrays(self._manifest)
        self._arrays = arrays
        self._rows = np.flatnonzero(arrays["image/nbytes"])
        self._indices: dict[tuple[str, int], UInt64[np.ndarray, "chunks 2"]] = {}
        self._contiguous_units: dict[int, bool] = {}
        self.image_ids: Int64[np.ndarray, " n"] = arrays["image/id"][self._rows]
        self.image_sizes: Int64[np.ndarray, "n 2"] = arrays["image/size"][self._rows].astype(
            np.int64
        )
        self.depth_valid: Bool[np.ndarray, " n"] = arrays["depth/valid"][self._rows].astype(bool)

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self._location,)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def path(self) -> Path | str:
        """Where the store lies: a path, or the text of a URL."""
        return self._location.where

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the manifest: equal for equal stores, wherever they lie."""
        return self._manifest.fingerprint

    @property
    def attributes(self) -> StoreAttributes:
        """Dataset, categories, meaning of the depth, provenance."""
        return self._manifest.attributes

    @property
    def nbytes(self) -> int:
        """Recorded bytes of all objects."""
        records = self._manifest.records
        return sum(item.nbytes for record in records for item in record.objects.values())

    @property
    def skipped(self) -> dict[int, str]:
        """Images that the run skipped, with the reason, by image id."""
        return {k: reason for unit in self._manifest.units for k, reason in unit.skipped.items()}

    @cached_property
    def image_names(self) -> list[str]:
        """Names relative to the dataset's image folder."""
        text, ptr = self._arrays["image/name_utf8"].tobytes(), self._arrays["image/name_ptr"]
        return [text[ptr[row] : ptr[row + 1]].decode() for row in self._rows]

    def boxes(self, i: int) -> Boxes:
        """The boxes of image ``i``."""
        part = self._box_slice(i)
        return Boxes(
            xyxy=self._arrays["boxes/xyxy"][part],
            label=self._arrays["boxes/label"][part].astype(np.int64),
            id=self._arrays["boxes/id"][part],
            crowd=self._arrays["boxes/crowd"][part].astype(bool),
            area=self._arrays["boxes/area"][part],
        )

    def image_bytes(self, i: int) -> bytes:
        """The original file of image ``i``.

        Raises:
            StoreError: The bytes differ from those that were stored.
        """
        row = int(self._rows[i])
        unit, nbytes = row // self.attributes.unit, int(self._arrays["image/nbytes"][row])
        start = int(self._arrays["image/start"][row]) - unit * self.attributes.image_capacity
        name = self._shard(IMAGE_DATA, unit)
        if self._images_contiguous(unit):
            data = self._location.read_range(name, start=start, nbytes=nbytes)
        else:
            data = self._gather(name, unit, start=start, nbytes=nbytes)
        if google_crc32c.value(data) != int(self._arrays["image/crc32c"][row]):
            raise StoreError(
                f"{self._where(i, IMAGE_DATA)}: checksum differs, the file is damaged\n{CURE}"
            )
        return data

    def image(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        """Image ``i``, decoded to RGB."""
        height, width = (int(side) for side in self.image_sizes[i])
        return decode_image(
            self.image_bytes(i), expected_size=(height, width), name=self.image_names[i]
        )

    def quantised_depth(self, i: int) -> UInt16[np.ndarray, "rows columns"]:
        """``depth/q`` of image ``i`` as stored; zeros where the depth is invalid."""
        row, info = int(self._rows[i]), self.attributes.depth
        if not self.depth_valid[i]:
            return np.zeros(info.grid, dtype=np.uint16)
        raw = self._map(i, DEPTH_Q, row, nbytes=2 * info.grid[0] * info.grid[1])
        return np.frombuffer(raw, dtype="<u2").reshape(info.grid)

    def depth_scale(self, i: int) -> tuple[np.float32, np.float32]:
        """``scale`` and ``offset`` of image ``i``: ``depth = q * scale + offset``; NaN without
        depth."""
        row = int(self._rows[i])
        return self._arrays["depth/scale"][row], self._arrays["depth/offset"][row]

    def depth_measured(self, i: int) -> Bool[np.ndarray, "rows columns"]:
        """Where the depth of image ``i`` was measured; False in the holes of a sensor.

        All True for predicted depth, all False where ``depth_valid[i]`` is False.
        """
        row, info = int(self._rows[i]), self.attributes.depth
        if not info.holes or not self.depth_valid[i]:
            return np.full(info.grid, bool(self.depth_valid[i]))
        raw = self._map(i, DEPTH_MEASURED, row, nbytes=info.grid[0] * info.grid[1])
        return np.frombuffer(raw, dtype=np.uint8).reshape(info.grid).astype(bool)

    def _map(self, i: int, array: str, row: int, *, nbytes: int) -> bytes:
        """The bytes of one image's map in a sharded array."""
        where = self._where(i, array)
        unit, inner = divmod(row, self.attributes.unit)
        start, length = (int(v) for v in self._index(array, unit)[inner])
        if start == EMPTY:
            raise StoreError(f"{where}: the chunk is missing\n{CURE}")
        chunk = self._location.read_range(self._shard(array, unit), start=start, nbytes=length)
        return decode_blosc(strip_crc32c(chunk, where=where), nbytes=nbytes, where=where)

    def inverse_depth(self, i: int) -> Float32[np.ndarray, "rows columns"]:
        """Inverse depth of image ``i`` on the store's grid: 0..255 per image, larger = nearer.

        Zeros where ``depth_valid[i]`` is False. See ``depth.normalised_inverse_depth``.
        """
        row = int(self._rows[i])
        return normalised_inverse_depth(
            self.quantised_depth(i),
            scale=float(self._arrays["depth/scale"][row]),
            offset=float(self._arrays["depth/offset"][row]),
            info=self.attributes.depth,
        )

    def masks(self, i: int) -> list[dict[str, Any] | None]:
        """One run-length mask (``{"size": [h, w], "counts": str}``) or ``None`` a box of image
        ``i``."""
        part = self._box_slice(i)
        if not self.attributes.masks:
            return [None] * (part.stop - part.start)
        counts, ptr = self._mask_arrays
        size = [int(side) for side in self.image_sizes[i]]
        texts = [
            counts[ptr[k] : ptr[k + 1]].tobytes().decode("ascii")
            for k in range(part.start, part.stop)
        ]
        return [{"size": size, "counts": text} if text else None for text in texts]

    @cached_property
    def _mask_arrays(self) -> tuple[UInt8[np.ndarray, " bytes"], Int64[np.ndarray, " n"]]:
        loaded = _load(self._manifest, [array for array in ARRAYS if array.optional == "masks"])
        return loaded["masks/counts"], loaded["masks/ptr"]

    def _box_slice(self, i: int) -> slice:
        ptr, row = self._arrays["boxes/ptr"], self._rows[i]
        return slice(int(ptr[row]), int(ptr[row + 1]))

    def _shard(self, array: str, unit: int) -> str:
        return f"{array}/c/{unit}" + ("/0/0" if array != IMAGE_DATA else "")

    def _where(self, i: int, array: str) -> str:
        unit = int(self._rows[i]) // self.attributes.unit
        return f"{self.path}: array {array}, shard {unit}, image {int(self.image_ids[i])}"

    def _index(self, array: str, unit: int) -> UInt64[np.ndarray, "chunks 2"]:
        if (array, unit) not in self._indices:
            name, attributes = self._shard(array, unit), self.attributes
            recorded = self._manifest.units[unit].objects.get(name)
            if recorded is None:
                raise StoreError(f"{self.path}: unit {unit} has no {name}\n{CURE}")
            images = array == IMAGE_DATA
            chunks = attributes.image_capacity // IMAGE_CHUNK if images else attributes.unit
            self._indices[array, unit] = read_shard_index(
                self._location, name, nbytes=recorded.nbytes, chunks=chunks
            )
        return self._indices[array, unit]

    def _images_contiguous(self, unit: int) -> bool:
        """Whether a unit's written chunks are the first ones, in order and without gaps, so that
        a place in the array is the same place in the object."""
        if unit not in self._contiguous_units:
            index = self._index(IMAGE_DATA, unit)
            used = np.flatnonzero(index[:, 0] != EMPTY)
            expected = np.arange(len(used), dtype=np.uint64) * np.uint64(IMAGE_CHUNK)
            self._contiguous_units[unit] = bool(
                used.size
                and used[-1] == len(used) - 1
                and (index[used, 0] == expected).all()
                and (index[used, 1] == IMAGE_CHUNK).all()
            )
        return self._contiguous_units[unit]

    def _gather(self, name: str, unit: int, *, start: int, nbytes: int) -> bytes:
        """Bytes of a shard whose chunks another writer has ordered in its own way."""
        index = self._index(IMAGE_DATA, unit)
        first, last = start // IMAGE_CHUNK, (start + nbytes - 1) // IMAGE_CHUNK
        parts = []
        for offset, length in index[first : last + 1].tolist():
            if offset == EMPTY or length != IMAGE_CHUNK:
                raise StoreError(f"{self.path}: {name}: a chunk is missing\n{CURE}")
            parts.append(self._location.read_range(name, start=offset, nbytes=length))
        begin = start - first * IMAGE_CHUNK
        return b"".join(parts)[begin : begin + nbytes]


CURE = (
    "Bring the store back: remove the named unit's record (.boxdepth/records/NNNNNN.json) if it "
    "is there, and repeat the same `depthgen run`; only what is missing is computed again."
)


def _load_arrays(manifest: Manifest) -> dict[str, Any]:
    arrays = _load(manifest, [array for array in ARRAYS if array.whole and not array.optional])
    names, boxes = arrays["image/name_ptr"], arrays["boxes/ptr"]
    for name, ptr, end in (
        ("image/name_ptr", names, len(arrays["image/name_utf8"])),
        ("boxes/ptr", boxes, manifest.attributes.boxes),
    ):
        if ptr[0] != 0 or ptr[-1] != end or (np.diff(ptr) < 0).any():
            raise StoreError(f"{manifest.location}: array {name} does not rise from 0 to {end}")
    return arrays


def _check_layout(array: Any, schema: ArraySchema, attributes: StoreAttributes) -> None:
    """Compare an array's type and shape with the schema, before anything of it is read."""
    # A number of bytes is not known beforehand, but it is bounded.
    nbytes = min(array.shape[0], _MAX_TEXT_BYTES) if array.shape else 0
    expected = shape_of(schema, attributes, nbytes=nbytes)
    if str(array.dtype) != schema.dtype or tuple(array.shape) != expected:
        raise StoreError(
            f"array {schema.name} is {array.dtype} {array.shape}, the schema says {schema.dtype} "
            f"{expected}; build the store again"
        )


def _load(manifest: Manifest, schemas: Sequence[ArraySchema]) -> dict[str, Any]:
    """Read small arrays whole, each of their objects against its recorded hash first."""
    names = {schema.name for schema in schemas}
    wanted = {
        name: (item, record)
        for record in manifest.records
        for name, item in record.objects.items()
        if name.split("/c/")[0] in names
    }
    problems, objects = [], dict(manifest.metadata)
    for name, data in zip(wanted, manifest.location.read_all(wanted), strict=True):
        item, record = wanted[name]
        objects[name] = data
        if sha256_hex(data) != item.sha256:
            problems.append(f"{describe(name, record)}: its hash differs")
    if problems:
        raise StoreError(f"{manifest.location}: damaged:\n{summarise(problems)}\n{CURE}")
    loaded = {}
    by_name = {schema.name: schema for schema in schemas}
    try:
        for name, array in decode_arrays(objects, names):
            _check_layout(array, by_name[name], manifest.attributes)
            loaded[name] = np.asarray(array[...])
    except StoreError:
        raise
    except Exception as error:  # zarr and its codecs raise whatever they meet
        raise StoreError(f"{manifest.location}: damaged arrays ({error!r})\n{CURE}") from error
    return loaded
