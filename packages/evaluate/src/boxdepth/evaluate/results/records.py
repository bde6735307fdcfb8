"""Columns out of lists of JSON objects: types checked, faults named, nothing guessed."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxdepth.evaluate.results.problems import Problems, quoted

Record = dict[str, Any]
MAX_ID = 2**53
# No box of an image reaches farther, in pixels.
FARTHEST = 1e9


def only_objects(
    records: Sequence[object], *, name: Callable[[int], str], problems: Problems
) -> list[Record]:
    """The records that are JSON objects; the others become problems."""
    if all(type(record) is dict for record in records):
        return list(records)  # type: ignore[arg-type]
    for index, record in enumerate(records):
        if type(record) is not dict:
            problems.add(name(index), f"is {quoted(record)}, expected an object {{...}}")
    return [record for record in records if type(record) is dict]


def integers(
    records: Sequence[Record],
    key: str,
    *,
    name: Callable[[int], str],
    problems: Problems,
    low: int = -MAX_ID,
    high: int = MAX_ID,
) -> Int64[np.ndarray, " n"]:
    """Column `key` as whole numbers in [low, high]; 0 where it is broken, which is a problem."""
    column = [record.get(key) for record in records]
    if set(map(type, column)) <= {int} and (not column or _within(column, low, high)):
        return np.array(column, dtype=np.int64)
    values = np.zeros(len(column), dtype=np.int64)
    for index, value in enumerate(column):
        if is_whole(value) and low <= value <= high:
            values[index] = value
        else:
            cure = " (a string: remove the quotes)" if isinstance(value, str) else ""
            seen = quoted(value) if key in records[index] else "missing"
            problems.add(
                name(index), f"{key} is {seen}{cure}, expected a whole number{_span(low, high)}"
            )
    return values


def numbers(
    records: Sequence[Record],
    key: str,
    *,
    name: Callable[[int], str],
    problems: Problems,
    optional: bool = False,
) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Column `key` as finite numbers, and which records have it; broken ones are problems."""
    column = [record.get(key) for record in records]
    if set(map(type, column)) <= {float, int}:
        values = _as_float(column)
        if np.isfinite(values).all():
            return values, np.ones(len(column), dtype=bool)
    values, present = np.zeros(len(column)), np.zeros(len(column), dtype=bool)
    for index, value in enumerate(column):
        if is_number(value) and is_finite(value):
            values[index], present[index] = value, True
        elif not (optional and value is None):
            seen = quoted(value) if key in records[index] else "missing"
            problems.add(name(index), f"{key} is {seen}, expected a finite number")
    return values, present


def boxes(
    records: Sequence[Record], *, name: Callable[[int], str], problems: Problems
) -> tuple[Float64[np.ndarray, "n 4"], Bool[np.ndarray, " n"]]:
    """Column `bbox` as xywh pixels and which records have one; broken boxes are problems."""
    column = [record.get("bbox") for record in records]
    present = np.array([box is not None and box != [] for box in column], dtype=bool)
    if all(type(box) is list and len(box) == 4 for box in column):
        flat = [value for box in column for value in box]  # type: ignore[union-attr]
        if set(map(type, flat)) <= {float, int}:
            values = _as_float(flat).reshape(-1, 4)
            if (np.abs(values) < FARTHEST).all() and (values[:, 2:] >= 0).all():
                return values, present
    values = np.zeros((len(column), 4))
    for index in np.flatnonzero(present).tolist():
        fault = _box_fault(column[index])
        if fault:
            problems.add(name(index), fault)
        else:
            values[index] = column[index]
    return values, present


def positions(
    values: Int64[np.ndarray, " n"], known: Int64[np.ndarray, " k"]
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """For each value its place in the sorted array `known`, and whether it is there at all."""
    if len(known) == 0:
        return np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=bool)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return place, known[place] == values


def report_duplicates(values: Int64[np.ndarray, " n"], *, what: str, problems: Problems) -> None:
    """One problem for every value that stands more than once."""
    unique, counts = np.unique(values, return_counts=True)
    for value, count in zip(unique[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True):
        problems.add(f"{what} id {value}", f"stands {count} times, expected once")


def is_whole(value: object) -> TypeGuard[int]:
    """A whole number, Python's or NumPy's; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """A number, Python's or NumPy's; True and False are none."""
    return is_whole(value) or isinstance(value, float | np.floating)


def is_finite(value: Any) -> bool:
    """Whether a number fits a float and is neither infinite nor NaN."""
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _within(column: Sequence[Any], low: int, high: int) -> bool:
    return bool(low <= min(column) and max(column) <= high)


def _span(low: int, high: int) -> str:
    return "" if (low, high) == (-MAX_ID, MAX_ID) else f" from {low} to {high}"


def _as_float(column: Sequence[Any]) -> Float64[np.ndarray, " n"]:
    try:
        return np.array(column, dtype=np.float64)
    except OverflowError:
        return np.full(len(column), np.inf)


def _box_fault(box: object) -> str | None:
    if type(box) is not list or len(box) != 4 or not all(map(is_number, box)):
        return f"bbox is {quoted(box)}, expected [x, y, width, height] in pixels"
    if not all(is_finite(value) and abs(value) < FARTHEST for value in box):
        return f"bbox is {quoted(box)}, expected finite pixels"
    if box[2] < 0 or box[3] < 0:
        return f"bbox is {quoted(box)}, its width or height is negative"
    return None
