"""Reading: through the manifest only, every byte checked, random access at the cost of decoding."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import google_crc32c
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8, UInt16

from boxdepth.depthgen.store.canonical import sha256_hex
from boxdepth.depthgen.store.depth import normalised_inverse_depth
from boxdepth.depthgen.store.errors import StoreError, summarise
from boxdepth.depthgen.store.images import decode_image
from boxdepth.depthgen.store.layout import decode_arrays, shape_of
from boxdepth.depthgen.store.location import Location, locate
from boxdepth.depthgen.store.manifest import Manifest, describe, object_problems, read_manifest
from boxdepth.depthgen.store.ranges import CURE, ShardReader
from boxdepth.depthgen.store.schema import (
    ARRAYS,
    DEPTH_MEASURED,
    DEPTH_Q,
    IMAGE_DATA,
    ArraySchema,
    StoreAttributes,
)

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
        self._shards = ShardReader(self._manifest)
        arrays = _load_arrays(self._manifest)
        self._arrays = arrays
        self._rows = np.flatnonzero(arrays["image/nbytes"])
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
            EnvironmentFailure: The disk or the network fails.
        """
        return self.images_bytes([i])[0]

    def images_bytes(self, indices: Sequence[int]) -> list[bytes]:
        """The original files of several images; neighbours are fetched together."""
        arrays, rows = self._arrays, [int(self._rows[i]) for i in indices]
        found = self._shards.images(
            {
                row: (int(arrays["image/start"][row]), int(arrays["image/nbytes"][row]))
                for row in rows
            }
        )
        for row, data in found.items():
            if google_crc32c.value(data) != int(arrays["image/crc32c"][row]):
                where = self._shards.where(IMAGE_DATA, row)
                raise StoreError(f"{where}: checksum differs, the file is damaged\n{CURE}")
        return [found[row] for row in rows]

    def image(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        """Image ``i``, decoded to RGB."""
        height, width = (int(side) for side in self.image_sizes[i])
        return decode_image(
            self.image_bytes(i), expected_size=(height, width), name=self.image_names[i]
        )

    def quantised_depth(self, i: int) -> UInt16[np.ndarray, "rows columns"]:
        """``depth/q`` of image ``i`` as stored; zeros where the depth is invalid."""
        return self.quantised_depths([i])[0]

    def quantised_depths(self, indices: Sequence[int]) -> list[UInt16[np.ndarray, "rows columns"]]:
        """``depth/q`` of several images; neighbours are fetched together."""
        rows_columns = self.attributes.depth.grid
        valid = [int(self._rows[i]) for i in indices if self.depth_valid[i]]
        raw = self._shards.maps(DEPTH_Q, valid, nbytes=2 * rows_columns[0] * rows_columns[1])
        empty = np.zeros(rows_columns, dtype="<u2").tobytes()
        return [
            np.frombuffer(raw.get(int(self._rows[i]), empty), "<u2").reshape(rows_columns)
            for i in indices
        ]

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
        raw = self._shards.maps(DEPTH_MEASURED, [row], nbytes=info.grid[0] * info.grid[1])
        return np.frombuffer(raw[row], dtype=np.uint8).reshape(info.grid).astype(bool)

    def inverse_depth(self, i: int) -> Float32[np.ndarray, "rows columns"]:
        """Inverse depth of image ``i`` on the store's grid: 0..255 per image, larger = nearer.

        Zeros where ``depth_valid[i]`` is False. See ``depth.normalised_inverse_depth``.
        """
        return self.normalised(i, self.quantised_depth(i))

    def normalised(
        self, i: int, q: UInt16[np.ndarray, "rows columns"]
    ) -> Float32[np.ndarray, "rows columns"]:
        """``inverse_depth(i)`` from ``quantised_depth(i)``, where that is at hand."""
        row = int(self._rows[i])
        return normalised_inverse_depth(
            q,
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
