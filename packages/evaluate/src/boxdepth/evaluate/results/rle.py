"""COCO run-length masks in NumPy, many at once: checked, measured and re-coded before C sees them.

A mask of `height x width` pixels is a list of run lengths over its columns, background first. The
compressed form writes each run from the third on as its difference to the run two before it, in
groups of five bits plus a continuation bit, as characters 48 to 111 (pycocotools' `maskApi.c`).
Nothing here trusts its input; everything after it may.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8

_FIRST_CHARACTER = 48
# 7 groups of five bits hold every run of a mask below 2**32 pixels, and its difference.
_MAX_GROUPS = 7
MAX_PIXELS = 2**28


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Run lengths of `n` masks, one after the other.

    Attributes:
        lengths: pixels of every run, background and object taking turns, background first.
        counts: how many runs each mask has.
    """

    lengths: Int64[np.ndarray, " r"]
    counts: Int64[np.ndarray, " n"]

    @property
    def starts(self) -> Int64[np.ndarray, " n"]:
        """Index of each mask's first run."""
        return np.asarray(np.cumsum(self.counts) - self.counts)


def segments(counts: Int64[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """For consecutive groups of `counts` elements: the group and the place within it of each."""
    group = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    return group, place


def well_formed(
    data: UInt8[np.ndarray, " b"], lengths: Int64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Which strings are whole numbers in the alphabet of the format, none of them over-long."""
    good = lengths > 0
    if data.size == 0:
        return good
    group, place = segments(lengths)
    value = data.astype(np.int16) - _FIRST_CHARACTER
    bad_byte = (value < 0) | (value > 63)
    good[group[bad_byte]] = False
    more = (value & 32) != 0
    last = np.zeros(len(lengths), dtype=np.int64)
    last[lengths > 0] = np.cumsum(lengths)[lengths > 0] - 1
    good &= ~more[last]
    ends = np.where(more, -1, np.arange(data.size))
    previous_end = np.maximum.accumulate(np.concatenate(([-1], ends[:-1])))
    previous_end = np.maximum(previous_end, np.arange(data.size) - place - 1)
    too_long = np.arange(data.size) - previous_end > _MAX_GROUPS
    good[group[too_long]] = False
    return good


def decode_strings(data: UInt8[np.ndarray, " b"], lengths: Int64[np.ndarray, " n"]) -> Runs:
    """Run lengths of well-formed strings; lengths may still be negative or miss the image."""
    value = data.astype(np.int64) - _FIRST_CHARACTER
    is_end = (value & 32) == 0
    number_start = np.flatnonzero(np.concatenate(([True], is_end[:-1]))) if data.size else _none()
    group_of_byte = np.arange(data.size) - np.repeat(
        number_start, np.diff(np.append(number_start, data.size))
    )
    numbers = (
        np.add.reduceat((value & 31) << (5 * group_of_byte), number_start) if data.size else _none()
    )
    end = np.flatnonzero(is_end)
    negative = (value[end] & 16) != 0
    numbers -= np.where(negative, np.int64(1) << (5 * (group_of_byte[end] + 1)), 0)
    mask_of_byte = np.repeat(np.arange(len(lengths)), lengths)
    counts = np.bincount(mask_of_byte[number_start], minlength=len(lengths)).astype(np.int64)
    return Runs(lengths=_undo_differences(numbers, counts), counts=counts)


def encode_strings(runs: Runs) -> tuple[UInt8[np.ndarray, " b"], Int64[np.ndarray, " n"]]:
    """The compressed strings of masks, joined, and the length of each: `decode_strings` undone."""
    _, place = segments(runs.counts)
    rest = runs.lengths.copy()
    later = np.flatnonzero(place > 2)
    rest[later] -= runs.lengths[later - 2]
    characters = np.zeros((len(rest), _MAX_GROUPS), dtype=np.uint8)
    used = np.zeros((len(rest), _MAX_GROUPS), dtype=bool)
    going = np.ones(len(rest), dtype=bool)
    for position in range(_MAX_GROUPS):
        bits = rest & 31
        rest >>= 5
        more = np.where((bits & 16) != 0, rest != -1, rest != 0)
        characters[:, position] = bits + np.where(more, 32, 0) + _FIRST_CHARACTER
        used[:, position] = going
        going = going & more
    sizes = used.sum(axis=1)
    group, _ = segments(runs.counts)
    lengths = np.bincount(group, weights=sizes, minlength=len(runs.counts)).astype(np.int64)
    return characters[used], lengths


def fills(runs: Runs, pixels: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which masks have no negative run and cover their image exactly."""
    group, _ = segments(runs.counts)
    good = runs.counts > 0
    good[group[(runs.lengths < 0) | (runs.lengths > MAX_PIXELS)]] = False
    clipped = np.clip(runs.lengths, 0, MAX_PIXELS)
    total = np.zeros(len(runs.counts), dtype=np.int64)
    np.add.at(total, group, clipped)
    return np.asarray(good & (total == pixels))


def canonical(runs: Runs) -> Runs:
    """The same masks without empty runs inside, over which some C code loses its way."""
    _, place = segments(runs.counts)
    if not ((runs.lengths == 0) & (place > 0)).any():
        return runs
    masks = np.split(runs.lengths, np.cumsum(runs.counts)[:-1])
    merged = [_merge_empty(lengths.tolist()) for lengths in masks]
    return Runs(
        lengths=np.array([run for mask in merged for run in mask], dtype=np.int64),
        counts=np.array([len(mask) for mask in merged], dtype=np.int64),
    )


def areas(runs: Runs) -> Int64[np.ndarray, " n"]:
    """Object pixels of each mask."""
    group, place = segments(runs.counts)
    inside = place % 2 == 1
    weights = runs.lengths[inside].astype(np.float64)
    return np.bincount(group[inside], weights=weights, minlength=len(runs.counts)).astype(np.int64)


def bounding_boxes(runs: Runs, heights: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n 4"]:
    """Tight boxes xywh in pixels, zeros for an empty mask (pycocotools' `toBbox`)."""
    group, place = segments(runs.counts)
    stop = np.cumsum(runs.lengths)
    stop -= np.repeat(np.concatenate(([0], stop))[runs.starts], runs.counts)
    inside = np.flatnonzero((place % 2 == 1) & (runs.lengths > 0))
    group, first, last = group[inside], (stop - runs.lengths)[inside], stop[inside] - 1
    height = heights[group]
    x_first, x_last = first // height, last // height
    spans = x_first < x_last
    y_first = np.where(spans, 0, first % height)
    y_last = np.where(spans, height - 1, last % height)
    n = len(runs.counts)
    low = np.full((n, 2), MAX_PIXELS, dtype=np.int64)
    high = np.full((n, 2), -1, dtype=np.int64)
    np.minimum.at(low[:, 0], group, x_first)
    np.minimum.at(low[:, 1], group, y_first)
    np.maximum.at(high[:, 0], group, x_last)
    np.maximum.at(high[:, 1], group, y_last)
    empty = high[:, 0] < 0
    low[empty] = 0
    return np.concatenate((low, np.where(empty[:, None], 0, high - low + 1)), axis=1)


def to_mask(lengths: Int64[np.ndarray, " r"], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The pixels of one mask from its run lengths."""
    value = np.arange(len(lengths)) % 2 == 1
    return np.repeat(value, lengths).reshape(width, height).T


def from_mask(mask: Bool[np.ndarray, "h w"]) -> Int64[np.ndarray, " r"]:
    """Run lengths of one mask, background first: `to_mask` undone."""
    flat = np.concatenate(([False], mask.T.reshape(-1)))
    changes = np.flatnonzero(np.diff(flat))
    edges = np.concatenate(([0], changes, [mask.size]))
    lengths = np.diff(edges)
    return lengths if lengths[-1] or len(lengths) == 1 else lengths[:-1]


def _undo_differences(
    numbers: Int64[np.ndarray, " r"], counts: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " r"]:
    _, place = segments(counts)
    lengths = numbers.copy()
    for first in (1, 2):
        chain = np.flatnonzero((place >= first) & (place % 2 == first % 2))
        total = np.cumsum(numbers[chain])
        is_head = place[chain] == first
        before = np.where(is_head, total - numbers[chain], 0)
        heads = np.flatnonzero(is_head)
        sizes = np.diff(np.append(heads, len(chain)))
        lengths[chain] = total - np.repeat(before[heads], sizes)
    return lengths


def _merge_empty(lengths: list[int]) -> list[int]:
    merged: list[int] = []
    for index, run in enumerate(lengths):
        if run == 0 and index:
            continue
        if merged and (len(merged) - 1) % 2 == index % 2:
            merged[-1] += run
        else:
            merged.append(run)
    return merged


def _none() -> Int64[np.ndarray, " 0"]:
    return np.zeros(0, dtype=np.int64)
