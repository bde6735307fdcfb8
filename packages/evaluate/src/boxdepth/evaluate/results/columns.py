"""Columns of COCO files as arrays: what is accepted, mended with a note, or refused.

The rule is the table in docs/input-fields.md. Each reader has one pass in NumPy for a column that
is as it should be, and a loop that mends and names faults for one that is not.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from msgspec import UNSET

from boxdepth.evaluate.results.arrays import Bool, Float64, Int64
from boxdepth.evaluate.results.problems import Problems, quoted

MAX_ID, MAX_SIDE, MAX_AREA = 2**53, 65_535, 1e15
# No box of an image reaches farther, in pixels.
FARTHEST = 1e9
_LARGEST = sys.float_info.max
_NUMBER = re.compile(r" *([+-]?)(\d+)((?:\.\d*)?(?:[eE][+-]?\d+)?) *|"
                     r" *[+-]?\.\d+(?:[eE][+-]?\d+)? *", re.ASCII)  # fmt: skip
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_NUMBERS: set[type] = {int, float}


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnReader:
    """Reads the columns of one table.

    Attributes:
        table: its name in notes ("annotations").
        where: names record `i` in problems.
        problems: receives what is refused.
        mended: counts what was mended, by what was done.
    """

    table: str
    where: Callable[[int], str]
    problems: Problems
    mended: Counter[str] = field(default_factory=Counter)

    def notes(self) -> tuple[str, ...]:
        """What was mended, in sentences."""
        return tuple(f"{count} {self.table}: {what}." for what, count in self.mended.items())

    def whole(
        self, key: str, column: Sequence[Any] | np.ndarray, low: int = -MAX_ID, high: int = MAX_ID
    ) -> Int64[np.ndarray, " n"]:
        """Whole numbers in [low, high], 0 where one is refused."""
        values = _as_floats(column)
        if values is not None and not len(values):
            return np.zeros(0, dtype=np.int64)
        if values is not None and low <= values.min() and values.max() <= high:
            whole = values.astype(np.int64)
            if (whole == values).all():
                return whole
        span = "-2^53 to 2^53, which floats hold exactly" if high == MAX_ID else f"{low} to {high}"
        result = np.zeros(len(column), dtype=np.int64)
        for index, value in enumerate(column):
            number = self._number(key, value)
            if number is not None and low <= number <= high and number == int(number):
                result[index] = int(number)
            else:
                self._refuse(index, key, value, f"a whole number from {span}")
        return result

    def numbers(
        self,
        key: str,
        column: Sequence[Any] | np.ndarray,
        *,
        low: float = -math.inf,
        high: float = math.inf,
        optional: bool = False,
    ) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Finite numbers in [low, high], and which records have one."""
        values = _as_floats(column)
        fine = values is not None and bool(np.isfinite(values).all())
        if values is not None and fine:
            fine = not len(values) or bool(low <= values.min() and values.max() <= high)
        if values is not None and fine:
            return values, np.ones(len(values), dtype=bool)
        span = "" if low == -math.inf else f" from {low:g} to {high:g}"
        result, present = np.zeros(len(column)), np.zeros(len(column), dtype=bool)
        for index, value in enumerate(column):
            if optional and (value is None or value is UNSET):
                continue
            number = self._number(key, value)
            if number is not None and math.isfinite(number) and low <= number <= high:
                result[index], present[index] = number, True
            else:
                self._refuse(index, key, value, f"a finite number{span}")
        return result, present

    def boxes(
        self, column: Sequence[Any] | np.ndarray
    ) -> tuple[Float64[np.ndarray, "n 4"], Bool[np.ndarray, " n"]]:
        """Boxes xywh in pixels, zeros where there is none, and which records have one."""
        values = _as_boxes(column)
        if values is not None and _sound(values):
            return values, np.ones(len(values), dtype=bool)
        there = _given(column)
        boxes, present = np.zeros((len(column), 4)), np.zeros(len(column), dtype=bool)
        present[there] = True
        values = _as_boxes([column[index] for index in there])
        if values is not None and _sound(values):
            boxes[present] = values
            return boxes, present
        for index in there:
            boxes[index] = self._box(index, column[index])
        return boxes, present

    def flags(self, key: str, column: Sequence[Any] | np.ndarray) -> Bool[np.ndarray, " n"]:
        """0 or 1 in any spelling; False where one is missing or refused."""
        values = _as_floats(column)
        if values is not None and np.isin(values, (0.0, 1.0)).all():
            return np.asarray(values == 1.0)
        result = np.zeros(len(column), dtype=bool)
        for index, value in enumerate(column):
            if value is None:
                self.mended[f"{key} is null, taken as 0"] += 1
            elif isinstance(value, str) and value.strip(" ").lower() in _FLAGS:
                self.mended[f"{key} written as text"] += 1
                result[index] = _FLAGS[value.strip(" ").lower()]
            elif value is not UNSET:
                if not isinstance(value, bool | int | float | np.number | np.bool_) or (
                    value not in (0, 1)
                ):
                    self._refuse(index, key, value, "0 or 1")
                result[index] = value == 1
        return result

    def names(self, column: Sequence[Any], ids: Int64[np.ndarray, " n"]) -> list[str]:
        """Names of categories; `category <id>` where there is none."""
        names = []
        for index, (value, number) in enumerate(zip(column, ids.tolist(), strict=True)):
            name = value
            if value is UNSET or value is None or value == "":
                name = f"category {number}"
                self.mended["no name, called by their id"] += 1
            elif isinstance(value, int | float) and not isinstance(value, bool):
                name = str(value)
                self.mended["name written as a number"] += 1
            elif not isinstance(value, str):
                self._refuse(index, "name", value, "text")
            names.append(str(name))
        return names

    def unique(self, values: Int64[np.ndarray, " n"], what: str) -> None:
        """Refuse every id that stands more than once."""
        found, counts = np.unique(values, return_counts=True)
        twice = counts > 1
        for value, count in zip(found[twice].tolist(), counts[twice].tolist(), strict=True):
            self.problems.add(f"{what} id {value}", f"stands {count} times, expected once")

    def _number(self, key: str, value: Any) -> float | int | None:
        if isinstance(value, str):
            number = number_of(value)
            if number is not None:
                self.mended[f"{key} written as text"] += 1
        elif is_number(value):
            number = value.item() if isinstance(value, np.generic) else value
        else:
            return None
        return number if number is not None and abs(number) <= _LARGEST else None

    def _box(self, index: int, box: Any) -> list[float]:
        values = list(box) if isinstance(box, list | tuple | np.ndarray) else []
        if len(values) != 4 or not all(isinstance(v, str) or is_number(v) for v in values):
            self._refuse(index, "bbox", box, "[x, y, width, height] in pixels")
            return [0.0] * 4
        text = any(isinstance(value, str) for value in values)
        numbers = [number_of(value) if isinstance(value, str) else value for value in values]
        read = [v for v in numbers if v is not None and -FARTHEST < v < FARTHEST]
        if len(read) != 4:
            self._refuse(index, "bbox", box, "finite pixels, none beyond 1e9")
            return [0.0] * 4
        if min(read[2:]) < 0:
            self.problems.add(
                self.where(index), f"bbox is {quoted(box)}, its width or height is negative"
            )
        if text:
            self.mended["bbox written as text"] += 1
        return [float(value) for value in read]

    def _refuse(self, index: int, key: str, value: object, expected: str) -> None:
        seen = "missing" if value is UNSET else quoted(value)
        self.problems.add(self.where(index), f"{key} is {seen}, expected {expected}")


def positions(
    values: Int64[np.ndarray, " n"], known: Int64[np.ndarray, " k"]
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """For each value its place in the sorted array `known`, and whether it is there at all."""
    if len(known) == 0:
        return np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=bool)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return place, known[place] == values


def number_of(text: str) -> float | int | None:
    """The number that a text stands for, or None; digits alone are exact."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    if found[2] and not found[3] and len(found[2]) < 300:
        return int(text)
    return float(text)


def is_number(value: object) -> bool:
    """A number, Python's or NumPy's; True and False are none."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _given(column: Sequence[Any] | np.ndarray) -> list[int]:
    """Places of what is not missing, null or empty."""
    return [
        index
        for index, value in enumerate(column)
        if value is not None
        and value is not UNSET
        and not (isinstance(value, list | tuple | np.ndarray) and len(value) == 0)
    ]


def _as_floats(column: Sequence[Any] | np.ndarray) -> Float64[np.ndarray, " n"] | None:
    """The column as float64 if it holds numbers alone, whole ones not rounded; else None."""
    if isinstance(column, np.ndarray):
        if column.dtype.kind not in "iuf" or column.ndim != 1:
            return None
        values = column.astype(np.float64)
    elif not set(map(type, column)) <= _NUMBERS:
        return None
    else:
        try:
            values = np.fromiter(column, np.float64, len(column))
        except OverflowError:
            return None
    # From 2^53 on neighbours share a float: the loop compares such values exactly.
    return values if not len(values) or np.abs(values).max() < MAX_ID else None


def _sound(boxes: Float64[np.ndarray, "n 4"]) -> bool:
    return bool((np.abs(boxes) < FARTHEST).all() and (boxes[:, 2:] >= 0).all())


def _as_boxes(column: Sequence[Any] | np.ndarray) -> Float64[np.ndarray, "n 4"] | None:
    if isinstance(column, np.ndarray):
        good = column.dtype.kind in "iuf" and column.ndim == 2 and column.shape[1] == 4
        return column.astype(np.float64) if good else None
    types = set(map(type, column))
    if not types <= {list, tuple} or set(map(len, column)) - {4}:
        return None
    if types == {tuple}:  # msgspec's: floats, it has seen to that
        return np.fromiter(chain.from_iterable(column), np.float64, 4 * len(column)).reshape(-1, 4)
    flat = list(chain.from_iterable(column))
    if not set(map(type, flat)) <= _NUMBERS:
        return None
    try:
        return np.array(flat, dtype=np.float64).reshape(-1, 4)
    except OverflowError:
        return None
