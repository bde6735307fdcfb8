"""COCO run-length masks: thousands checked and measured at once before compiled code sees them.

A mask of `height x width` pixels is a list of run lengths over its columns, background first. The
compressed form writes each run from the fourth on as its difference to the run two before it, in
groups of five bits plus a continuation bit, as characters 48 to 111 (pycocotools' `maskApi.c`).
Nothing here trusts its input; everything after it may.
"""

from collections.abc import Sequence

import numpy as np

from boxdepth.evaluate.results.arrays import Bool, Int64, UInt8

_FIRST_CHARACTER = 48
# 7 groups of five bits hold every run of the largest mask, and every difference of two.
_MAX_GROUPS = 7
# The most pixels that are ever decoded at once: 16,384 x 16,384.
MAX_PIXELS = 2**28


def measure(
    data: UInt8[np.ndarray, " b"],
    lengths: Int64[np.ndarray, " n"],
    pixels: Int64[np.ndarray, " n"],
) -> tuple[Bool[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Which of the joined strings are canonical masks of their image, and how large each is.

    Canonical: in the alphabet, no run negative, none empty but the first, their sum the image's
    pixels. What is not may still be a mask, with empty runs inside or beside a broken string:
    `decode` tells.

    Args:
        data: characters of all strings, one after the other.
        lengths: characters of each string.
        pixels: height x width of each mask's image.

    Returns:
        Whether each is canonical, and object pixels (only meaningful where it is).
    """
    value = data - np.uint8(_FIRST_CHARACTER)  # wraps: what is below 48 ends up above 63
    more = value > 31
    spelled = _spelled(value, more, lengths)
    if not spelled.all():
        areas = np.zeros(len(lengths), dtype=np.int64)
        good = spelled.copy()
        kept = data[np.repeat(spelled, lengths)]
        good[spelled], areas[spelled] = measure(kept, lengths[spelled], pixels[spelled])
        return good, areas
    numbers, counts = _numbers(value, more, lengths)
    return _sums(numbers, counts, pixels)


def decode(text: bytes) -> list[int] | None:
    """Run lengths of one string, background first; None where it is not COCO's form."""
    runs: list[int] = []
    number = shift = 0
    for character in text:
        value = character - _FIRST_CHARACTER
        if not 0 <= value < 64 or shift >= 5 * _MAX_GROUPS:
            return None
        number |= (value & 31) << shift
        shift += 5
        if value & 32:
            continue
        if value & 16:
            number -= 1 << shift
        runs.append(number + runs[-2] if len(runs) > 2 else number)
        number = shift = 0
    return runs if runs and not shift else None


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


def to_mask(lengths: Sequence[int], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The pixels of one mask from its run lengths."""
    value = np.arange(len(lengths)) % 2 == 1
    return np.repeat(value, lengths).reshape(width, height).T


def from_mask(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """Run lengths of one mask, background first: `to_mask` undone."""
    flat = np.concatenate(([False], mask.T.reshape(-1)))
    edges = np.concatenate(([0], np.flatnonzero(np.diff(flat)), [mask.size]))
    return merge_empty(np.diff(edges).tolist())


def _spelled(
    value: UInt8[np.ndarray, " b"], more: Bool[np.ndarray, " b"], lengths: Int64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Which strings are whole numbers in the alphabet, none of them over-long."""
    full = lengths > 0
    stops = np.cumsum(lengths)
    good = full.copy()
    good[full] = ~more[stops[full] - 1]
    wrong = value > 63
    if more.size > _MAX_GROUPS:  # characters that say for the seventh time that more is to come
        long = more[_MAX_GROUPS - 1 :].copy()
        for earlier in range(1, _MAX_GROUPS):
            long &= more[_MAX_GROUPS - 1 - earlier : -earlier]
        wrong[_MAX_GROUPS - 1 :] |= long
    if wrong.any():
        good[np.searchsorted(stops, np.flatnonzero(wrong), side="right")] = False
    return good


def _numbers(
    value: UInt8[np.ndarray, " b"], more: Bool[np.ndarray, " b"], lengths: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " n"]]:
    """The signed numbers in joined strings, and how many each string holds."""
    # Five bits with a sign: all there is to most numbers. The few longer ones take in their lower
    # groups, which stand before their last one.
    signed = ((value[~more] & np.uint8(31)) ^ np.uint8(16)) - np.uint8(16)
    numbers = signed.view(np.int8).astype(np.int64)
    lower = np.flatnonzero(more)
    place = lower - np.arange(len(lower))
    if len(lower):
        begins = np.concatenate(([0], np.flatnonzero(place[1:] != place[:-1]) + 1))
        groups = _steps(begins, len(lower))
        shift = 5 * (np.arange(len(lower)) - np.repeat(begins, groups))
        bits = np.add.reduceat((value[lower] & np.int64(31)) << shift, begins)
        longer = place[begins]
        numbers[longer] = (numbers[longer] << 5 * groups) + bits
    begins = np.searchsorted(lower, np.cumsum(lengths) - lengths)
    return numbers, lengths - _steps(begins, len(lower))


def _steps(begins: Int64[np.ndarray, " n"], end: int) -> Int64[np.ndarray, " n"]:
    """How far each begin is from the next, the last from `end`."""
    steps = np.empty_like(begins)
    np.subtract(begins[1:], begins[:-1], out=steps[:-1])
    steps[-1:] = end - begins[-1:]
    return steps


def _sums(
    numbers: Int64[np.ndarray, " m"],
    counts: Int64[np.ndarray, " n"],
    pixels: Int64[np.ndarray, " n"],
) -> tuple[Bool[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Undo the differences: are all runs positive, do they fill the image, what is the area?

    Runs of one colour are running sums over every second number, so one running sum over the even
    places and one over the odd serve all masks at once: each subtracts where it began. `numbers`
    is changed: a mask's first run, which alone may be 0, is taken one longer, and its third, which
    is no difference, made one.
    """
    first = np.cumsum(counts) - counts
    numbers[first] += 1
    third = first[counts > 2]
    numbers[third + 2] -= numbers[third]
    least, total = np.ones((2, len(counts)), np.int64), np.zeros((2, len(counts)), np.int64)
    for parity in (0, 1):
        sums = np.zeros(1 + len(numbers[parity::2]), dtype=np.int64)
        sums[1:] = numbers[parity::2]  # contiguous first: that sums five times as fast
        np.cumsum(sums, out=sums)
        begins = (first + 1 - parity) // 2
        runs = _steps(begins, len(sums) - 1)
        some = runs > 0
        begins, runs = begins[some], runs[some]
        base = sums[begins]
        least[parity, some] = np.minimum.reduceat(sums[1:], begins) - base
        total[parity, some] = np.add.reduceat(sums[1:], begins) - base * runs
    good = (least > 0).all(axis=0) & (total.sum(axis=0) - 1 == pixels)
    return good, np.where(first % 2 == 0, total[1], total[0])
