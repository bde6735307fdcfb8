"""Where the cells of a feature map lie in the input image."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor


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
