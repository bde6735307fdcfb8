"""Millions of rows: built without the garbage collector, grown and sorted where they lie."""

import functools
import gc
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

import numpy as np

from boxdepth.evaluate.results.arrays import Int64

# Rows that a growing table has room for beyond those it holds, at least.
_SPARE = 2**14
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def without_collector(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The same function with cyclic garbage collection paused, if it was on.

    None of these objects takes part in a cycle, and every few hundred new ones the collector would
    visit all of them: a third of the time that a large results file takes.
    """

    @functools.wraps(function)
    def paused(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if not gc.isenabled():
            return function(*args, **kwargs)
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            gc.enable()

    return paused


class Growing:
    """Columns of a table that rows are put behind. They grow where they lie: none stands twice.

    Attributes:
        count: rows so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._columns: dict[str, np.ndarray] = {}

    def add(self, count: int, columns: Mapping[str, np.ndarray]) -> None:
        """Put `count` rows behind; columns that are not given are 0 there."""
        begin, self.count = self.count, self.count + count
        for name, rows in columns.items():
            held = self._columns.setdefault(name, np.zeros((0, *rows.shape[1:]), rows.dtype))
            if self.count > len(held):
                _resize(held, self.count + max(self.count // 8, _SPARE))
            held[begin : self.count] = rows

    def columns(self) -> dict[str, np.ndarray]:
        """All that was given; nothing may be added any more."""
        for held in self._columns.values():
            _resize(held, self.count)
        return self._columns


def _resize(rows: np.ndarray, count: int) -> None:
    rows.resize((count, *rows.shape[1:]), refcheck=False)


def arrange(rows: np.ndarray, order: Int64[np.ndarray, " n"]) -> None:
    """Bring rows into that order, in place."""
    moved = np.flatnonzero(order != np.arange(len(order)))
    rows[moved] = rows[order[moved]]
