"""Fields of COCO-format records, as ``docs/input-fields.md`` has it: taken, mended, or refused."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

LARGEST_ID: Final = 1 << 53
"""Floats hold no larger whole number exactly."""

MAX_SIDE: Final = 65_535
_LARGEST_COORDINATE: Final = 1e9
_LARGEST_AREA: Final = 1e15
_SHOWN: Final = 60
_DIGITS: Final = re.compile(r" *[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)? *")
_CROWD_TEXTS: Final = {
    "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True,
}  # fmt: skip
_IRREGULAR: Final = {"category": "categories", "class": "classes", "box": "boxes"}


class Notes:
    """Counts what had to be mended, by kind of record and field.

    A note of a record counts once the record is ``kept``: what is refused is told elsewhere.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._of_record: list[str] = []

    def record(self, text: str) -> None:
        """Note something of the record that is being read."""
        self._of_record.append(text)

    def settle(self, kind: str, *, kept: bool) -> None:
        """End a record of this kind (``annotation``, ``image``, ``category``)."""
        if kept:
            self._counts.update((kind, text) for text in set(self._of_record))
        self._of_record.clear()

    def add(self, kind: str, text: str, count: int = 1) -> None:
        """Count something that is not of one record's fields."""
        if count:
            self._counts[kind, text] += count

    def lines(self) -> tuple[str, ...]:
        """One line a kind of note: ``12 annotations: iscrowd written as text``."""
        return tuple(
            f"{count} {kind if count == 1 else _IRREGULAR.get(kind, f'{kind}s')}: {text}"
            for (kind, text), count in self._counts.items()
        )


def whole_id(record: Mapping[str, Any], key: str, notes: Notes) -> int:
    """The id at ``key``.

    Raises:
        ValueError: Missing, no whole number, or beyond 2^53.
    """
    value = record.get(key)
    if type(value) is not int:
        value = _number(value, key=key, notes=notes)
        if value is None or (isinstance(value, float) and not value.is_integer()):
            raise ValueError(f"{key} is {shown(record.get(key))}, a whole number is expected")
        value = int(value)
    if not -LARGEST_ID <= value <= LARGEST_ID:
        raise ValueError(
            f"{key} is {shown(record.get(key))}, ids from -2^53 to 2^53 can be kept apart; "
            "number the records anew"
        )
    return value


def side(record: Mapping[str, Any], key: str, notes: Notes) -> int:
    """``height`` or ``width`` in pixels.

    Raises:
        ValueError: No whole number from 1 to 65,535.
    """
    value = _number(record.get(key), key=key, notes=notes)
    if value is None or value != math.floor(value) or not 1 <= value <= MAX_SIDE:
        raise ValueError(
            f"{key} is {shown(record.get(key))}, a whole number of pixels from 1 to {MAX_SIDE} "
            "is expected"
        )
    return int(value)


def bbox(record: Mapping[str, Any], notes: Notes) -> list[float] | None:
    """The box as [x, y, width, height]; ``None`` where the record has none.

    Raises:
        ValueError: Other than four numbers, out of range, or a negative side.
    """
    value = record.get("bbox")
    if value is None or value == []:
        return None
    numbers = (
        [_number(item, key="bbox", notes=notes) for item in value]
        if isinstance(value, list) and len(value) == 4
        else []
    )
    found = [float(item) for item in numbers if item is not None]
    if len(found) != 4 or max(abs(item) for item in found) > _LARGEST_COORDINATE:
        raise ValueError(
            f"bbox is {shown(value)}, four numbers [x, y, width, height] within 1e9 pixels are "
            "expected"
        )
    if found[2] < 0 or found[3] < 0:
        raise ValueError(
            f"bbox is {shown(value)}, its width and height are negative where lengths are "
            "expected; COCO boxes are [x, y, width, height]"
        )
    return found


def area(record: Mapping[str, Any], notes: Notes) -> float | None:
    """The annotated area in square pixels; ``None`` where the record has none.

    Raises:
        ValueError: No finite number from 0 to 1e15.
    """
    value = record.get("area")
    if value is None:
        return None
    number = _number(value, key="area", notes=notes)
    if number is None or not 0 <= number <= _LARGEST_AREA:
        raise ValueError(f"area is {shown(value)}, a number from 0 to 1e15 is expected")
    return float(number)


def crowd(record: Mapping[str, Any], notes: Notes) -> bool:
    """Whether the record marks a group.

    Raises:
        ValueError: Neither 0 nor 1 in any of their spellings.
    """
    value = record.get("iscrowd", 0)
    if value is None:
        notes.record("iscrowd null, taken as 0")
        return False
    if isinstance(value, str) and value.strip(" ") in _CROWD_TEXTS:
        notes.record("iscrowd written as text")
        return _CROWD_TEXTS[value.strip(" ")]
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise ValueError(f"iscrowd is {shown(value)}, 0 or 1 is expected")


def category_name(record: Mapping[str, Any], number: int, notes: Notes) -> str:
    """The name of a class; ``category <id>`` where it has none.

    Raises:
        ValueError: Neither text nor number.
    """
    value = record.get("name")
    if value is None or value == "":
        notes.record("without a name, called category <id>")
        return f"category {number}"
    if isinstance(value, str):
        return value
    if _plain(value) is not None:
        notes.record("name written as a number")
        return str(value)
    raise ValueError(f"name is {shown(value)}, a text is expected")


def finite(value: object, *, name: str) -> float:
    """``value`` as a finite number.

    Raises:
        ValueError: It is not one.
    """
    number = _plain(value)
    if number is None:
        raise ValueError(f"{name} is {shown(value)}, a finite number is expected")
    return float(number)


def shown(value: object) -> str:
    """A value as messages show it: all of it, unless it is long."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def _number(value: object, *, key: str, notes: Notes) -> int | float | None:
    """A finite number, from text if need be; ``None`` for everything else."""
    if not isinstance(value, str):
        return _plain(value)
    if not _DIGITS.fullmatch(value):
        return None
    try:
        exact = Decimal(value.strip(" "))
    except InvalidOperation:  # an exponent beyond all reason
        return None
    if not math.isfinite(float(exact)):
        return None
    notes.record(f"{key} written as text")
    # Not by way of float: an id of 2^53 + 1 must not become 2^53.
    return int(exact) if abs(exact.adjusted()) < _SHOWN and exact == int(exact) else float(exact)


def _plain(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # more digits than a float holds
        return None
