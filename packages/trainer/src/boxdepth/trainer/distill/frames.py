"""From the student's frame to the teacher's and back: sizes, resized images, resampled masks."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from boxdepth.trainer.geometry.grid import padded_size
from boxdepth.trainer.structures import MASK_STRIDE


def teacher_size(
    size: tuple[int, int], *, short_side: int | None, max_size: int
) -> tuple[int, int]:
    """(height, width) at which the teacher sees a student's image of that size.

    The shorter side becomes ``short_side``, the longer at most ``max_size``; both are truncated,
    in exact integer arithmetic.  None: the student's size.
    """
    if short_side is None:
        return size
    short, long = min(size), max(size)
    if long * short_side > max_size * short:
        new_short, new_long = max(short * max_size // long, 1), max_size
    else:
        new_short, new_long = short_side, long * short_side // short
    return (new_short, new_long) if size[0] <= size[1] else (new_long, new_short)


def resized_images(
    images: UInt8[Tensor, "b 3 h w"],
    sizes: Int64[Tensor, "b 2"],
    *,
    short_side: int | None,
    max_size: int,
) -> tuple[UInt8[Tensor, "b 3 ht wt"], Int64[Tensor, "b 2"]]:
    """The student's own images at the teacher's size, padded with 0, and their sizes.

    Bilinear without antialiasing, as the authors do (method.md 6.2): no second decoding, no new
    detail.  Rounding to uint8 again moves a pixel by half a grey level at most.
    """
    if short_side is None:
        return images, sizes
    frames = [(int(h), int(w)) for h, w in sizes.tolist()]
    targets = [teacher_size(f, short_side=short_side, max_size=max_size) for f in frames]
    height, width = padded_size(targets)
    padded = images.new_zeros((len(images), 3, height, width))
    for image, frame, target, out in zip(images, frames, targets, padded, strict=True):
        pixels = image[None, :, : frame[0], : frame[1]].float()
        if frame != target:
            pixels = F.interpolate(pixels, size=target, mode="bilinear", align_corners=False)
        out[:, : target[0], : target[1]] = pixels[0].round().to(torch.uint8)
    return padded, torch.tensor(targets, device=sizes.device)


def masks_on_student_grid(
    probabilities: Float[Tensor, "p ht4 wt4"],
    *,
    teacher_frame: tuple[int, int],
    student_frame: tuple[int, int],
    grid: tuple[int, int],
) -> Float[Tensor, "p hm wm"]:
    """The teacher's mask probabilities, read at the student's pixels (4i + 2, 4j + 2).

    The same as upsampling them by 4 (aligned), cropping to the teacher's unpadded frame, resizing
    to the student's (bilinear) and sampling there.  Both steps are linear and act on rows and
    columns apart, so two small matrices do it without ever building a mask at full resolution.
    0 outside the student's frame.
    """
    rows, columns = (
        _resampling(
            probabilities.shape[axis + 1],
            teacher=teacher_frame[axis],
            student=student_frame[axis],
            cells=grid[axis],
        ).to(probabilities)
        for axis in (0, 1)
    )
    return rows @ (probabilities @ columns.T)


def _resampling(
    teacher_cells: int, *, teacher: int, student: int, cells: int
) -> Float[Tensor, "cells teacher_cells"]:
    """Weights of the teacher's stride-4 cells in each student cell, along one axis."""
    student_pixel = torch.arange(cells, dtype=torch.float64) * MASK_STRIDE + MASK_STRIDE // 2
    pixel = ((student_pixel + 0.5) * teacher / student - 0.5).clamp(0, teacher - 1)
    before = pixel.floor()
    behind = (before + 1).clamp(max=teacher - 1)
    share = (pixel - before)[:, None]
    weights = (1 - share) * _aligned(before, teacher_cells) + share * _aligned(
        behind, teacher_cells
    )
    return weights * (student_pixel < student)[:, None]


def _aligned(pixel: Float[Tensor, " o"], cells: int) -> Float[Tensor, "o cells"]:
    """Weights of the stride-4 cells in pixels of their aligned upsampling (condinst.md 3)."""
    position = ((pixel - MASK_STRIDE // 2) / MASK_STRIDE).clamp(0, cells - 1)
    cell = torch.arange(cells, dtype=pixel.dtype)
    return (1 - (position[:, None] - cell).abs()).clamp(min=0)
