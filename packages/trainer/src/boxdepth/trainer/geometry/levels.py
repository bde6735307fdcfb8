"""Maps of all pyramid levels as rows: one for each location, by level, image, row, column."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def flatten_levels(maps: Sequence[Float[Tensor, "b c _ _"]]) -> Float[Tensor, "r c"]:
    """One row per location; order: level, image, row, column."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in maps])


def gather_rows(
    maps: Sequence[Float[Tensor, "b c _ _"]], rows: Int64[Tensor, " p"], level: Int64[Tensor, " p"]
) -> Float[Tensor, "p c"]:
    """`flatten_levels` at ``rows`` (each of the given level) without flattening wide maps.

    Every level is asked for all rows, those of other levels anywhere in it: a few reads more,
    but no sizes that an accelerator would have to wait for.
    """
    out = maps[0].new_zeros(len(rows), maps[0].shape[1])
    start = 0
    for number, feature in enumerate(maps):
        height, width = feature.shape[-2:]
        own = level == number
        # Rows of other levels read all over the map: where a gradient is added up, a thousand of
        # them on one cell would queue.
        local = (rows - start) % (feature.shape[0] * height * width)
        image, cell = local // (height * width), local % (height * width)
        values = feature[image, :, cell // width, cell % width]
        out = torch.where(own[:, None], values, out)
        start += feature.shape[0] * height * width
    return out


def gather_patches(
    maps: Sequence[Float[Tensor, "b c _ _"]], rows: Int64[Tensor, " p"], level: Int64[Tensor, " p"]
) -> Float[Tensor, "p 9 c"]:
    """The 3x3 cells around locations, row by row, 0 beyond the map; rows as for `gather_rows`."""
    taps = torch.arange(9, device=rows.device)
    down, right = taps // 3 - 1, taps % 3 - 1
    out = maps[0].new_zeros(len(rows), 9, maps[0].shape[1])
    start = 0
    for number, feature in enumerate(maps):
        images, _, height, width = feature.shape
        local = (rows - start) % (images * height * width)
        y = (local % (height * width) // width)[:, None] + down
        x = (local % width)[:, None] + right
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        cell = torch.where(inside, local[:, None] + down * width + right, local[:, None])
        values = feature.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, cell.flatten())
        own = inside & (level == number)[:, None]
        out = torch.where(own[:, :, None], torch.unflatten(values, 0, (-1, 9)), out)
        start += images * height * width
    return out
