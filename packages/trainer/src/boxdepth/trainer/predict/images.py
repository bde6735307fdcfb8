"""Images and boxes as a Python user has them -> what the network takes."""

from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from boxdepth.trainer.data.pictures import read_file
from boxdepth.trainer.errors import ImageTypeError

ImageLike: TypeAlias = "np.ndarray | Image.Image | str | PathLike[str]"
"""uint8 [h w 3] (RGB) or [h w] (grey); a PIL image of 8 bits a channel; the path of a file."""

_EIGHT_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"}


def rgb_of(image: object) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an image, as they lie in it: an EXIF orientation is ignored.

    Raises:
        ImageTypeError: another type, shape or number of bits.
        DataError: a file that is not a picture that can be used.
    """
    if isinstance(image, str | PathLike):
        return read_file(Path(image))
    if isinstance(image, Image.Image):
        if image.mode not in _EIGHT_BIT:
            raise ImageTypeError(
                f"a PIL image of mode {image.mode!r}: expected 8 bits a channel; scale it first, "
                "or give the path of the file"
            )
        return np.array(image.convert("RGB"), dtype=np.uint8)
    if isinstance(image, np.ndarray):
        return _rgb_of_array(image)
    raise ImageTypeError(
        f"an image of type {type(image).__name__}: expected a NumPy array, a PIL image or a path"
    )


def boxes_of(boxes: Any, size: tuple[int, int]) -> Float32[np.ndarray, "n 4"]:
    """Boxes as (x1, y1, x2, y2) in pixels, checked.

    Args:
        size: (height, width) of the image.

    Raises:
        ImageTypeError: not [n 4], not finite, or without area inside the image; names the first.
    """
    try:
        with np.errstate(over="ignore"):  # what fp32 can't hold is told below
            given: np.ndarray = np.asarray(boxes, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ImageTypeError("boxes: expected numbers, [n 4], as (x1, y1, x2, y2)") from error
    if given.size == 0:
        return np.zeros((0, 4), dtype=np.float32)
    if given.ndim != 2 or given.shape[1] != 4:
        raise ImageTypeError(
            f"boxes of shape {list(given.shape)}: expected [n 4], as (x1, y1, x2, y2) in pixels"
        )
    height, width = size
    inside = np.clip(given, 0, [width, height, width, height])
    usable = np.isfinite(given).all(axis=1) & (inside[:, 2:] > inside[:, :2]).all(axis=1)
    if not usable.all():
        first = int(np.flatnonzero(~usable)[0])
        raise ImageTypeError(
            f"box {first}, {given[first].tolist()}: expected finite (x1, y1, x2, y2) in pixels, "
            f"x1 < x2 and y1 < y2 inside the image of {width} x {height} (width x height)"
        )
    return given


def _rgb_of_array(image: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    colors = image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or not (colors or image.ndim == 2) or 0 in image.shape:
        raise ImageTypeError(
            f"an array of {image.dtype} {list(image.shape)}: expected uint8, [h w 3] in the order "
            "RGB or [h w] for grey"
        )
    return np.ascontiguousarray(image if colors else np.repeat(image[..., None], 3, axis=2))
