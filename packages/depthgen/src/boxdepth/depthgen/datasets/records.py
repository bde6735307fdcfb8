"""What every dataset becomes: records, and a count of the dirt that was met."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float64

from boxdepth.depthgen.store.errors import ConfigError, DataError, summarise
from boxdepth.depthgen.store.schema import Category, ImageRecord

MAX_JSON_BYTES: Final = 2 << 30
MAX_SIDE: Final = 65_535
_CLIP_TOLERANCE: Final = 1.0
"""Pixels that a box may leave its image by without being counted: the rounding of annotation
tools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """What was met while reading annotations.

    Attributes:
        boxes_clipped: Boxes that left their image by more than a pixel; they were cut to it.
        boxes_dropped: Boxes without any area inside their image.
        crowds: Boxes that hold a group; they are kept, with their flag.
        images_without_boxes: Images on which nothing is annotated; they are kept.
        rejected: Records that were left out (only with ``on_bad="skip"``), one text each.
    """

    boxes_clipped: int = 0
    boxes_dropped: int = 0
    crowds: int = 0
    images_without_boxes: int = 0
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Images and boxes of one split, in the order of their ids."""

    name: str
    split: str
    categories: tuple[Category, ...]
    records: tuple[ImageRecord, ...]
    report: DatasetReport = field(default_factory=DatasetReport)


def load_json(path: Path) -> Any:
    """Read a JSON file that may be hostile.

    Raises:
        DataError: Not there, too large, not JSON, nested too deeply, or with a key twice in an
            object.
    """
    try:
        nbytes = path.stat().st_size
        if nbytes > MAX_JSON_BYTES:
            raise DataError(
                f"{path}: {nbytes} bytes, the limit is {MAX_JSON_BYTES}; split the file"
            )
        return json.loads(path.read_bytes(), object_pairs_hook=_unique_keys)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; check the path") from error
    except RecursionError as error:
        raise DataError(f"{path}: nested too deeply to be annotations") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not JSON ({error}); fetch or write it again") from error
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def safe_path(root: Path, name: object) -> Path:
    """The file ``name`` inside ``root``, and never one outside of it.

    ``root`` must be a resolved path. The file need not exist.

    Raises:
        ValueError: ``name`` is no text, empty, absolute, a URL, or leads out of ``root``.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"file_name {name!r} is not a text")
    if "\0" in name or "://" in name or not name.isprintable():
        raise ValueError(f"file_name {name!a} is not a plain relative path")
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not _inside(root, root / path):
        raise ValueError(f"file_name {name!a} leads out of the image folder {root}")
    return root / path


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


def integer(record: Mapping[str, Any], key: str) -> int:
    """The integer at ``key``.

    Raises:
        ValueError: Missing, or something else.
    """
    value = record.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, an integer is expected")
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{key} is out of the range of 64 bits")
    return value


def finite(value: object, *, name: str) -> float:
    """``value`` as a finite number.

    Raises:
        ValueError: It is not one.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, a finite number is expected")
    return float(value)


def settle(problems: Sequence[str], *, source: Path, on_bad: str) -> tuple[str, ...]:
    """Raise the collected problems, or hand them on as rejected records.

    Raises:
        DataError: There are problems, and ``on_bad`` is ``"error"``.
    """
    if problems and on_bad == "error":
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
            return Path(value)
    return Path("datasets")


def require_folder(path: Path, *, what: str) -> Path:
    """``path``, resolved.

    Raises:
        ConfigError: It is not a folder.
    """
    if not path.is_dir():
        raise ConfigError(f"no {what} at {path}; give --data-root, or set BOXDEPTH_DATA")
    return path.resolve()


def _inside(root: Path, path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} occurs twice in one object (id {value.get('id')!r})")
    return value
