"""Depth straight to the mask grid: resize, flip and the means over 4x4 pixels in one.

Pillow's bilinear resize and the means are both linear, along rows and columns apart, so that their
product is one sparse band of weights an axis and the map at full size is never made.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from boxdepth.trainer.data.augment import Geometry
from boxdepth.trainer.structures import DEPTH_STEP, MASK_STRIDE

if TYPE_CHECKING:
    from scipy.sparse import csr_array

BANDS_KEPT = 4096
"""All that one training meets: COCO at short sides of 640 to 800 pixels comes out in about 700 long
sides, flipped or not, in three forms.  Making a band takes longer than using it; it has 5 to 16 kB.
"""


def cell_means(
    inverse_depth: Float32[np.ndarray, "hd wd"], geometry: Geometry
) -> Float32[np.ndarray, "hm wm"]:
    """Means over 4x4 pixels of `transform_inverse_depth`, padded with 0 to whole cells.

    The same but for the order in which numbers are added.  NaN where one of the inputs is NaN.
    """
    reads = tuple(range(MASK_STRIDE))
    rows = _band(inverse_depth.shape[0], geometry.new_size[0], reads, False)
    columns = _band(inverse_depth.shape[1], geometry.new_size[1], reads, geometry.flip)
    return _product(columns, _product(rows, inverse_depth).T).T


def cell_steps(
    inverse_depth: Float32[np.ndarray, "hd wd"], geometry: Geometry
) -> Float32[np.ndarray, "2 hm wm"]:
    """`transform_inverse_depth` at (4i + 2, 4j + 2) and two pixels to the right of it.

    0 beyond the image, like `cell_means`.
    """
    middle = MASK_STRIDE // 2
    rows = _band(inverse_depth.shape[0], geometry.new_size[0], (middle,), False)
    columns = np.ascontiguousarray(_product(rows, inverse_depth).T)
    read = [
        _band(inverse_depth.shape[1], geometry.new_size[1], (pixel,), geometry.flip)
        for pixel in (middle, middle + DEPTH_STEP)
    ]
    return np.stack([_product(band, columns) for band in read]).transpose(0, 2, 1)


def _product(band: "csr_array", values: Float32[np.ndarray, "i c"]) -> Float32[np.ndarray, "out c"]:
    """The product of a band and a matrix, row by row, in one pass."""
    made: np.ndarray = band @ np.ascontiguousarray(values)
    return made


@lru_cache(maxsize=BANDS_KEPT)
def _band(stored: int, size: int, reads: tuple[int, ...], flip: bool) -> "csr_array":
    """From ``stored`` values to the mean of some pixels of each cell, along one axis.

    A matrix of few neighbouring entries a row.

    Args:
        size: pixels of the resized image; those beyond count as 0.
        reads: which pixels, from each cell's first one on.
    """
    from scipy.sparse import csr_array  # here: who only looks at settings needs none of it

    cells = np.arange(-(-size // MASK_STRIDE))
    pixels = MASK_STRIDE * cells[:, None] + np.array(reads)
    inside = pixels < size
    pixels = np.minimum(pixels, size - 1)
    first, end, weights = _resize_weights(stored, size, size - 1 - pixels if flip else pixels)
    index = first[..., None] + np.arange(weights.shape[-1])
    low, high = first.min(axis=1), end.max(axis=1)
    taps = low[:, None] + np.arange(int((high - low).max()))
    same = index[:, :, None, :] == taps[:, None, :, None]
    mean = ((weights[:, :, None, :] * same).sum(axis=3) * inside[..., None]).mean(axis=1)
    # A row shorter than the longest repeats its last input, with weight 0: 0 x NaN must stay there.
    index = np.minimum(taps, high[:, None] - 1)
    ends = np.arange(0, index.size + 1, index.shape[1], dtype=np.int32)
    entries = (mean.astype(np.float32).ravel(), index.astype(np.int32).ravel(), ends)
    return csr_array(entries, shape=(len(index), stored))


def _resize_weights(
    stored: int, size: int, pixels: Int64[np.ndarray, "out m"]
) -> tuple[Int64[np.ndarray, "out m"], Int64[np.ndarray, "out m"], Float[np.ndarray, "out m k"]]:
    """(first input, last input plus 1, weights) of Pillow's bilinear filter at some outputs.

    A triangle around each output's centre, as wide as two inputs or, where it shrinks, two outputs.
    Weights from an output's first input on; 0 behind its last.
    """
    if stored == size:  # Pillow leaves it as it is: no neighbour has a part in it
        return pixels, pixels + 1, np.ones((*pixels.shape, 1))
    scale = stored / size
    reach = max(scale, 1.0)
    centers = (pixels + 0.5) * scale
    first = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centers + reach + 0.5).astype(np.int64), stored)
    taps = first[..., None] + np.arange(int((end - first).max()))
    used: Bool[np.ndarray, "out m k"] = taps < end[..., None]
    weights = np.maximum(1 - np.abs(taps + 0.5 - centers[..., None]) / reach, 0.0) * used
    return first, end, weights / weights.sum(axis=2, keepdims=True)
