"""From the student's frame to the teacher's and back: sizes, resized images, resampled masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
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
    pixels: UInt8[Tensor, "b 3 h w"],
    frames: Sequence[tuple[int, int]],
    *,
    images: Sequence[int],
    targets: Sequence[tuple[int, int]],
) -> UInt8[Tensor, "n 3 ht wt"]:
    """Some of the student's own images at the teacher's sizes, padded with 0.

    Bilinear without antialiasing, as the authors do (method.md 6.2): no second decoding, no new
    detail.  Rounding to uint8 again moves a pixel by half a grey level at most.

    Args:
        frames: (height, width) of the student's images.
        images: which of them.
        targets: the teacher's size of each of those.
    """
    padded = pixels.new_zeros((len(images), 3, *padded_size(targets)))
    for image, target, out in zip(images, targets, padded, strict=True):
        height, width = frames[image]
        part = pixels[image, :, :height, :width]
        if (height, width) != target:
            part = F.interpolate(
                part[None].float(), size=target, mode="bilinear", align_corners=False
            )[0]
            part = part.round().to(torch.uint8)
        out[:, : target[0], : target[1]] = part
    return padded


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
            _Axis(
                teacher_cells=probabilities.shape[axis + 1],
                teacher=teacher_frame[axis],
                student=student_frame[axis],
                cells=grid[axis],
            ),
            probabilities.device,
            torch.is_inference_mode_enabled(),
        ).to(probabilities.dtype)
        for axis in (0, 1)
    )
    return rows @ (probabilities @ columns.T)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """Lengths of rows or columns: teacher and student in pixels, and their grids."""

    teacher_cells: int
    teacher: int
    student: int
    cells: int


@lru_cache(maxsize=64)
def _resampling(
    axis: _Axis, device: torch.device, inference: bool
) -> Float[Tensor, "cells teacher_cells"]:
    """Weights of the teacher's stride-4 cells in each student cell, along one axis.

    Remembered: images of one size come again and again.  Nobody may write into it.

    Args:
        inference: tensors of inference mode are a kind of their own.
    """
    teacher_cells, cells = axis.teacher_cells, axis.cells
    teacher, student = axis.teacher, axis.student
    first, step = MASK_STRIDE // 2, MASK_STRIDE
    student_pixel = torch.arange(cells, dtype=torch.float64, device=device) * step + first
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
    cell = torch.arange(cells, dtype=pixel.dtype, device=pixel.device)
    return (1 - (position[:, None] - cell).abs()).clamp(min=0)
