"""How much the pairs of neighbouring cells tell: the figures that the scenes are calibrated by.

Cells are 4x4 pixels; each has eight neighbours two cells away (arXiv:2012.02310, Eq. 5;
arXiv:2403.01214, Eq. 3). A pair counts as trusted when ``exp(-0.5 * difference)`` reaches a
threshold.
"""

from dataclasses import dataclass
from math import log

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

CELL = 4
NEIGHBOURS = ((-2, -2), (-2, 0), (-2, 2), (0, -2), (0, 2), (2, -2), (2, 0), (2, 2))
COLOUR_THRESHOLD = 0.3
DEPTH_THRESHOLD = 0.5

_TO_XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
) / np.array([[0.95047], [1.0], [1.08883]])


def lab(image: UInt8[np.ndarray, "h w 3"]) -> Float64[np.ndarray, "h w 3"]:
    """CIE L*a*b* (D65, 2 degrees) of sRGB bytes; L in 0..100."""
    value = image / 255.0
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    xyz = linear @ _TO_XYZ.T
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def pooled(values: np.ndarray) -> Float64[np.ndarray, "hm wm c"]:
    """Means of 4x4 cells of [h w c]; rows and columns that fill no cell are left out."""
    height, width = (side // CELL for side in values.shape[:2])
    cut = values[: height * CELL, : width * CELL].astype(np.float64)
    means: np.ndarray = cut.reshape(height, CELL, width, CELL, -1).mean(axis=(1, 3))
    return means


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


def differences(values: Float64[np.ndarray, "hm wm c"]) -> Float64[np.ndarray, "8 hm wm"]:
    """Euclidean distance of each cell to each neighbour; infinite beyond the edge."""
    gaps = []
    for dy, dx in NEIGHBOURS:
        moved = _shifted(values, dy, dx, np.inf)
        with np.errstate(invalid="ignore"):
            gaps.append(np.sqrt(np.square(moved - values).sum(axis=-1)))
    return np.stack(gaps)


def colour_pairs(image: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "8 hm wm"]:
    """Pairs alike in colour: LAB of the pooled image, similarity at least 0.3."""
    cells = lab(pooled(image).astype(np.uint8))
    return differences(cells) <= -2 * log(COLOUR_THRESHOLD)


def depth_pairs(
    inverse_depth: Float32[np.ndarray, "h w"], threshold: float = DEPTH_THRESHOLD
) -> Bool[np.ndarray, "8 hm wm"]:
    """Pairs alike in depth: per-image min-max inverse depth in 0..255, similarity at least 0.5."""
    low, high = float(inverse_depth.min()), float(inverse_depth.max())
    units = (inverse_depth - low) * (255.0 / max(high - low, 1e-12))
    return differences(pooled(units[..., None])) <= -2 * log(threshold)


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
    trusted: Bool[np.ndarray, "8 hm wm"], masks: Bool[np.ndarray, "n h w"]
) -> PairCounts:
    """Count trusted pairs within instances and across their borders.

    Args:
        trusted: Pairs that pass.
        masks: Disjoint instances at image size; cell (i, j) is what pixel (4i+2, 4j+2) is.
    """
    owner = cell_owner(masks)[: trusted.shape[1], : trusted.shape[2]]
    counts = NO_PAIRS
    for passed, (dy, dx) in zip(trusted, NEIGHBOURS, strict=True):
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
    trusted: Bool[np.ndarray, "8 hm wm"], box_xyxy: tuple[float, float, float, float]
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
