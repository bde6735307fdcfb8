"""Axis-aligned boxes, xyxy in pixels, and what they cover on a coarser grid."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor


def box_areas(boxes_xyxy: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Width times height, in square pixels."""
    return (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])


def raster_centers(boxes_xyxy: Float32[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 2"]:
    """(x, y) centroid of the pixels int(x1)..int(x2 + 1) - 1, int(y1)..int(y2 + 1) - 1.

    Up to half a pixel off the box's middle, enough to change FCOS labels (condinst.md 2.1).  The
    pixels are counted as if the input never ended, half a pixel's difference for a box that
    touches the border of an unpadded side.
    """
    first, end = np.trunc(boxes_xyxy[:, :2]), np.trunc(boxes_xyxy[:, 2:] + np.float32(1))
    centers: Float32[np.ndarray, "n 2"] = (first + end - np.float32(1)) / np.float32(2)
    return centers


def ltrb_to_boxes(
    location_xy: Float[Tensor, "n 2"], ltrb: Float[Tensor, "n 4"]
) -> Float[Tensor, "n 4"]:
    """Boxes whose sides lie ``ltrb`` away from the locations; the inverse of `boxes_to_ltrb`."""
    return torch.cat([location_xy - ltrb[:, :2], location_xy + ltrb[:, 2:]], dim=1)


def boxes_to_ltrb(
    location_xy: Float[Tensor, "n 2"], boxes_xyxy: Float[Tensor, "n 4"]
) -> Float[Tensor, "n 4"]:
    """Distances to the left, top, right and bottom side; negative beyond a side."""
    return torch.cat([location_xy - boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - location_xy], dim=1)


def rescale_boxes(
    boxes_xyxy: Float[Tensor, "n 4"], *, size: tuple[int, int], new_size: tuple[int, int]
) -> Float[Tensor, "n 4"]:
    """The boxes in an image resized from ``size`` to ``new_size``, (height, width) each."""
    scale_y, scale_x = new_size[0] / size[0], new_size[1] / size[1]
    x, y = boxes_xyxy[:, 0::2] * scale_x, boxes_xyxy[:, 1::2] * scale_y
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)


def clip_boxes(boxes_xyxy: Float[Tensor, "n 4"], size: tuple[int, int]) -> Float[Tensor, "n 4"]:
    """The part of each box that lies inside an image of (height, width)."""
    height, width = size
    x = boxes_xyxy[:, 0::2].clamp(0, width)
    y = boxes_xyxy[:, 1::2].clamp(0, height)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)


def box_bitmaps(
    boxes_xyxy: Float[Tensor, "n 4"], *, grid: tuple[int, int], stride: int
) -> Bool[Tensor, "n hm wm"]:
    """Box masks read at pixels (stride i + stride // 2, stride j + stride // 2), in closed form.

    A box fills the rows int(y1)..int(y2 + 1) - 1 and the columns likewise, so that one touching
    the image's border marks a row or column of the padding (condinst.md 4.3).
    """
    rows, columns = (
        torch.arange(cells, device=boxes_xyxy.device) * stride + stride // 2 for cells in grid
    )
    first = boxes_xyxy[:, :2].trunc()
    end = (boxes_xyxy[:, 2:] + 1).trunc()
    in_columns = (columns >= first[:, :1]) & (columns < end[:, :1])
    in_rows = (rows >= first[:, 1:]) & (rows < end[:, 1:])
    return in_rows[:, :, None] & in_columns[:, None, :]
