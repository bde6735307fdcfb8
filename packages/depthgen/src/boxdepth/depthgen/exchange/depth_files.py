"""Depth made elsewhere: a folder of maps by file stem, or one HDF5 file."""

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final, final

import numpy as np
from PIL import Image

from boxdepth.depthgen.exchange.extras import need
from boxdepth.depthgen.store.errors import (
    ConfigError,
    DataError,
    environment_failure,
    is_of_the_machine,
)
from boxdepth.depthgen.store.images import MAX_PIXELS
from boxdepth.depthgen.store.schema import ImageRecord

SUFFIXES: Final = (".png", ".npy", ".tif", ".tiff", ".exr")


class DepthSource(ABC):
    """Depth maps by image."""

    @abstractmethod
    def read(self, record: ImageRecord) -> np.ndarray | None:
        """The map of an image [h w], of any number type; ``None`` if there is none.

        Raises:
            DataError: It cannot be used.
            EnvironmentFailure: The disk fails.
        """

    @abstractmethod
    def digest(self) -> str:
        """A hash that changes with the files, by their names and sizes."""


def open_source(path: Path, *, key: str | None) -> DepthSource:
    """A folder, or an HDF5 file.

    Args:
        key: The data set (or the group of data sets) inside of the HDF5 file.

    Raises:
        ConfigError: Neither, or it holds no depth.
    """
    if path.is_dir():
        return DepthFolder(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file or folder")
    h5py = need("h5py", extra="hdf5", purpose="reading HDF5")
    if not h5py.is_hdf5(path):
        raise ConfigError(f"{path}: a folder of depth maps or an HDF5 file is expected")
    return DepthHdf5(path, h5py.File(path, "r"), key=key)


@final
class DepthFolder(DepthSource):
    """PNG, NPY, TIFF or EXR files, named like the images, in the same folders or all in one."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, list[Path]] = defaultdict(list)
        self._sizes: list[tuple[str, int]] = []
        for file in sorted(root.rglob("*")):
            if file.suffix.lower() in SUFFIXES and not file.name.startswith("."):
                inside = PurePosixPath(file.relative_to(root).as_posix())
                self._sizes.append((str(inside), file.stat().st_size))
                for name in dict.fromkeys((str(inside.with_suffix("")), inside.stem)):
                    self._files[name].append(file)
        if not self._sizes:
            raise ConfigError(f"{root}: no depth map in it ({', '.join(SUFFIXES)})")

    def read(self, record: ImageRecord) -> np.ndarray | None:
        name = PurePosixPath(record.name)
        for candidate in (str(name.with_suffix("")), name.stem):
            files = self._files.get(candidate, [])
            if len(files) > 1:
                raise DataError(
                    f"{record.name!a}: {len(files)} depth maps have its name, such as {files[0]} "
                    f"and {files[1]}; keep one"
                )
            if files:
                return read_depth_file(files[0])
        return None

    def digest(self) -> str:
        return hashlib.sha256(repr(self._sizes).encode("utf-8", "surrogateescape")).hexdigest()


@final
class DepthHdf5(DepthSource):
    """One data set an image, named by its id or its file stem; or one array with its ids."""

    def __init__(self, path: Path, file: Any, *, key: str | None) -> None:
        self._path, self._rows = path, {}
        place = file if key is None else file.get(key)
        if place is None:
            raise ConfigError(f"{path}: no {key!a} in it; it has {', '.join(map(ascii, file))}")
        self._array = place if hasattr(place, "dtype") else _only(place, dimensions=3)
        self._group = None if self._array is not None else place
        if self._array is not None:
            ids = self._ids(self._array.parent, len(self._array))
            self._rows = {int(number): row for row, number in enumerate(ids)}

    def read(self, record: ImageRecord) -> np.ndarray | None:
        try:
            if self._array is not None:
                row = self._rows.get(record.id)
                return None if row is None else np.asarray(self._array[row])
            stem = PurePosixPath(record.name).with_suffix("")
            for name in (str(record.id), f"{record.id:012d}", record.name, str(stem), stem.name):
                item = self._group.get(name)  # type: ignore[union-attr]
                if item is not None and hasattr(item, "dtype"):
                    return np.asarray(item[...])
        except OSError as error:
            raise DataError(f"{self._path}: {record.name!a}: {error}") from error
        return None

    def digest(self) -> str:
        return hashlib.sha256(str(self._path.stat().st_size).encode()).hexdigest()

    def _ids(self, group: Any, count: int) -> np.ndarray:
        fitting = [
            item[...]
            for item in group.values()
            if hasattr(item, "dtype") and item.shape == (count,) and item.dtype.kind in "iu"
        ]
        if len(fitting) != 1:
            raise ConfigError(
                f"{self._path}: beside the array of {count} depth maps one data set of {count} "
                f"integer image ids is expected, found {len(fitting)}"
            )
        return np.asarray(fitting[0])


def read_depth_file(path: Path) -> np.ndarray:
    """One depth map [h w] of any number type.

    Raises:
        DataError: Not one channel of numbers, or damaged.
        EnvironmentFailure: The disk fails.
        MissingExtraError: An EXR file, and the extra ``exr`` is not installed.
    """
    try:
        suffix = path.suffix.lower()
        if suffix == ".npy":
            values = np.asarray(np.load(path, allow_pickle=False))
        elif suffix == ".exr":
            values = _read_exr(path)
        else:
            values = _read_picture(path)
    except OSError as error:
        if is_of_the_machine(error):
            raise environment_failure(error, path) from error
        raise DataError(f"{path}: cannot be read ({error})") from error
    except DataError:
        raise
    except (ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    values = np.squeeze(values)
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: shape {values.shape} of {values.dtype}; one channel of numbers is expected "
            "(a coloured picture of depth holds no depth)"
        )
    return values


def _read_picture(path: Path) -> np.ndarray:
    with Image.open(path, formats=("PNG", "TIFF")) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"{path}: {image.height}x{image.width} is beyond {MAX_PIXELS} pixels")
        if image.mode not in ("L", "I", "F") and not image.mode.startswith("I;16"):
            raise DataError(
                f"{path}: pixel mode {image.mode!a}; one channel of numbers is expected (a "
                "coloured picture of depth holds no depth)"
            )
        return np.array(image)


def _read_exr(path: Path) -> np.ndarray:
    exr = need("OpenEXR", extra="exr", purpose="reading EXR")
    try:
        channels = exr.File(str(path)).channels()
    except RuntimeError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    for name in ("Z", "Y", "depth", "R"):
        if name in channels:
            return np.asarray(channels[name].pixels)
    first = next(iter(channels.values()))
    pixels = np.asarray(first.pixels)
    return pixels[..., 0] if pixels.ndim == 3 else pixels


def _only(group: Any, *, dimensions: int) -> Any:
    """The one data set of that many dimensions; ``None`` if there is none."""
    with suppress(StopIteration):
        return next(
            item
            for item in group.values()
            if hasattr(item, "dtype") and item.ndim == dimensions and item.dtype.kind in "iuf"
        )
    return None
