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
