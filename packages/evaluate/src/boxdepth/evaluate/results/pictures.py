"""Images and depth maps of a data set, by file name, read safely."""

import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from boxdepth.evaluate.results.arrays import Float32, UInt8
from boxdepth.evaluate.results.problems import DataError, quoted
from boxdepth.evaluate.results.rle import MAX_PIXELS

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
_ORIENTATION_TAG = 0x0112
_DEPTH_SUFFIXES = (".png", ".npy", ".tif", ".tiff")


def safe_path(root: Path, name: str) -> Path:
    """`root / name`, which must be a file below `root`; raises `DataError` otherwise.

    Links are followed: a folder of links into a cache is a folder of images. The composed and the
    decomposed form of a name (NFC, NFD) are one name, as file systems disagree about them.
    """
    shown = f"{root}: file_name {quoted(name)}"
    if not name or any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise DataError(f"{shown} names no file")
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError(f"{shown} leads out of the folder")
    forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    try:
        found = next((root / form for form in forms if (root / form).is_file()), None)
    except OSError as error:  # a name longer than the file system takes, for example
        raise DataError(f"{shown}: {error.strerror}") from None
    if found is None:
        what = "is an address, no file" if "://" in name else "is not there"
        raise DataError(f"{shown} {what}. Is --images the right folder?")
    return found


def read_image(root: Path, name: str, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """An image as RGB, in the orientation it is stored in, which annotations refer to.

    Pixels of more than 8 bits are stretched from their darkest to their lightest value.

    Raises:
        DataError: missing, outside `root`, no picture, too large, or not of `size` (height, width).
    """
    path = safe_path(root, name)
    with _opened(path, _FORMATS) as image:
        if (image.height, image.width) != size:
            raise DataError(f"{path}: {_wrong_size(image, size)}")
        if image.mode in _DEEP_MODES:
            return _stretched(np.asarray(image), path)
        return np.asarray(image.convert("RGB"))


def is_turned(root: Path, name: str) -> bool:
    """Whether viewers show the image in another orientation than it is stored in."""
    with _opened(safe_path(root, name), _FORMATS) as image:
        return _orientation(image) != 1


@contextmanager
def _opened(path: Path, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """An image whose header was checked; whatever Pillow raises becomes a `DataError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of large or odd files: checked here
            with Image.open(path, formats=formats) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(f"{path}: {_too_large(image.width, image.height)}")
                yield image
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{path}: {_too_large()}") from None
    except UnidentifiedImageError:
        kinds = ", ".join(formats)
        raise DataError(f"{path}: no readable image, expected one of {kinds}") from None
    except Exception as error:  # Pillow: OSError, SyntaxError, ValueError, EOFError, struct.error
        raise DataError(f"{path}: no readable image ({error}); fetch it again") from None


def _too_large(width: int | None = None, height: int | None = None) -> str:
    seen = f"{width} x {height} pixels" if width and height else "its header promises far more"
    limit = min(MAX_PIXELS, 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS))
    return f"{seen}, the limit is {limit:,} pixels: scale it down together with its annotations"


def _wrong_size(image: Image.Image, size: tuple[int, int]) -> str:
    height, width = size
    text = f"{image.width} x {image.height} pixels, the annotations say {width} x {height}"
    if _orientation(image) in (5, 6, 7, 8) and (image.width, image.height) == size:
        return (
            f"{text}: they seem to refer to the picture turned by its EXIF orientation "
            f"{_orientation(image)}; turn the pixels and remove the tag (exiftran -ai FILE)"
        )
    return f"{text}. Is --images the right folder?"


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # getexif() would decode the whole picture to look behind it
    value = image.getexif().get(_ORIENTATION_TAG, 1)
    return value if value in range(1, 9) else 1


def _stretched(values: np.ndarray, path: Path) -> UInt8[np.ndarray, "h w 3"]:
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DataError(f"{path}: holds numbers that are not finite")
    low, high = float(numbers.min()), float(numbers.max())
    grey = np.rint((numbers - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


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
        return _read_dataset(self._source, dataset, index)


def _list_datasets(path: Path) -> dict[str, tuple[str, int | None]]:
    import h5py  # with its library a while to load, and AP alone reads none

    found: dict[str, tuple[str, int | None]] = {}
    try:
        with h5py.File(path, "r") as file:
            ids = next((file[k] for k in ("image_id", "image_ids") if k in file), None)
            depth = file.get("depth")
            if isinstance(ids, h5py.Dataset) and isinstance(depth, h5py.Dataset):
                if ids.ndim != 1 or depth.ndim != 3 or len(ids) != len(depth):
                    raise DataError(
                        f"{path}: depth has shape {depth.shape}, image_id {ids.shape}: expected "
                        "[n, height, width] and [n]"
                    )
                rows = np.asarray(ids[...]).tolist()
                return {str(image_id): ("depth", row) for row, image_id in enumerate(rows)}

            def visit(name: str, item: object) -> None:
                if isinstance(item, h5py.Dataset) and item.ndim == 2:
                    found[Path(name).stem] = (name, None)

            file.visititems(visit)
    except OSError as error:
        raise DataError(f"{path}: no readable HDF5 file ({error})") from None
    return found


def _read_dataset(path: Path, name: str, index: int | None) -> Float32[np.ndarray, "h w"]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            dataset = file[name]
            if np.prod(dataset.shape[-2:], dtype=np.float64) > MAX_PIXELS:
                raise DataError(f"{path}:{name}: has shape {dataset.shape}, too many pixels")
            values = dataset[...] if index is None else dataset[index]
    except OSError as error:
        raise DataError(f"{path}:{name}: cannot be read ({error})") from None
    return _checked_depth(np.asarray(values), f"{path}:{name}")


def _read_depth_file(path: Path) -> Float32[np.ndarray, "h w"]:
    if path.suffix.lower() == ".npy":
        try:  # mapped: a header may promise more than the file, or the memory, holds
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise DataError(f"{path}: no readable depth map ({error})") from None
        return _checked_depth(values, str(path))
    with _opened(path, ("PNG", "TIFF")) as image:
        return _checked_depth(np.asarray(image), str(path))


def _checked_depth(values: object, name: str) -> Float32[np.ndarray, "h w"]:
    if not isinstance(values, np.ndarray):
        raise DataError(f"{name}: holds several arrays, expected one depth map")
    if values.ndim != 2 or values.dtype.kind not in "uif" or not values.size:
        raise DataError(f"{name}: has shape {values.shape}, expected one number per pixel")
    if values.size > MAX_PIXELS:
        raise DataError(f"{name}: has shape {values.shape}, too many pixels")
    with np.errstate(over="ignore"):
        depth = values.astype(np.float32)
    if not np.isfinite(depth).all():
        raise DataError(f"{name}: holds numbers that are not finite")
    return depth
