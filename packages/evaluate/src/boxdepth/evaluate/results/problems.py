"""The error families of this package, and the collector that reports a whole file at once."""

from dataclasses import dataclass, field

MAX_SHOWN = 20


class EvaluateError(Exception):
    """Something a person can cause and mend; `exit_code` is the command's."""

    exit_code = 1


class UsageError(EvaluateError, ValueError):
    """The request cannot be met as it was made: contradicting or missing options."""

    exit_code = 2


class DataError(EvaluateError, ValueError):
    """A file holds something that would make the score wrong; the message names each place."""

    exit_code = 3


class GateError(EvaluateError):
    """The score is right, and not good enough for the gate that was asked for."""

    exit_code = 4


class MissingExtraError(EvaluateError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    exit_code = 5


def quoted(value: object) -> str:
    """A value from an untrusted file in at most 80 printable ASCII characters."""
    try:
        text = ascii(value)
    except (RecursionError, ValueError):  # nested too deep, or a number of thousands of digits
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= 80 else text[:60] + f"... ({len(text)} characters)"


@dataclass(slots=True, kw_only=True)
class Problems:
    """What is wrong with one file, collected so that a person mends it in one round.

    Attributes:
        source: the file (or the word for a document in memory) every line is about.
    """

    source: str
    lines: list[str] = field(default_factory=list)
    count: int = 0
    unseen: int = 0

    def add(self, where: str, what: str, *, count: int = 1) -> None:
        """Note `count` problems in one line.

        Args:
            where: names the record.
            what: says what was seen, what was expected, and the cure.
            count: how many records the line stands for.
        """
        self.count += count
        if len(self.lines) < MAX_SHOWN:
            self.lines.append(f"{where}: {what}")
        else:
            self.unseen += count

    def raise_if_any(self) -> None:
        """Raise one `DataError` with the first problems and their number, or do nothing."""
        if self.count == 0:
            return
        head = f"{self.source}: {self.count} problem{'s' if self.count > 1 else ''}"
        shown = "".join(f"\n  {line}" for line in self.lines)
        tail = f"\n  ... and {self.unseen} more" if self.unseen else ""
        raise DataError(f"{head}{shown}{tail}")
