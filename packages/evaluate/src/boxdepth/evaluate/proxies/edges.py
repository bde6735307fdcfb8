"""How well the outline of a mask follows the edges of an image or a depth map."""

from typing import cast

import numpy as np
from PIL import Image
from scipy import ndimage

from boxdepth.evaluate.results.arrays import Bool, Float32, UInt8

# Pixels around the box that take part in the ranking, as a share of the box's larger side.
_MARGIN = 0.25
_SMOOTHING = 1.0


def image_edges(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """Strength of colour edges: the largest Sobel gradient of the three smoothed channels."""
    channels = image.astype(np.float32)
    strength = [_gradient(channels[..., channel]) for channel in range(3)]
    return cast("np.ndarray", np.max(strength, axis=0))


def depth_edges(
    depth: Float32[np.ndarray, "hd wd"], size: tuple[int, int]
) -> Float32[np.ndarray, "h w"]:
    """Strength of depth edges at the image's size (height, width)."""
    height, width = size
    if depth.shape != size:
        resized = Image.fromarray(depth).resize((width, height), Image.Resampling.BILINEAR)
        depth = np.asarray(resized)
    return _gradient(depth)


def edge_agreement(
    mask: Bool[np.ndarray, "h w"], edges: Float32[np.ndarray, "h w"]
) -> float | None:
    """Mean rank, in [0, 1], of edge strength along the outline among the pixels round about.

    0.5 is what an outline gets that has nothing to do with the edges, 1 the strongest edges there
    are. Outline pixels at the border of the image don't count, and each pixel stands for the
    strongest edge within one pixel, so that an outline may be off by one.

    Returns:
        None for a mask without an outline inside the image, or where there are no edges at all.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    margin = max(4, round(_MARGIN * max(rows[-1] - rows[0], columns[-1] - columns[0])))
    window = (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )
    outline = (mask & ~ndimage.binary_erosion(mask, border_value=1))[window]
    near = ndimage.maximum_filter(edges[window], size=3)
    if not outline.any() or near.max() <= near.min():
        return None
    order = np.sort(near, axis=None)
    low = np.searchsorted(order, near[outline], side="left")
    high = np.searchsorted(order, near[outline], side="right")
    return float(((low + high) / 2).mean() / near.size)


def _gradient(values: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    smooth = ndimage.gaussian_filter(values, _SMOOTHING)
    return np.asarray(np.hypot(ndimage.sobel(smooth, axis=0), ndimage.sobel(smooth, axis=1)))
