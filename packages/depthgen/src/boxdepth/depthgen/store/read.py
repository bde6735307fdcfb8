"""Reading: through the manifest only, every byte checked, random access at the cost of decoding."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import google_crc32c
import numpy as np
import zarr
from jaxtyping import Bool, Float32, Int64, UInt8, UInt16, UInt64
from zarr.storage import LocalStore

from boxdepth.depthgen.store.depth import normalised_inverse_depth
from boxdepth.depthgen.store.errors import StoreError, summarise
from boxdepth.depthgen.store.files import sha256_file
from boxdepth.depthgen.store.images import decode_image
from boxdepth.depthgen.store.layout import IMAGE_CHUNK
from boxdepth.depthgen.store.manifest import Manifest, describe, object_problems, read_manifest
from boxdepth.depthgen.store.schema import StoreAttributes
from boxdepth.depthgen.store.shards import (
    EMPTY,
    decode_blosc,
    read_range,
    read_shard_index,
    strip_crc32c,
)

_EXPECTED: Mapping[str, tuple[str, tuple[int | str, ...]]] = {
    "image/id": ("int64", ("n",)),
    "image/size": ("uint16", ("n", 2)),
    "image/name_utf8": ("uint8", ("bytes",)),
    "image/name_ptr": ("int64", ("n+1",)),
    "boxes/ptr": ("int64", ("n+1",)),
    "boxes/xyxy": ("float32", ("k", 4)),
    "boxes/label": ("int32", ("k",)),
    "boxes/id": ("int64", ("k",)),
    "boxes/crowd": ("uint8", ("k",)),
    "boxes/area": ("float32", ("k",)),
    "image/start": ("int64", ("n",)),
    "image/nbytes": ("uint32", ("n",)),
    "image/crc32c": ("uint32", ("n",)),
    "depth/scale": ("float32", ("n",)),
    "depth/offset": ("float32", ("n",)),
    "depth/valid": ("uint8", ("n",)),
    "masks/counts": ("uint8", ("bytes",)),
    "masks/ptr": ("int64", ("k+1",)),
}
"""Arrays that are read whole, with n images and k boxes."""

_MASK_ARRAYS = ("masks/counts", "masks/ptr")
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


def open_store(path: Path | str) -> "Store":
    """Open a finished store for reading.

    Raises:
        StoreError: Not a store, unfinished, damaged, or of another major version.
    """
    return Store(Path(path))


@final
class Store:
    """A finished store. Rows of images that were skipped when it was built do not appear.

    No file stays open and no thread is started, so an object of this class may be used after a
    fork and by several threads; a pickled one opens its path again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._manifest = read_manifest(path)
        if problems := list(object_problems(self._manifest)):
            raise StoreError(f"{path}: damaged:\n{summarise(problems)}\n{CURE}")
        arrays = _load_arrays(self._manifest)
        self._arrays = arrays
        self._rows = np.flatnonzero(arrays["image/nbytes"])
        self._depth_indices: dict[int, UInt64[np.ndarray, "chunks 2"]] = {}
        self._contiguous_units: dict[int, bool] = {}
        self.image_ids: Int64[np.ndarray, " n"] = arrays["image/id"][self._rows]
        self.image_sizes: Int64[np.ndarray, "n 2"] = arrays["image/size"][self._rows].astype(
            np.int64
        )
        self.depth_valid: Bool[np.ndarray, " n"] = arrays["depth/valid"][self._rows].astype(bool)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (str(self.path),)

    def __len__(self) -> int:
        return len(self._rows)

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
        units = (self._manifest.dataset, *self._manifest.units)
        return sum(item.nbytes for unit in units for item in unit.objects.values())

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
        start, nbytes = (
            int(self._arrays["image/start"][row]),
            int(self._arrays["image/nbytes"][row]),
        )
        unit = row // self.attributes.unit
        if self._images_contiguous(unit):
            offset = start - unit * self.attributes.image_capacity
            data = read_range(self._shard("image/data", unit), start=offset, nbytes=nbytes)
        else:
            data = self._zarr_array("image/data")[start : start + nbytes].tobytes()
        if google_crc32c.value(data) != int(self._arrays["image/crc32c"][row]):
            raise StoreError(
                f"{self._where(i, 'image/data')}: checksum differs, the file is damaged\n{CURE}"
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
        where = self._where(i, "depth/q")
        unit, inner = divmod(row, self.attributes.unit)
        start, nbytes = (int(v) for v in self._depth_index(unit)[inner])
        if start == EMPTY:
            raise StoreError(f"{where}: the chunk is missing\n{CURE}")
        chunk = read_range(self._shard("depth/q", unit), start=start, nbytes=nbytes)
        raw = decode_blosc(
            strip_crc32c(chunk, where=where), nbytes=2 * info.grid[0] * info.grid[1], where=where
        )
        return np.frombuffer(raw, dtype="<u2").reshape(info.grid)

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
        loaded = _load(self._manifest, _MASK_ARRAYS)
        return loaded["masks/counts"], loaded["masks/ptr"]

    def _box_slice(self, i: int) -> slice:
        ptr, row = self._arrays["boxes/ptr"], self._rows[i]
        return slice(int(ptr[row]), int(ptr[row + 1]))

    def _shard(self, array: str, unit: int) -> Path:
        return self.path / _SHARD_NAMES[array].format(unit)

    def _where(self, i: int, array: str) -> str:
        unit = int(self._rows[i]) // self.attributes.unit
        return f"{self.path}: array {array}, shard {unit}, image {int(self.image_ids[i])}"

    def _depth_index(self, unit: int) -> UInt64[np.ndarray, "chunks 2"]:
        if unit not in self._depth_indices:
            shard = self._shard("depth/q", unit)
            self._depth_indices[unit] = read_shard_index(shard, chunks=self.attributes.unit)
        return self._depth_indices[unit]

    def _images_contiguous(self, unit: int) -> bool:
        if unit not in self._contiguous_units:
            chunks = self.attributes.image_capacity // IMAGE_CHUNK
            index = read_shard_index(self._shard("image/data", unit), chunks=chunks)
            used = np.flatnonzero(index[:, 0] != EMPTY)
            expected = np.arange(len(used), dtype=np.uint64) * np.uint64(IMAGE_CHUNK)
            # Written chunks must be the first ones, without gaps: then array offset = file offset.
            self._contiguous_units[unit] = bool(
                used.size
                and used[-1] == len(used) - 1
                and (index[used, 0] == expected).all()
                and (index[used, 1] == IMAGE_CHUNK).all()
            )
        return self._contiguous_units[unit]

    def _zarr_array(self, name: str) -> Any:
        return zarr.open_array(LocalStore(self.path, read_only=True), path=name, mode="r")


CURE = (
    "Bring the store back: remove the named unit's record (.boxdepth/records/NNNNNN.json) if it "
    "is there, "
    "and repeat the same `depthgen run`; only what is missing is computed again."
)
_SHARD_NAMES = {"image/data": "image/data/c/{}", "depth/q": "depth/q/c/{}/0/0"}


def _load_arrays(manifest: Manifest) -> dict[str, Any]:
    arrays = _load(manifest, tuple(name for name in _EXPECTED if name not in _MASK_ARRAYS))
    names, boxes = arrays["image/name_ptr"], arrays["boxes/ptr"]
    for name, ptr, end in (
        ("image/name_ptr", names, len(arrays["image/name_utf8"])),
        ("boxes/ptr", boxes, manifest.attributes.boxes),
    ):
        if ptr[0] != 0 or ptr[-1] != end or (np.diff(ptr) < 0).any():
            raise StoreError(f"{manifest.path}: array {name} does not rise from 0 to {end}")
    return arrays


def _check_layout(array: Any, name: str, attributes: StoreAttributes) -> None:
    """Compare an array's type and shape with the schema, before anything of it is read."""
    dtype, shape = _EXPECTED[name]
    counts = {"n": attributes.images, "k": attributes.boxes}
    counts |= {"n+1": attributes.images + 1, "k+1": attributes.boxes + 1}
    # A number of bytes is not known beforehand, but it is bounded.
    counts["bytes"] = min(array.shape[0], _MAX_TEXT_BYTES) if array.shape else 0
    expected = tuple(counts[side] if isinstance(side, str) else side for side in shape)
    if str(array.dtype) != dtype or tuple(array.shape) != expected:
        raise StoreError(
            f"array {name} is {array.dtype} {array.shape}, the schema says {dtype} {expected}; "
            "build the store again"
        )


def _load(manifest: Manifest, names: tuple[str, ...]) -> dict[str, Any]:
    """Read small arrays whole, each of their objects against its recorded hash first."""
    problems = [
        f"{describe(name, record)}: its hash differs"
        for record in (manifest.dataset, *manifest.units)
        for name, item in record.objects.items()
        if name.split("/c/")[0] in names and sha256_file(manifest.path / name) != item.sha256
    ]
    if problems:
        raise StoreError(f"{manifest.path}: damaged:\n{summarise(problems)}\n{CURE}")
    group = zarr.open_group(
        LocalStore(manifest.path, read_only=True), mode="r", use_consolidated=False
    )
    loaded = {}
    for name in names:
        array: Any = group[name]
        _check_layout(array, name, manifest.attributes)
        loaded[name] = np.asarray(array[...])
    return loaded
