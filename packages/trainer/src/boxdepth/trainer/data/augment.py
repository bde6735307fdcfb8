"""One random geometric change of an image, applied to all that is known about it.

What is drawn is a pure function of (seed, epoch, index), so that workers, restarts and other
ranks can't change it.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, UInt8
from PIL import Image
from torch import Tensor

from boxdepth.trainer.data.rules import Augmentation, Resize

AUGMENTATION_STREAM = 2
"""Keeps these random numbers apart from those of the sample order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Resize to ``new_size``, then perhaps a horizontal flip. Sizes are (height, width)."""

    old_size: tuple[int, int]
    new_size: tuple[int, int]
    flip: bool


def resize_shape(height: int, width: int, *, short_side: int, max_size: int) -> tuple[int, int]:
    """(height, width) with the shorter side at ``short_side`` and the longer at most ``max_size``.

    Sizes are rounded half up, as the recorded reference does (golden ``mapper/resize_table``).
    """
    scale = short_side / min(height, width)
    new_height, new_width = height * scale, width * scale
    if height < width:
        new_height = float(short_side)
    else:
        new_width = float(short_side)
    if max(new_height, new_width) > max_size:
        shrink = max_size / max(new_height, new_width)
        new_height, new_width = new_height * shrink, new_width * shrink
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def draw_geometry(
    size: tuple[int, int], augmentation: Augmentation, *, seed: int, epoch: int, index: int
) -> Geometry:
    """The change that sample ``index`` undergoes in ``epoch``; the same wherever it is asked."""
    random = np.random.default_rng([seed, AUGMENTATION_STREAM, epoch, index])
    short_sides = augmentation.short_sides
    short_side = short_sides[int(random.integers(len(short_sides)))]
    new_size = resize_shape(*size, short_side=short_side, max_size=augmentation.max_size)
    flip = bool(random.random() < augmentation.flip)
    return Geometry(old_size=size, new_size=new_size, flip=flip)


def transform_image(
    image: UInt8[np.ndarray, "h w 3"], geometry: Geometry
) -> UInt8[np.ndarray, "hn wn 3"]:
    """PIL's (antialiased) bilinear resize on uint8, then the flip."""
    height, width = geometry.new_size
    if image.shape[:2] != geometry.new_size:
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        image = np.asarray(resized)
    return image[:, ::-1] if geometry.flip else image


def transform_pixels(
    image: UInt8[np.ndarray, "h w 3"], geometry: Geometry, resize: Resize
) -> UInt8[Tensor, "3 hn wn"]:
    """`transform_image` with the channels in front, by Pillow or by torch's kernel for bytes.

    That kernel is antialiased too and starts no thread of its own.  In memory the channels stay
    last, as the decoder leaves them and the network wants them: the kernel takes half the time.
    """
    if resize == "pillow":
        return torch.from_numpy(np.array(transform_image(image, geometry).transpose(2, 0, 1)))
    # The axis of images comes first, then the turn: so torch sees that channels are last.
    pixels = torch.from_numpy(np.require(image, requirements="W"))[None].permute(0, 3, 1, 2)
    if image.shape[:2] != geometry.new_size:
        size = list(geometry.new_size)
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return pixels[0].flip(2) if geometry.flip else pixels[0]


def transform_inverse_depth(
    inverse_depth: Float32[np.ndarray, "hd wd"], geometry: Geometry
) -> Float32[np.ndarray, "hn wn"]:
    """The stored grid covers the whole image: stretched over the new size, then flipped.

    Bilinear in float, never rounded: steps of 1/255 would decide which pairs pass tau_d.
    """
    height, width = geometry.new_size
    resized = np.asarray(
        Image.fromarray(inverse_depth).resize((width, height), Image.Resampling.BILINEAR)
    )
    return resized[:, ::-1] if geometry.flip else resized


def transform_boxes(
    boxes_xyxy: Float32[np.ndarray, "n 4"], geometry: Geometry
) -> Float32[np.ndarray, "n 4"]:
    """Scaled, flipped, clipped to the new image."""
    (old_height, old_width), (height, width) = geometry.old_size, geometry.new_size
    scale = np.array([width / old_width, height / old_height] * 2)
    moved = boxes_xyxy.astype(np.float64) * scale
    if geometry.flip:
        moved[:, [0, 2]] = width - moved[:, [2, 0]]
    clipped: np.ndarray = np.clip(moved, 0, [width, height, width, height])
    return clipped.astype(np.float32)


def sample_mask(
    mask: Bool[np.ndarray, "h w"], geometry: Geometry, *, stride: int
) -> Bool[np.ndarray, "hm wm"]:
    """The transformed mask, read only at pixels (stride i + stride/2, stride j + stride/2)."""
    (old_height, old_width), (height, width) = geometry.old_size, geometry.new_size
    rows = (np.arange(stride // 2, height, stride) + 0.5) * old_height / height
    columns = (np.arange(stride // 2, width, stride) + 0.5) * old_width / width
    if geometry.flip:
        x = width - 1 - np.arange(stride // 2, width, stride)
        columns = (x + 0.5) * old_width / width
    return mask[rows.astype(np.int64)[:, None], columns.astype(np.int64)[None, :]]


def mask_center(
    mask: Bool[np.ndarray, "h w"], geometry: Geometry
) -> Float32[np.ndarray, " 2"] | None:
    """(x, y) centroid of the transformed mask in pixel-index coordinates; None if empty."""
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        return None
    (old_height, old_width), (height, width) = geometry.old_size, geometry.new_size
    x = (columns.mean() + 0.5) * width / old_width - 0.5
    y = (rows.mean() + 0.5) * height / old_height - 0.5
    return np.array([width - 1 - x if geometry.flip else x, y], np.float32)
