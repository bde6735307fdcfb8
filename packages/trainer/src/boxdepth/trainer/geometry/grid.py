"""Where the cells of a feature map lie in the input image, and how large the input must be."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

SIZE_DIVISOR = 32
"""Padded sides are multiples of the backbone's coarsest stride."""


def cell_locations(
    shape: tuple[int, int], *, stride: int, device: torch.device | None = None
) -> Float[Tensor, "l 2"]:
    """(x, y) in input pixels of one level's cells, row by row: stride * index + stride // 2."""
    y, x = (torch.arange(cells, device=device) * stride + stride // 2 for cells in shape)
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid_x, grid_y], dim=-1).flatten(0, 1).float()


def pyramid_locations(
    shapes: Sequence[tuple[int, int]],
    *,
    strides: Sequence[int],
    device: torch.device | None = None,
) -> tuple[Float[Tensor, "l 2"], Int64[Tensor, " l"]]:
    """Locations of all levels, one after the other, and the level of each."""
    locations = [
        cell_locations(shape, stride=stride, device=device)
        for shape, stride in zip(shapes, strides, strict=True)
    ]
    level = torch.cat(
        [
            torch.full((len(cells),), number, dtype=torch.int64, device=device)
            for number, cells in enumerate(locations)
        ]
    )
    return torch.cat(locations), level


def padded_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """(height, width) that holds images of all these sizes, in multiples of `SIZE_DIVISOR`."""
    height, width = (
        -(-max(side) // SIZE_DIVISOR) * SIZE_DIVISOR for side in zip(*sizes, strict=True)
    )
    return height, width


def equally_padded(sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Numbers of the images that are padded to one size when alone; those may share a batch.

    A larger batch mate would add padding, and the network sees padding: convolutions have biases
    and group norms look at the whole map, so that scores would depend on the mate.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for number, size in enumerate(sizes):
        groups.setdefault(padded_size([size]), []).append(number)
    return list(groups.values())
