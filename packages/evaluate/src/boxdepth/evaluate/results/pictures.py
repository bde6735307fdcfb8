"""Images and depth maps of a data set, by file name, read safely."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, UnidentifiedImageError

from boxdepth.evaluate.results.problems import DataError, quoted
from boxdepth.evaluate.results.rle import MAX_PIXELS

_DEPTH_SUFFIXES = (".png", ".npy", ".tif", ".tiff")


def safe_path(root: Path, name: str) -> Path:
    """`root / name`, which must be a file inside `root`; raises `DataError` otherwise."""
    if not name or "\x00" in name or "://" in name:
        raise DataError(f"{root}: file_name {quoted(name)} names no file")
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise DataError(f"{root}: file_name {quoted(name)} leads out of the folder")
    if not path.is_file():
        raise DataError(
            f"{root}: file_name {quoted(name)} is not there. Is --images the right folder?"
        )
    return path


def read_image(root: Path, name: str, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """An image as RGB, in the orientation it is stored in, which annotations refer to.

    Raises:
        DataError: missing, outside `root`, no JPEG or PNG, or not of `size` (height, width).
    """
    path = safe_path(root, name)
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            if (image.height, image.width) != size:
                raise DataError(
                    f"{path}: {image.width} x {image.height} pixels, "
                    f"the annotations say {size[1]} x {size[0]}"
                )
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path}: too many pixels")
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, SyntaxError, OSError) as error:
        raise DataError(f"{path}: no readable JPEG or PNG ({error})") from None


class DepthMaps:
    """Depth (or inverse depth) of images, whatever its scale: only its edges are used.

    Args:
        source: a folder with one PNG, TIFF or `.npy` per image (same stem, subfolders allowed), or
            an HDF5 file with either a dataset `depth` [n, h, w] beside `image_id` [n], or one
            dataset per image named by its file stem or id.

    Raises:
        DataError: there is no such folder or file, or it holds neither.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        self._files: Mapping[str, Path] = {}
        self._datasets: Mapping[str, tuple[str, int | None]] = {}
        if source.is_dir():
            self._files = {
                path.stem: path
                for path in sorted(source.rglob("*"))
                if path.suffix.lower() in _DEPTH_SUFFIXES
            }
        elif source.is_file():
            self._datasets = _list_datasets(source)
        if not self._files and not self._datasets:
            raise DataError(f"{source}: no depth maps: expected a folder of PNG / NPY, or HDF5")

    def read(self, name: str, image_id: int) -> Float32[np.ndarray, "h w"] | None:
        """Depth of an image by file name or id; None if there is none. Any size, any scale."""
        stem = Path(name).stem
        if stem in self._files:
            return _read_depth_file(self._files[stem])
        key = next((k for k in (stem, str(image_id)) if k in self._datasets), None)
        if key is None:
            return None
        dataset, index = self._datasets[key]
        with h5py.File(self._source, "r") as file:
            values = file[dataset][...] if index is None else file[dataset][index]
        return _checked_depth(np.asarray(values), f"{self._source}:{dataset}")


def _list_datasets(path: Path) -> dict[str, tuple[str, int | None]]:
    found: dict[str, tuple[str, int | None]] = {}
    try:
        with h5py.File(path, "r") as file:
            ids = next((file[k] for k in ("image_id", "image_ids") if k in file), None)
            if ids is not None and "depth" in file:
                rows = np.asarray(ids[...]).tolist()
                return {str(image_id): ("depth", row) for row, image_id in enumerate(rows)}

            def visit(name: str, item: object) -> None:
                if isinstance(item, h5py.Dataset) and item.ndim == 2:
                    found[Path(name).stem] = (name, None)

            file.visititems(visit)
    except OSError as error:
        raise DataError(f"{path}: no readable HDF5 file ({error})") from None
    return found


def _read_depth_file(path: Path) -> Float32[np.ndarray, "h w"]:
    try:
        if path.suffix.lower() == ".npy":
            return _checked_depth(np.load(path, allow_pickle=False), str(path))
        with Image.open(path, formats=("PNG", "TIFF")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path}: too many pixels")
            return _checked_depth(np.asarray(image), str(path))
    except (UnidentifiedImageError, SyntaxError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: no readable depth map ({error})") from None


def _checked_depth(values: np.ndarray, name: str) -> Float32[np.ndarray, "h w"]:
    if values.ndim != 2 or values.dtype.kind not in "uif" or not values.size:
        raise DataError(f"{name}: has shape {values.shape}, expected one number per pixel")
    depth = values.astype(np.float32)
    if not np.isfinite(depth).all():
        raise DataError(f"{name}: holds numbers that are not finite")
    return depth
