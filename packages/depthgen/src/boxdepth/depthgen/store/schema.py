"""Schema 1 of the store: what its attributes say, and which arrays it holds."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64

from boxdepth.depthgen.store.errors import StoreError
from boxdepth.depthgen.store.files import canonical_json, sha256_hex
from boxdepth.depthgen.store.images import EXIF_POLICY

SCHEMA: Final = "boxdepth.store"
VERSION: Final = 1
CONTROL: Final = ".boxdepth"
MANIFEST: Final = f"{CONTROL}/MANIFEST.json"
LOCK: Final = f"{CONTROL}/lock"
RECORDS: Final = f"{CONTROL}/records"
DATASET_RECORD: Final = "dataset"

Kind = Literal["inverse_relative", "inverse_metric", "metric"]
Sign = Literal["near_is_large", "far_is_large"]


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
    """

    kind: Kind = "inverse_relative"
    sign: Sign = "near_is_large"
    grid: tuple[int, int] = (384, 384)
    bits: int = 16
    resize: str = "bilinear, half-pixel centres, antialiased"


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
    path: Path | None
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
        image = {"encoding": "the original JPEG or PNG file", "exif_orientation": EXIF_POLICY}
        plain = {"schema": SCHEMA, "version": VERSION, "image": image} | asdict(self)
        body: dict[str, Any] = json.loads(canonical_json(plain))
        return body | {"config_hash": sha256_hex(canonical_json(body))}


def attributes_from_json(value: Mapping[str, Any], *, path: Path) -> StoreAttributes:
    """Read attributes back.

    Raises:
        StoreError: Another schema, another major version, or an attribute missing or of a wrong
            type.
    """
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
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{path}: damaged attributes ({error!r}); build the store again"
        ) from error
