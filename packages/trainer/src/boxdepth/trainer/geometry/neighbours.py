"""The k neighbours of a cell: a square window with gaps, without its centre, row by row."""

import torch
from jaxtyping import Shaped
from torch import Tensor

Offset = tuple[int, int]
"""(rows down, columns to the right) from a cell to its neighbour."""


def neighbour_offsets(kernel_size: int, dilation: int) -> tuple[Offset, ...]:
    """Offsets in the order of every ``k`` axis: row-major, centre left out.

    The k-th and the (K - 1 - k)-th are opposite: together they name the same pairs.

    Raises:
        ValueError: an even or too small window.
    """
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(f"the window needs an odd size of at least 3, got {kernel_size}")
    reach = kernel_size // 2
    window = [dilation * step for step in range(-reach, reach + 1)]
    return tuple((dy, dx) for dy in window for dx in window if (dy, dx) != (0, 0))


def shifted(maps: Shaped[Tensor, "*n h w"], offset: Offset) -> Shaped[Tensor, "*n h w"]:
    """The neighbour's value at every cell; 0 where the neighbour lies outside."""
    out = torch.zeros_like(maps)
    here, there = overlap(maps.shape[-2], maps.shape[-1], offset)
    out[..., here[0], here[1]] = maps[..., there[0], there[1]]
    return out


def overlap(
    height: int, width: int, offset: Offset
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """(cells whose neighbour at ``offset`` is inside the map, those neighbours), as slices."""
    (here_y, there_y), (here_x, there_x) = (
        _overlap(size, step) for size, step in zip((height, width), offset, strict=True)
    )
    return (here_y, here_x), (there_y, there_x)


def _overlap(size: int, step: int) -> tuple[slice, slice]:
    length = max(size - abs(step), 0)
    here, there = max(-step, 0), max(step, 0)
    return slice(here, here + length), slice(there, there + length)
