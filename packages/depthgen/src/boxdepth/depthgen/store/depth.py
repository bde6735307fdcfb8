"""Inverse depth to integers and back."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt16

from boxdepth.depthgen.store.schema import DepthInfo

_SMALLEST_RANGE = 1e-30
"""Below it the scale of 16-bit steps would be a denormal number."""

_ROUNDING = 64 * float(np.finfo(np.float32).eps)
"""A range below this share of the values is what a model's rounding leaves of a constant."""


def is_informative(depth: Float32[np.ndarray, "rows columns"]) -> bool:
    """True if depth is finite and its range is more than rounding noise."""
    low, high = float(depth.min()), float(depth.max())
    return bool(np.isfinite(depth).all()) and high - low > max(
        _ROUNDING * max(abs(low), abs(high)), _SMALLEST_RANGE
    )


class Quantised(NamedTuple):
    """One depth map as a store holds it: ``depth = q * scale + offset``."""

    q: UInt16[np.ndarray, "rows columns"]
    scale: np.float32
    offset: np.float32

    def range(self) -> list[float]:
        """Smallest and largest depth."""
        low, high = int(self.q.min()), int(self.q.max())
        ends = (np.float32(v) * self.scale + self.offset for v in (low, high))
        return [float(end) for end in ends]


def quantise(depth: Float32[np.ndarray, "rows columns"], *, bits: int) -> Quantised | None:
    """Map the range of one depth map linearly to ``0 .. 2**bits - 1``.

    Returns:
        The integers with scale and offset; ``None`` for a map that holds no information (not
        finite, or constant).
    """
    if not is_informative(depth):
        return None
    low, high = np.float32(depth.min()), np.float32(depth.max())
    levels = (1 << bits) - 1
    scale = np.float32((np.float64(high) - np.float64(low)) / levels)
    steps = np.rint((depth.astype(np.float64) - low) / np.float64(scale))
    return Quantised(np.clip(steps, 0, levels).astype(np.uint16), scale, low)


def normalised_inverse_depth(
    q: UInt16[np.ndarray, "rows columns"],
    *,
    scale: float,
    offset: float,
    info: DepthInfo,
) -> Float32[np.ndarray, "rows columns"]:
    """What the trainer consumes: per-image min-max normalised inverse depth in 0..255, near = 255.

    Depth of whatever kind and sign comes out as inverse depth: a relative or metric *inverse*
    depth is taken as it is (negated where far is large), a metric depth z in metres becomes 1 / (1
    + z), which stays finite at z = 0. The range 0..255 is that of the 8-bit files that the
    thresholds of arXiv:2403.01214, Eq. 3-4, were tuned on.
    """
    full = np.float32(255)
    if info.kind != "metric":
        # The writer spans all levels, so the integers are min-max normalised already.
        levels = np.float32((1 << info.bits) - 1)
        step = full / levels
        stretched: Float32[np.ndarray, "rows columns"] = np.multiply(q, step, dtype=np.float32)
        if levels * step > full:  # by its last bit, for some numbers of bits
            np.minimum(stretched, full, out=stretched)
        return stretched if info.sign == "near_is_large" else full - stretched
    metres = q.astype(np.float32) * np.float32(scale) + np.float32(offset)
    values = np.float32(1) / (np.float32(1) + np.maximum(metres, np.float32(0)))
    low, high = values.min(), values.max()
    if not high > low:
        return np.zeros_like(values)
    normalised: Float32[np.ndarray, "rows columns"] = (values - low) * (full / (high - low))
    np.minimum(normalised, full, out=normalised)
    return normalised
