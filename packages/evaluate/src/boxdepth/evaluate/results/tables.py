"""Results as Markdown tables, whatever names their files hold."""

from collections.abc import Iterable, Sequence


def markdown(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table: bars and line ends in cells are taken for what they are, text."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def percent(value: float | None) -> str:
    """A fraction in percent, a dash where undefined."""
    return "-" if value is None else f"{100 * value:.1f}"


def share(value: float | None) -> str:
    """A fraction with three decimals, a dash where undefined."""
    return "-" if value is None else f"{value:.3f}"


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
