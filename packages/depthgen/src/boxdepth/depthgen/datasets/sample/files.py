"""Pictures of a scene on disk: the image and its exact inverse depth."""

from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

INVERSE_DEPTH_UNIT = 1 / 65535
"""Inverse metres per step of a 16-bit depth PNG."""


def save_photo(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write an image as JPEG of quality 95 with whole chroma, as photographs come.

    JPEG, not PNG: a fifth of the bytes at a tenth of the time, and libjpeg-turbo's bytes do not
    depend on the processor, while zlib-ng's, which packs Pillow's PNGs, may.
    """
    Image.fromarray(image).save(path, format="JPEG", quality=95, subsampling=0)


def save_image(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write an image as PNG, where a layout asks for one."""
    Image.fromarray(image).save(path, compress_level=1)


def save_ids(path: Path, ids: np.ndarray) -> None:
    """Write label or instance ids as an 8-bit or 16-bit PNG, by the array's type."""
    Image.fromarray(ids).save(path, compress_level=1)


def save_inverse_depth(path: Path, inverse_depth: Float32[np.ndarray, "h w"]) -> None:
    """Write exact inverse depth as a 16-bit PNG in units of 1/65535 per metre; 0 is the sky."""
    steps = np.clip(inverse_depth / np.float32(INVERSE_DEPTH_UNIT), 0, 65535)
    Image.fromarray(np.round(steps).astype(np.uint16)).save(path, compress_level=1)


def load_inverse_depth(path: Path) -> Float32[np.ndarray, "h w"]:
    """Read what :func:`save_inverse_depth` wrote, in 1/m."""
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.float32) * np.float32(INVERSE_DEPTH_UNIT)
