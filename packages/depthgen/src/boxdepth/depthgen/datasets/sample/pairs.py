"""How much the pairs of neighbouring cells tell: the figures that the scenes are calibrated by.

Which pairs are trusted is the trainer's to say (``boxdepth.trainer.affinity``): here they are
counted, within instances and across their borders. Cells are 4x4 pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

CELL = 4


def _shifted(values: np.ndarray, dy: int, dx: int, fill: float) -> np.ndarray:
    """``values`` of the neighbour at (dy, dx) in each place, ``fill`` beyond the edge."""
    moved = np.full_like(values, fill)
    height, width = values.shape[:2]
    to_rows, to_columns = (
        slice(max(-dy, 0), height - max(dy, 0)),
        slice(max(-dx, 0), width - max(dx, 0)),
    )
    rows, columns = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
    moved[to_rows, to_columns] = values[rows, columns]
    return moved


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCounts:
    """Pairs whose centre lies on an instance, and how many of them are trusted.

    Attributes:
        within: Pairs with both cells on the same instance.
        within_trusted: Those of them that pass.
        across: Pairs whose neighbour lies on something else: another instance or background.
        across_trusted: Those of them that pass.
    """

    within: int
    within_trusted: int
    across: int
    across_trusted: int

    def __add__(self, other: "PairCounts") -> "PairCounts":
        return PairCounts(
            within=self.within + other.within,
            within_trusted=self.within_trusted + other.within_trusted,
            across=self.across + other.across,
            across_trusted=self.across_trusted + other.across_trusted,
        )

    @property
    def within_share(self) -> float:
        """Share of the pairs within instances that pass; NaN without pairs."""
        return self.within_trusted / self.within if self.within else float("nan")

    @property
    def across_share(self) -> float:
        """Share of the pairs across borders that pass; NaN without pairs."""
        return self.across_trusted / self.across if self.across else float("nan")


NO_PAIRS = PairCounts(within=0, within_trusted=0, across=0, across_trusted=0)


def count_pairs(
    trusted: Bool[np.ndarray, "k hm wm"],
    masks: Bool[np.ndarray, "n h w"],
    *,
    offsets: Sequence[tuple[int, int]],
) -> PairCounts:
    """Count trusted pairs within instances and across their borders.

    Args:
        trusted: Pairs that pass.
        offsets: (rows down, columns to the right) from a cell to each of its k neighbours.
        masks: Disjoint instances at image size; cell (i, j) is what pixel (4i+2, 4j+2) is.
    """
    owner = cell_owner(masks)[: trusted.shape[1], : trusted.shape[2]]
    counts = NO_PAIRS
    for passed, (dy, dx) in zip(trusted, offsets, strict=True):
        other = _shifted(owner, dy, dx, -2)
        centre = (owner >= 0) & (other != -2)
        within, across = centre & (other == owner), centre & (other != owner)
        counts += PairCounts(
            within=int(within.sum()),
            within_trusted=int((passed & within).sum()),
            across=int(across.sum()),
            across_trusted=int((passed & across).sum()),
        )
    return counts


def cell_owner(masks: Bool[np.ndarray, "n h w"]) -> Int64[np.ndarray, "hm wm"]:
    """Index of the instance in each cell, -1 for none."""
    cells = masks[:, CELL // 2 :: CELL, CELL // 2 :: CELL]
    if not len(cells):
        return np.full(cells.shape[1:], -1, np.int64)
    return np.where(cells.any(axis=0), cells.argmax(axis=0), -1).astype(np.int64)


def box_share(
    trusted: Bool[np.ndarray, "k hm wm"], box_xyxy: tuple[float, float, float, float]
) -> float:
    """Share of the pairs with the centre in a box that pass; NaN for a box without a cell.

    Args:
        trusted: Pairs that pass; pairs that point out of the image count as failed.
        box_xyxy: Pixels; rows int(y1)..int(y2) inclusive are in, sampled at (4i+2, 4j+2).
    """
    x1, y1, x2, y2 = (int(side) for side in box_xyxy)
    rows = slice(max(-(-(y1 - 2) // CELL), 0), max((y2 - 2) // CELL + 1, 0))
    columns = slice(max(-(-(x1 - 2) // CELL), 0), max((x2 - 2) // CELL + 1, 0))
    inside = trusted[:, rows, columns]
    return float(inside.mean()) if inside.size else float("nan")
