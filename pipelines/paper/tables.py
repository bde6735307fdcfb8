"""The paper's tables: which run stands in which line, and what the papers report for it.

The lines stand in `tables.csv`: mask AP, AP50 and AP75 in percent. Lines without a row are other
papers' systems that don't run here; their numbers are copied from the sources named.
"""

import csv
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

FIGURES = ("ap", "ap50", "ap75")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a table."""

    title: str
    row: str | None
    """Our run; None: quoted only."""
    backbone: str
    schedule: str
    paper: tuple[float | None, ...]
    """AP, AP50, AP75; None where no number is at hand."""
    source: str
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """One table."""

    number: str
    title: str
    split: str
    """What the paper's numbers were measured on."""
    lines: tuple[Line, ...]


ABOUT = {
    "1": ("COCO, comparison of systems", "test-dev"),
    "2": ("Cityscapes", "val"),
    "3a": ("Loss terms, without distillation", "val2017"),
    "3b": ("Depth threshold tau_d, without distillation", "val2017"),
    "3c": ("Teacher's size and matching", "val2017"),
    "3d": ("Weight gamma of the pseudo-mask loss", "val2017"),
}


def _line(cells: dict[str, str]) -> Line:
    return Line(
        title=cells["method"],
        row=cells["row"] or None,
        paper=tuple(float(cells[key]) if cells[key] else None for key in FIGURES),
        **{key: cells[key] for key in ("backbone", "schedule", "source", "remark")},
    )


def _tables() -> dict[str, PaperTable]:
    with (Path(__file__).parent / "tables.csv").open(encoding="utf-8", newline="") as file:
        groups = groupby(csv.DictReader(file), key=lambda cells: cells["table"])
        lines = {number: tuple(map(_line, group)) for number, group in groups}
    return {
        number: PaperTable(number=number, title=title, split=split, lines=lines[number])
        for number, (title, split) in ABOUT.items()
    }


TABLES = _tables()
