"""The records of COCO files as typed values, which msgspec fills without a dict in between.

A file that holds anything else (a null, text for a number in a box) is read as plain dicts by the
same readers. Keys that are not here are not read.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

Id = int | float | str
Box = tuple[float, float, float, float]
Objects = TypeVar("Objects")


class Rle(msgspec.Struct, gc=False):
    """Run lengths: `counts` compressed, or plain."""

    size: tuple[int, int]
    counts: str | list[int]


Segmentation = Rle | list[list[float]]


class Result(msgspec.Struct, gc=False):
    """One detection."""

    image_id: Id
    category_id: Id
    score: float
    bbox: Box | UnsetType = UNSET
    segmentation: Segmentation | UnsetType = UNSET


class BoxResult(msgspec.Struct, gc=False):
    """One detection of which only the box is wanted."""

    image_id: Id
    category_id: Id
    score: float
    bbox: Box


class Image(msgspec.Struct, gc=False):
    """One image; sizes in pixels."""

    id: Id
    height: Id
    width: Id
    file_name: str | UnsetType = UNSET


class Category(msgspec.Struct, gc=False):
    """One class."""

    id: Id
    name: str | UnsetType = UNSET


class Annotation(msgspec.Struct, gc=False):
    """One annotated object or crowd region."""

    id: Id
    image_id: Id
    category_id: Id
    bbox: Box | UnsetType = UNSET
    area: float | UnsetType = UNSET
    iscrowd: bool | int | float | str | UnsetType = UNSET
    segmentation: Segmentation | UnsetType = UNSET


class BoxAnnotation(msgspec.Struct, gc=False):
    """One annotated object of which only the box is wanted."""

    id: Id
    image_id: Id
    category_id: Id
    bbox: Box
    area: float | UnsetType = UNSET
    iscrowd: bool | int | float | str | UnsetType = UNSET


class Document(msgspec.Struct, Generic[Objects], gc=False):
    """An annotation file, of `Annotation` or `BoxAnnotation`."""

    images: list[Image]
    annotations: list[Objects]
    categories: list[Category]


RESULT_KEYS = ("image_id", "category_id", "score", "bbox", "segmentation")
IMAGE_KEYS = ("id", "height", "width", "file_name")
CATEGORY_KEYS = ("id", "name")
ANNOTATION_KEYS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")

Column = Sequence[Any]
Columns = Mapping[str, Column]


def columns_of(rows: Sequence[Any], keys: Sequence[str]) -> Columns:
    """Records (typed, or dicts), column by column; `UNSET` where a record lacks the key."""
    if rows and isinstance(rows[0], dict):
        columns = {key: [row.get(key, UNSET) for row in rows] for key in keys}
        if "bbox" in columns:  # tuples are what msgspec has checked
            columns["bbox"] = [list(b) if type(b) is tuple else b for b in columns["bbox"]]
        return columns
    return {
        key: list(map(attrgetter(key), rows))
        if rows and hasattr(rows[0], key)
        else [UNSET] * len(rows)
        for key in keys
    }
