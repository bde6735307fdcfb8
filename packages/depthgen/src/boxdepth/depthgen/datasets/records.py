"""What every dataset becomes: records, and a count of the dirt that was met."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float64

from boxdepth.depthgen.datasets.masks import mask_area
from boxdepth.depthgen.store.errors import (
    ConfigError,
    DataError,
    environment_failure,
    is_of_the_machine,
    summarise,
)
from boxdepth.depthgen.store.location import ObjectMissingError, is_remote, locate
from boxdepth.depthgen.store.remote_file import RemoteFile
from boxdepth.depthgen.store.schema import Category, ImageRecord

DRAWN: Final = "Scenes drawn by boxdepth.depthgen"
"""How an annotation file says so (``info.description``)."""

MAX_JSON_BYTES: Final = 2 << 30
_MOST_DIGITS: Final = 4000
_CLIP_TOLERANCE: Final = 1.0
"""Pixels that a box may leave its image by without being counted: the rounding of annotation
tools."""


class OnBad(StrEnum):
    """What to do with bad images and annotations: stop, or leave them out and say so."""

    error = "error"
    skip = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """What was met while reading annotations.

    Attributes:
        boxes_clipped: Boxes that left their image by more than a pixel; they were cut to it.
        boxes_dropped: Boxes without any area inside their image.
        crowds: Boxes that hold a group; they are kept, with their flag.
        images_without_boxes: Images on which nothing is annotated; they are kept.
        rejected: Records that were left out (only with ``on_bad="skip"``), one text each.
        notes: What was mended or is worth a word, one line a kind, each with its count.
    """

    boxes_clipped: int = 0
    boxes_dropped: int = 0
    crowds: int = 0
    images_without_boxes: int = 0
    rejected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Images and boxes of one split, in the order of their ids."""

    name: str
    split: str
    categories: tuple[Category, ...]
    records: tuple[ImageRecord, ...]
    report: DatasetReport = field(default_factory=DatasetReport)
    drawn: bool = False
    """Scenes that `depthgen sample` drew, and no photographs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One box as a file has it.

    Attributes:
        xyxy: Pixels, (left, top, right, bottom); may leave the image.
        label: 0-based class in the order of the categories.
        id: The file's own annotation id.
        crowd: True for a group.
        area: Square pixels; ``None`` where the file has none: that of the mask, else of the box.
        mask: A run-length mask, if there is one and masks are wanted.
    """

    xyxy: tuple[float, float, float, float]
    label: int
    id: int
    crowd: bool = False
    area: float | None = None
    mask: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """An image of a dataset before its boxes: where it lies, its name, and its size in pixels."""

    id: int
    name: str
    path: Path | RemoteFile
    height: int
    width: int


class RecordBuilder:
    """Makes records of images and annotations, and counts the boxes that needed a hand."""

    def __init__(self, *, masks: bool) -> None:
        self.masks = masks
        self.clipped = 0
        self.dropped = 0

    def build(self, image: ImageFile, annotations: Sequence[Annotation]) -> ImageRecord:
        """One record: boxes are cut to the image, those without any area in it are dropped."""
        corners = np.array([item.xyxy for item in annotations], dtype=np.float64).reshape(-1, 4)
        corners, moved, keep = clip_boxes(corners, height=image.height, width=image.width)
        self.clipped += int(moved.sum())
        self.dropped += int((~keep).sum())
        kept = [item for item, good in zip(annotations, keep, strict=True) if good]
        return ImageRecord(
            id=image.id,
            name=image.name,
            path=image.path,
            height=image.height,
            width=image.width,
            boxes_xyxy=corners[keep].astype(np.float32),
            labels=np.array([item.label for item in kept], dtype=np.int64),
            box_ids=np.array([item.id for item in kept], dtype=np.int64),
            crowd=np.array([item.crowd for item in kept], dtype=bool),
            areas=np.array([_area(item) for item in kept], dtype=np.float32),
            masks=tuple(item.mask for item in kept) if self.masks else None,
        )

    def report(
        self,
        records: Sequence[ImageRecord],
        *,
        rejected: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> DatasetReport:
        """What there was to count in these records."""
        return DatasetReport(
            boxes_clipped=self.clipped,
            boxes_dropped=self.dropped,
            crowds=sum(int(record.crowd.sum()) for record in records),
            images_without_boxes=sum(1 for record in records if not len(record.labels)),
            rejected=tuple(rejected),
            notes=tuple(notes),
        )


def _area(item: Annotation) -> float:
    if item.area is not None:
        return item.area
    if item.mask is not None:
        return mask_area(item.mask)
    left, top, right, bottom = item.xyxy
    return (right - left) * (bottom - top)


def load_json(path: Path) -> Any:
    """Read a JSON file that may be hostile.

    Raises:
        DataError: Not there, too large, not JSON, nested too deeply, or with a key twice in an
            object.
        EnvironmentFailure: The disk does not give it.
    """
    if is_remote(path):
        return _load_remote_json(path)
    try:
        nbytes = path.stat().st_size
        if nbytes > MAX_JSON_BYTES:
            raise DataError(
                f"{path}: {nbytes} bytes, the limit is {MAX_JSON_BYTES}; split the file"
            )
        data = path.read_bytes()
    except OSError as error:
        if is_of_the_machine(error):
            raise environment_failure(error, path) from error
        raise DataError(f"{path}: {error.strerror}; check the path") from error
    return parse_json(data, where=str(path))


def _load_remote_json(path: Path) -> Any:
    location = locate(path.parent, bucket_itself=True)
    where = f"{location}/{path.name}"
    try:
        data = location.read(path.name, limit=MAX_JSON_BYTES)
    except ObjectMissingError as error:
        raise DataError(f"{where}: there is no such file; check the URL") from error
    return parse_json(data, where=where)


def parse_json(data: bytes, *, where: str) -> Any:
    """Read JSON that may be hostile.

    Raises:
        DataError: Not JSON, nested too deeply, or with a key twice in an object.
    """
    try:
        return _parse(data)
    except RecursionError as error:
        raise DataError(f"{where}: nested too deeply to be annotations") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: not JSON ({error}); fetch or write it again") from error
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data, object_pairs_hook=_unique_keys)
    except (json.JSONDecodeError, UnicodeDecodeError, _KeyTwice):
        raise
    except ValueError:
        # A number of thousands of digits, which Python does not turn into an integer. It is
        # infinite for every purpose of ours; the field that holds it says so, if it is read.
        return json.loads(data, object_pairs_hook=_unique_keys, parse_int=_bounded_integer)


def _bounded_integer(digits: str) -> int | float:
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


def clip_boxes(
    xyxy: Float64[np.ndarray, "n 4"], *, height: int, width: int
) -> tuple[Float64[np.ndarray, "n 4"], Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Cut boxes to their image.

    Returns:
        The cut boxes; which had to be cut by more than a pixel; which have any area left.
    """
    limits = np.array([width, height, width, height], dtype=np.float64)
    clipped = np.clip(xyxy, 0, limits)
    moved = np.abs(clipped - xyxy).max(axis=1, initial=0) > _CLIP_TOLERANCE
    keep = ((clipped[:, 2:] - clipped[:, :2]) > 0).all(axis=1)
    return clipped, moved & keep, keep


def settle(problems: Sequence[str], *, source: Path | str, on_bad: OnBad) -> tuple[str, ...]:
    """Raise the collected problems, or hand them on as rejected records.

    Raises:
        DataError: There are problems, and ``on_bad`` is ``"error"``.
    """
    if problems and on_bad is OnBad.error:
        raise DataError(
            f"{source}: {len(problems)} bad record{'s' if len(problems) > 1 else ''} "
            f"(mend them, or leave them out with --on-bad skip):\n{summarise(problems)}"
        )
    return tuple(problems)


def find_root(data_root: Path | None, *, variables: Sequence[str]) -> Path:
    """The data root: given, else from the first environment variable that is set, else
    ``datasets``."""
    if data_root is not None:
        return data_root
    for variable in variables:
        if value := os.environ.get(variable):
            return Path(value).expanduser()
    return Path("datasets")


def require_folder(path: Path, *, what: str) -> Path:
    """``path``, resolved.

    Raises:
        ConfigError: It is not a folder.
    """
    if not path.is_dir():
        raise ConfigError(f"no {what} at {path}; give --data-root, or set BOXDEPTH_DATA")
    return path.resolve()


class _KeyTwice(ValueError):
    """An object that holds a key twice: JSON permits it, and readers differ in which one counts."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _KeyTwice(f"key {twice!r} occurs twice in one object (id {value.get('id')!r})")
    return value
