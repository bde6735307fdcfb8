"""Schema 1 of the store: every array with its name, type and meaning, and what the attributes say.

This table is the only place that names arrays: their layout (``layout``), what a unit writes
(``unit``), what a reader expects (``read``) and the table in ``docs/store-format.md`` follow from
it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64

from boxdepth.depthgen.store.canonical import canonical_json, sha256_hex
from boxdepth.depthgen.store.errors import StoreError
from boxdepth.depthgen.store.images import EXIF_POLICY
from boxdepth.depthgen.store.remote_file import RemoteFile

SCHEMA: Final = "boxdepth.store"
VERSION: Final = 1
CONTROL: Final = ".boxdepth"
MANIFEST: Final = f"{CONTROL}/MANIFEST.json"
LOCK: Final = f"{CONTROL}/lock"
RECORDS: Final = f"{CONTROL}/records"
DATASET_RECORD: Final = "dataset"

Kind = Literal["inverse_relative", "inverse_metric", "metric"]
Sign = Literal["near_is_large", "far_is_large"]


Dim = Literal["N", "N + 1", "K", "K + 1", "G * capacity", "rows", "columns", "bytes"] | int
"""A side of an array: N images, K boxes, G units, the rows and columns of the depth grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySchema:
    """One array of the store.

    Attributes:
        name: Its path in the zarr group.
        dtype: numpy's name of the type.
        dims: Its sides.
        meaning: What it holds, for people.
        per_unit: True if every unit writes its own object, before the record of the unit; False if
            the array belongs to the dataset and is written once, before the first unit.
        fill: What stands where nothing was written.
        codec: ``none``; ``zstd`` (level 3) or ``blosc`` (zstd 3, bitshuffle), each with crc32c.
        optional: What of the attributes says that the array is there; ``None``: always.
    """

    name: str
    dtype: str
    dims: tuple[Dim, ...]
    meaning: str
    per_unit: bool = False
    fill: float = 0
    codec: Literal["none", "zstd", "blosc"] = "zstd"
    optional: Literal["masks", "holes"] | None = None

    @property
    def whole(self) -> bool:
        """True if readers load it whole; the two large ones are read image by image."""
        return self.name not in (IMAGE_DATA, DEPTH_Q, DEPTH_MEASURED)

    def belongs_to(self, attributes: "StoreAttributes") -> bool:
        """True if a store of these attributes has the array."""
        present = {"masks": attributes.masks, "holes": attributes.depth.holes}
        return self.optional is None or present[self.optional]


IMAGE_DATA: Final = "image/data"
DEPTH_Q: Final = "depth/q"
DEPTH_MEASURED: Final = "depth/measured"
_NAN: Final = float("nan")


def _unit(
    name: str, dtype: str, meaning: str, *, dims: tuple[Dim, ...] = ("N",), **other: Any
) -> ArraySchema:
    return ArraySchema(name=name, dtype=dtype, dims=dims, meaning=meaning, per_unit=True, **other)


def _dataset(
    name: str, dtype: str, dims: tuple[Dim, ...], meaning: str, **other: Any
) -> ArraySchema:
    return ArraySchema(name=name, dtype=dtype, dims=dims, meaning=meaning, **other)


ARRAYS: Final = (
    _unit(
        IMAGE_DATA, "uint8",
        "the image files of the dataset, one after the other, unit by unit; 256 KiB chunks, one "
        "shard a unit",
        dims=("G * capacity",), codec="none",
    ),
    _unit("image/start", "int64", "where in `image/data` each file begins"),
    _unit("image/nbytes", "uint32", "bytes of each file; 0: the image was skipped"),
    _unit("image/crc32c", "uint32", "checksum of each file"),
    _dataset("image/id", "int64", ("N",), "the dataset's own image ids"),
    _dataset("image/size", "uint16", ("N", 2), "height, width in pixels"),
    _dataset(
        "image/name_utf8", "uint8", ("bytes",),
        "names relative to the image folder: name `i` is `utf8[ptr[i]:ptr[i + 1]]`",
    ),
    _dataset("image/name_ptr", "int64", ("N + 1",), "where each name begins"),
    _unit(
        DEPTH_Q, "uint16",
        "quantised depth, `depth = q * scale + offset`, spanning 0 .. 2^bits - 1 in every image; "
        "one chunk an image, one shard a unit",
        dims=("N", "rows", "columns"), codec="blosc",
    ),
    _unit("depth/scale", "float32", "see `depth/q`; NaN where there is no depth", fill=_NAN),
    _unit("depth/offset", "float32", "see `depth/q`; NaN where there is no depth", fill=_NAN),
    _unit("depth/valid", "uint8", "0: there is no depth, or it is constant or not finite"),
    _unit(
        DEPTH_MEASURED, "uint8",
        "1: measured; 0: a hole of the sensor, where `depth/q` has the nearest measured value "
        "(only in stores of imported depth with holes: `depth.holes`)",
        dims=("N", "rows", "columns"), codec="blosc", optional="holes",
    ),
    _dataset("boxes/ptr", "int64", ("N + 1",), "boxes of image `i` are rows `ptr[i]:ptr[i + 1]`"),
    _dataset("boxes/xyxy", "float32", ("K", 4), "left, top, right, bottom in pixels"),
    _dataset("boxes/label", "int32", ("K",), "0-based class, in the order of `categories`"),
    _dataset("boxes/id", "int64", ("K",), "the dataset's own annotation ids"),
    _dataset("boxes/crowd", "uint8", ("K",), "1: a group, not an object"),
    _dataset("boxes/area", "float32", ("K",), "annotated area in square pixels"),
    _dataset(
        "masks/counts", "uint8", ("bytes",),
        "COCO's compressed run lengths, empty where a box has no mask (`--with-masks`)",
        optional="masks",
    ),
    _dataset(
        "masks/ptr", "int64", ("K + 1",), "where each mask begins (`--with-masks`)",
        optional="masks",
    ),
)  # fmt: skip
"""All arrays of schema 1. Row ``i`` is the same image in every array with N rows."""


def markdown_table() -> str:
    """The table of ``docs/store-format.md``."""
    codecs = {"none": "not compressed", "zstd": "zstd, crc32c", "blosc": "blosc, crc32c"}
    rows = ["| array | type and shape | written | what it holds |", "| --- | --- | --- | --- |"]
    for array in ARRAYS:
        sides = ", ".join(str(dim) for dim in array.dims)
        writer = "by its unit" if array.per_unit else "with the dataset"
        rows.append(
            f"| `{array.name}` | {array.dtype} [{sides}], {codecs[array.codec]} | {writer} | "
            f"{array.meaning} |"
        )
    return "\n".join(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A class of the dataset, with the id that the dataset itself uses."""

    id: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthInfo:
    """What the numbers in ``depth/q`` mean.

    Attributes:
        kind: ``inverse_relative`` (DPT, Depth Anything), ``inverse_metric`` (1/m) or ``metric``
            (m).
        sign: Whether the nearer of two points has the larger or the smaller number.
        grid: (rows, columns) of every depth map; the grid covers the whole image, cell (r, c) is
            centred at ((r + 0.5) / rows, (c + 0.5) / columns) of it.
        bits: Bits of the quantisation, at most 16.
        resize: How the model's output was brought to the grid.
        holes: True if depth was measured and some cells were not: see ``depth/measured``.
    """

    kind: Kind = "inverse_relative"
    sign: Sign = "near_is_large"
    grid: tuple[int, int] = (384, 384)
    bits: int = 16
    resize: str = "bilinear, half-pixel centres, antialiased"
    holes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image of a dataset and what is annotated on it.

    Attributes:
        id: The dataset's own image id.
        name: Path relative to the image folder, with forward slashes.
        path: Where the file lies; ``None`` if its bytes come from elsewhere.
        height: Rows of the file's pixels.
        width: Columns of the file's pixels.
        boxes_xyxy: Boxes in pixels, (left, top, right, bottom).
        labels: Contiguous class numbers, 0-based, in the order of the categories.
        box_ids: The dataset's own annotation ids.
        crowd: True for a region that holds a group and is not one object.
        areas: Area in square pixels as annotated (of the mask where there is one).
        masks: One COCO run-length mask (``{"size": [h, w], "counts": str}``) or ``None`` a box;
            ``None`` as a whole where masks are not asked for.
    """

    id: int
    name: str
    path: Path | RemoteFile | None
    height: int
    width: int
    boxes_xyxy: Float32[np.ndarray, "n 4"]
    labels: Int64[np.ndarray, " n"]
    box_ids: Int64[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    areas: Float32[np.ndarray, " n"]
    masks: tuple[Mapping[str, Any] | None, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAttributes:
    """The attributes of the store's root group: everything that decides its bytes."""

    dataset: str
    split: str
    categories: tuple[Category, ...]
    images: int
    boxes: int
    masks: bool
    unit: int
    image_capacity: int
    depth: DepthInfo
    generator: Mapping[str, Any]
    fingerprint: Mapping[str, str]

    @property
    def units(self) -> int:
        """Number of units (shards) of the store."""
        return -(-self.images // self.unit)

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON, with their own hash under ``config_hash``."""
        image = {"encoding": "the original image file", "exif_orientation": EXIF_POLICY}
        plain = {"schema": SCHEMA, "version": VERSION, "image": image} | asdict(self)
        body: dict[str, Any] = json.loads(canonical_json(plain))
        if not self.depth.holes:
            # Stores without it are as they were before there was such a thing, byte for byte.
            del body["depth"]["holes"]
        return body | {"config_hash": sha256_hex(canonical_json(body))}


def attributes_from_json(value: object, *, path: object) -> StoreAttributes:
    """Read attributes back.

    Raises:
        StoreError: Another schema, another major version, or an attribute missing or of a wrong
            type.
    """
    if not isinstance(value, Mapping):
        raise StoreError(f"{path}: damaged attributes; build the store again")
    if value.get("schema") != SCHEMA:
        raise StoreError(f"{path}: schema is {value.get('schema')!r}, expected {SCHEMA!r}")
    if value.get("version") != VERSION:
        raise StoreError(
            f"{path}: written in version {value.get('version')!r} of the store format, this reader "
            f"knows version {VERSION}; use the matching release of boxdepth-depthgen"
        )
    try:
        depth = dict(value["depth"])
        rows, columns = depth.pop("grid")
        if min(int(value["unit"]), int(rows), int(columns)) < 1 or int(value["images"]) < 0:
            raise ValueError("a unit, a depth map or a number of images that can't be")
        return StoreAttributes(
            dataset=str(value["dataset"]),
            split=str(value["split"]),
            categories=tuple(Category(id=c["id"], name=c["name"]) for c in value["categories"]),
            images=int(value["images"]),
            boxes=int(value["boxes"]),
            masks=bool(value["masks"]),
            unit=int(value["unit"]),
            image_capacity=int(value["image_capacity"]),
            depth=DepthInfo(grid=(int(rows), int(columns)), **depth),
            generator=dict(value["generator"]),
            fingerprint=dict(value["fingerprint"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise StoreError(
            f"{path}: damaged attributes ({error!r}); build the store again"
        ) from error
