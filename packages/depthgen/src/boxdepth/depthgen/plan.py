"""What is to be done, in which order, and how large it gets: pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Int64

from boxdepth.depthgen.preprocess import Preprocessing, input_size
from boxdepth.depthgen.store.schema import ImageRecord

BYTES_PER_CELL: Final = 1.3
"""Of quantised depth after compression: measured on photographs, docs/store-format.md."""

_DEFAULT_SIDE: Final = 384


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of one unit that go through the model together.

    Attributes:
        unit: The unit that they belong to.
        rows: Row numbers in the store; all have the same input size.
        last: True for the unit's last batch.
    """

    unit: int
    rows: tuple[int, ...]
    last: bool


def default_unit(dataset: str) -> int:
    """Images of one unit: about 40 MB of photographs, and as much of depth."""
    return 64 if dataset == "cityscapes" else 256


def default_grid(dataset: str, preprocessing: Preprocessing) -> tuple[int, int]:
    """Rows and columns of stored depth: as fine as the model sees, at most 384 rows.

    The losses read depth at stride 4 (200x266 for an image of 800x1066), so a finer grid holds
    nothing that they could use. Cityscapes' images are twice as wide as high.
    """
    side = min(_DEFAULT_SIDE, preprocessing.height)
    return (side, 2 * side) if dataset == "cityscapes" else (side, side)


def batches(
    unit: int,
    rows: Sequence[int],
    records: Sequence[ImageRecord],
    *,
    preprocessing: Preprocessing,
    batch_size: int,
) -> list[Batch]:
    """Cut one unit into batches of equal input size, in the order of first appearance.

    The cut depends on the unit alone and never on what is left to do: a resumed run puts the same
    images together and therefore computes the same bits.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        size = input_size(records[row].height, records[row].width, preprocessing)
        groups.setdefault(size, []).append(row)
    parts = [
        tuple(group[start : start + batch_size])
        for group in groups.values()
        for start in range(0, len(group), batch_size)
    ]
    return [
        Batch(unit=unit, rows=part, last=number == len(parts))
        for number, part in enumerate(parts, start=1)
    ]


def estimate_bytes(image_nbytes: Int64[np.ndarray, " n"], *, grid: tuple[int, int]) -> int:
    """Bytes that a store of these images will need, about."""
    return int(image_nbytes.sum() + len(image_nbytes) * grid[0] * grid[1] * BYTES_PER_CELL)
