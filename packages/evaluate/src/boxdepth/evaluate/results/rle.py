"""COCO run-length masks in NumPy, many at once: checked and measured before C sees them.

A mask of `height x width` pixels is a list of run lengths over its columns, background first. The
compressed form writes each run from the third on as its difference to the run two before it, in
groups of five bits plus a continuation bit, as characters 48 to 111 (pycocotools' `maskApi.c`).
Nothing here trusts its input; everything after it may.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8

_FIRST_CHARACTER = 48
# 6 groups of five bits hold every run of a mask up to this size, and every difference of two.
_MAX_GROUPS = 6
MAX_PIXELS = 2**28


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Run lengths of `n` masks, one after the other.

    Attributes:
        first: background pixels before each mask's first object pixel.
        pairs: an object run and the background run after it (0 at the end of a mask), per row.
        counts: how many of these rows each mask has.
    """

    first: Int64[np.ndarray, " n"]
    pairs: Int64[np.ndarray, "r 2"]
    counts: Int64[np.ndarray, " n"]

    @property
    def begins(self) -> Int64[np.ndarray, " n"]:
        """Row of each mask's first pair."""
        return np.asarray(np.cumsum(self.counts) - self.counts)

    def lengths(self, index: int) -> Int64[np.ndarray, " m"]:
        """All run lengths of one mask, background first."""
        begin = int(self.begins[index])
        pairs = self.pairs[begin : begin + int(self.counts[index])].reshape(-1)
        return np.concatenate((self.first[index : index + 1], pairs))


def well_formed(
    data: UInt8[np.ndarray, " b"], lengths: Int64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Which strings are whole numbers in the alphabet of the format, none of them over-long."""
    stops = np.cumsum(lengths)
    good = lengths > 0
    value = data - np.uint8(_FIRST_CHARACTER)  # wraps: what is below 48 ends up above 63
    strange = np.flatnonzero(value > 63)
    good[np.searchsorted(stops, strange, side="right")] = False
    good[good] &= (value[stops[good] - 1] & 32) == 0
    kept = np.flatnonzero(good)
    if len(kept) != len(good):
        data, stops = data[np.repeat(good, lengths)], np.cumsum(lengths[good])
        value = data - np.uint8(_FIRST_CHARACTER)
    ends = np.flatnonzero((value & 32) == 0)
    too_long = ends[np.diff(ends, prepend=-1) > _MAX_GROUPS]
    good[kept[np.searchsorted(stops, too_long, side="right")]] = False
    return good


def decode_strings(data: UInt8[np.ndarray, " b"], lengths: Int64[np.ndarray, " n"]) -> Runs:
    """Runs of well-formed strings; lengths may still be negative or miss the image."""
    numbers, ends = _numbers(data)
    numbers_before = np.searchsorted(ends, np.concatenate(([0], np.cumsum(lengths))))
    begins, sizes = numbers_before[:-1], np.diff(numbers_before)
    counts = sizes // 2
    pairs = np.zeros(2 * int(counts.sum()), dtype=np.int64)
    rows = np.cumsum(counts) - counts
    place = np.arange(len(numbers)) + np.repeat(2 * rows - begins - 1, sizes)
    later = np.ones(len(numbers), dtype=bool)
    later[begins] = False
    pairs[place[later]] = numbers[later]
    pairs = _undo_differences(pairs.reshape(-1, 2), rows, counts)
    padded = sizes % 2 == 0
    pairs[(rows + counts - 1)[padded], 1] = 0
    return Runs(first=numbers[begins], pairs=pairs, counts=counts)


def encode(lengths: Sequence[int]) -> bytes:
    """The compressed string of one mask from its run lengths, background first."""
    text = bytearray()
    for index, length in enumerate(lengths):
        rest = length - lengths[index - 2] if index > 2 else length
        more = True
        while more:
            bits = rest & 31
            rest >>= 5
            more = rest != -1 if bits & 16 else rest != 0
            text.append(bits + (32 if more else 0) + _FIRST_CHARACTER)
    return bytes(text)


def fills(runs: Runs, pixels: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which masks have no negative run and cover their image exactly."""
    good = (runs.first + _sums(runs.pairs[:, 0] + runs.pairs[:, 1], runs.counts) == pixels) & (
        runs.first >= 0
    )
    negative = np.flatnonzero((runs.pairs[:, 0] < 0) | (runs.pairs[:, 1] < 0))
    good[np.searchsorted(np.cumsum(runs.counts), negative, side="right")] = False
    return np.asarray(good)


def not_canonical(runs: Runs) -> Int64[np.ndarray, " m"]:
    """Masks with empty runs inside, over which some C code loses its way."""
    empty = (runs.pairs[:, 0] == 0) | (runs.pairs[:, 1] == 0)
    stops = np.cumsum(runs.counts)
    last = stops[runs.counts > 0] - 1
    empty[last] = runs.pairs[last, 0] == 0
    return np.unique(np.searchsorted(stops, np.flatnonzero(empty), side="right"))


def merge_empty(lengths: Sequence[int]) -> list[int]:
    """The same mask without empty runs inside or at the end."""
    merged: list[int] = []
    for index, run in enumerate(lengths):
        if run == 0 and index:
            continue
        if merged and (len(merged) - 1) % 2 == index % 2:
            merged[-1] += run
        else:
            merged.append(run)
    return merged


def areas(runs: Runs) -> Int64[np.ndarray, " n"]:
    """Object pixels of each mask."""
    return _sums(runs.pairs[:, 0], runs.counts)


def bounding_boxes(runs: Runs, heights: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n 4"]:
    """Tight boxes xywh in pixels, zeros for an empty mask (pycocotools' `toBbox`)."""
    boxes = np.zeros((len(runs.counts), 4), dtype=np.int64)
    full = np.flatnonzero(runs.counts > 0)
    if not len(full):
        return boxes
    begins, counts = runs.begins[full], runs.counts[full]
    sizes = runs.pairs[:, 0] + runs.pairs[:, 1]
    before = np.cumsum(sizes) - sizes
    start = before + np.repeat(runs.first[full] - before[begins], counts)
    last = start + runs.pairs[:, 0] - 1
    height = np.repeat(heights[full], counts)
    spans = start // height < last // height
    top = np.minimum.reduceat(np.where(spans, 0, start % height), begins)
    bottom = np.maximum.reduceat(np.where(spans, height - 1, last % height), begins)
    left = start[begins] // heights[full]
    right = last[begins + counts - 1] // heights[full]
    boxes[full] = np.stack((left, top, right - left + 1, bottom - top + 1), axis=1)
    return boxes


def to_mask(lengths: Int64[np.ndarray, " r"], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The pixels of one mask from its run lengths."""
    value = np.arange(len(lengths)) % 2 == 1
    return np.repeat(value, lengths).reshape(width, height).T


def from_mask(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """Run lengths of one mask, background first: `to_mask` undone."""
    flat = np.concatenate(([False], mask.T.reshape(-1)))
    edges = np.concatenate(([0], np.flatnonzero(np.diff(flat)), [mask.size]))
    return merge_empty(np.diff(edges).tolist())


def _numbers(data: UInt8[np.ndarray, " b"]) -> tuple[np.ndarray, np.ndarray]:
    """The signed numbers in joined strings, and the place of the last character of each."""
    value = data - np.uint8(_FIRST_CHARACTER)
    ends = np.flatnonzero((value & 32) == 0)
    groups = np.diff(ends, prepend=-1)
    numbers = (value[ends] & 31).astype(np.int64)
    numbers -= (numbers & 16) << 1
    for earlier in range(1, _MAX_GROUPS):
        longer = np.flatnonzero(groups > earlier)
        if not len(longer):
            break
        numbers[longer] = (numbers[longer] << 5) + (value[ends[longer] - earlier] & 31)
    return numbers, ends


def _undo_differences(
    pairs: Int64[np.ndarray, "r 2"], rows: Int64[np.ndarray, " n"], counts: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, "r 2"]:
    full = counts > 0
    total = np.cumsum(pairs, axis=0)
    begins = rows[full]
    total -= np.repeat(total[begins] - pairs[begins], counts[full], axis=0)
    return total


def _sums(values: Int64[np.ndarray, " r"], counts: Int64[np.ndarray, " n"]) -> np.ndarray:
    total = np.concatenate(([0], np.cumsum(values)))
    stops = np.cumsum(counts)
    return np.asarray(total[stops] - total[stops - counts])
