"""Single fields of COCO-format JSON: used as they stand, mended with a note, or refused.

The rule is the table in docs/input-fields.md.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from boxdepth.depthgen.store import DataError

MAX_ID = 2**53
"""Floats hold every whole number up to it, and not the next."""
MAX_SIDE = 65_535
MAX_COORDINATE = 1e9
MAX_AREA = 1e15
SHOWN_PROBLEMS = 20

_NUMBER = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)? *", re.ASCII | re.IGNORECASE)
_LONGEST = 400
"""Digits; longer text is no number that a float holds."""
_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


class FieldError(ValueError):
    """A field that cannot be used; says what was found and what was expected."""


@dataclass(slots=True)
class Findings:
    """What is wrong with a file, and what was mended, gathered while it is read."""

    problems: list[str] = field(default_factory=list)
    mended: Counter[str] = field(default_factory=Counter)

    def notes(self) -> tuple[str, ...]:
        """What was mended, in words."""
        return tuple(f"{count} {what}" for what, count in self.mended.items())

    def raise_for(self, path: Path) -> None:
        """All problems of a file at once.

        Raises:
            DataError: there are some.
        """
        if self.problems:
            more = len(self.problems) - SHOWN_PROBLEMS
            lines = self.problems[:SHOWN_PROBLEMS] + ([f"... and {more} more"] if more > 0 else [])
            raise DataError(
                f"{path}: {len(self.problems)} records can't be used (docs/input-fields.md says "
                "what they may carry):\n  " + "\n  ".join(lines)
            )


@dataclass(frozen=True, slots=True)
class Reader:
    """The fields of one record of a table, read by name."""

    row: Mapping[str, Any]
    where: str
    """What the messages call the record: ``annotation 3 (id 7)``."""
    kind: str
    """What the notes call its like: ``annotations``."""
    findings: Findings

    def whole(self, name: str, *, least: int = -MAX_ID, most: int = MAX_ID) -> int:
        """A whole number; one written as a float too; its text is mended.

        Raises:
            FieldError: everything else.
        """
        value = self.row.get(name)
        found = whole_number(value)
        if found is None or not least <= found <= most:
            span = "-2^53 to 2^53" if most == MAX_ID else f"{least} to {most}"
            raise FieldError(
                f"{self._seen(name)}, expected a whole number from {span}"
                + (" (floats hold no larger one exactly)" if most == MAX_ID else "")
            )
        self._note_text(name, value)
        return found

    def number(self, name: str, *, least: float, most: float) -> float | None:
        """A finite number, or None where it is missing or null; its text is mended.

        Raises:
            FieldError: everything else.
        """
        value = self.row.get(name)
        if value is None:
            return None
        found = real_number(value)
        if found is None or not least <= found <= most:
            raise FieldError(f"{self._seen(name)}, expected a number from {least:g} to {most:g}")
        self._note_text(name, value)
        return found

    def flag(self, name: str) -> bool:
        """0 or 1, in every spelling of the table; False where it is missing.

        Raises:
            FieldError: everything else.
        """
        value = self.row.get(name, False)
        if value is None:
            self.findings.mended[f"{self.kind}: {name} written as null (taken as 0)"] += 1
            return False
        if isinstance(value, bool | int | float) and value in (0, 1):
            return bool(value)
        if isinstance(value, str) and value.strip(" ").lower() in _FLAGS:
            self._note_text(name, value)
            return _FLAGS[value.strip(" ").lower()]
        raise FieldError(f"{self._seen(name)}, expected 0 or 1")

    def xywh(self, name: str) -> tuple[float, float, float, float] | None:
        """A box in pixels, or None where there is none: missing, null or empty.

        Raises:
            FieldError: other lengths, numbers that are not finite or beyond 1e9, negative sides.
        """
        value = self.row.get(name)
        if value is None or value == []:
            return None
        sides = [real_number(side) for side in value] if isinstance(value, list) else []
        fits = [side for side in sides if side is not None and abs(side) <= MAX_COORDINATE]
        if len(sides) != 4 or len(fits) != 4 or fits[2] < 0 or fits[3] < 0:
            raise FieldError(
                f"{self._seen(name)}, expected [x, y, width, height] in pixels, finite and within "
                "1e9, width and height not negative"
            )
        if any(isinstance(side, str) for side in value):
            self.findings.mended[f"{self.kind}: {name} written as text"] += 1
        return fits[0], fits[1], fits[2], fits[3]

    def name(self, name: str, *, otherwise: str) -> str:
        """A text; a number becomes its text, nothing becomes ``otherwise``.

        Raises:
            FieldError: neither text nor number.
        """
        value = self.row.get(name)
        if value is None or value == "":
            self.findings.mended[f"{self.kind}: {name} missing (named by their ids)"] += 1
            return otherwise
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.findings.mended[f"{self.kind}: {name} written as a number"] += 1
            return str(value)
        raise FieldError(f"{self._seen(name)}, expected text")

    def text(self, name: str) -> str | None:
        """A text, or None where it is missing, null or empty.

        Raises:
            FieldError: no text.
        """
        value = self.row.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise FieldError(f"{self._seen(name)}, expected text")
        return value

    def _seen(self, name: str) -> str:
        if name not in self.row:
            return f"{self.where}: {name} is missing"
        return f"{self.where}: {name} is {quoted(self.row[name])}"

    def _note_text(self, name: str, value: object) -> None:
        if isinstance(value, str):
            self.findings.mended[f"{self.kind}: {name} written as text"] += 1


def whole_number(value: object) -> int | None:
    """The whole number that a JSON value stands for, or None; text counts."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and len(value) <= _LONGEST and _NUMBER.fullmatch(value):
        exact = Decimal(value.strip(" "))
        small = exact.adjusted() <= 20
        return int(exact) if small and exact == exact.to_integral_value() else None
    return None


def real_number(value: object) -> float | None:
    """The finite number that a JSON value stands for, or None; text counts."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if len(value) > _LONGEST or not _NUMBER.fullmatch(value):
            return None
        value = float(value)
    if not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def quoted(value: object) -> str:
    """A JSON value as the file has it, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (RecursionError, ValueError, TypeError):
        text = f"a nested {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_json_document(path: Path) -> Any:
    """A JSON file from a stranger.

    Whole numbers beyond any float become infinity, whatever their length, and are refused where
    they stand in a field that is read.

    Raises:
        DataError: not readable, not UTF-8, or no JSON.
        OSError: the machine is at fault, not the file.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError(f"{path}: {error.strerror}; expected a JSON file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no UTF-8 text at byte {error.start}; expected JSON") from error
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError as error:
        raise DataError(f"{path}: brackets nest too deep; this is no COCO file") from error
    except ValueError as error:
        raise DataError(f"{path}: not readable as JSON: {error}") from error


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST // 2 else float(digits)
