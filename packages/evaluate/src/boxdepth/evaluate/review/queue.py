"""Which masks to look at first: those of lowest quality."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def worth(record: Mapping[str, Any]) -> float | None:
    """A mask's `quality`, else its `score`; None where neither is a finite number."""
    for key in ("quality", "score"):
        value = record.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def review_order(records: Sequence[Mapping[str, Any]], rows: Sequence[int]) -> list[int]:
    """`rows` by rising worth; those without any come last, in their own order."""

    def key(row: int) -> tuple[bool, float]:
        value = worth(records[row])
        return value is None, value or 0.0

    return sorted(rows, key=key)
