"""Measured depth, with its holes, onto a store's grid."""

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy import ndimage

_SEEN = 0.5
"""A cell counts as measured if at least this share of its area is."""


def to_grid(
    depth: Float32[np.ndarray, "h w"],
    measured: Bool[np.ndarray, "h w"],
    *,
    grid: tuple[int, int],
) -> tuple[Float32[np.ndarray, "rows columns"], Bool[np.ndarray, "rows columns"]] | None:
    """The area mean of the measured pixels in each cell of the grid.

    A hole never mixes with its surroundings, and never looks near: where less than half of a cell
    is measured, the cell is a hole and takes the value of the nearest measured cell.

    Returns:
        Depth without holes, and where it was measured; ``None`` if nothing was.
    """
    weight = _area_sums(measured.astype(np.float64), grid)
    total = _area_sums(np.where(measured, depth, 0).astype(np.float64), grid)
    seen = weight >= _SEEN * (depth.shape[0] * depth.shape[1]) / (grid[0] * grid[1])
    if not seen.any():
        return None
    values = np.divide(total, weight, out=np.zeros(grid), where=weight > 0)
    nearest = ndimage.distance_transform_edt(~seen, return_distances=False, return_indices=True)
    return values[tuple(nearest)].astype(np.float32), seen


def _area_sums(
    values: Float64[np.ndarray, "h w"], grid: tuple[int, int]
) -> Float64[np.ndarray, "rows columns"]:
    """The integral of ``values`` over each cell of the grid; edges may cut pixels."""
    for axis, cells in enumerate(grid):
        side = values.shape[axis]
        padding = [(1, 0) if a == axis else (0, 0) for a in range(2)]
        running = np.moveaxis(np.pad(values.cumsum(axis=axis), padding), axis, 0)
        edges = np.linspace(0, side, cells + 1)
        below = np.minimum(edges.astype(np.int64), side - 1)
        share = (edges - below)[:, None]
        at_edges = running[below] * (1 - share) + running[below + 1] * share
        values = np.moveaxis(np.diff(at_edges, axis=0), 0, axis)
    return values
