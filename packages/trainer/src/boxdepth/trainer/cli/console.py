"""What a run looks like while it runs: a live bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import TracebackType
from typing import final

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

BLOCKS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 40
PLAIN_SECONDS = 15.0
"""Least time between two plain lines."""


@final
class RunDisplay:
    """Listens to a run and shows it."""

    def __init__(self, console: Console, *, name: str, stop: int, moves: bool, live: bool) -> None:
        self._console, self._stop, self._moves = console, stop, moves
        self._totals: list[float] = []
        self._numbers: Mapping[str, float] = {}
        self._said = 0.0
        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}", style="dim", markup=False),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task(name, total=stop, speed="", start=False)
        self._live = Live(console=console, refresh_per_second=4, transient=True) if live else None

    def __enter__(self) -> "RunDisplay":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def on_step(self, step: int) -> None:
        """Move the bar; its speed is measured from the first step that is seen."""
        if self._live is not None:
            if not self._bar.tasks[0].started:
                self._bar.reset(self._task, completed=step - 1)
            self._bar.update(self._task, completed=step)
            self._live.update(self._picture())

    def on_report(self, step: int, numbers: Mapping[str, float]) -> None:
        """New means: redraw them, or print a line now and then."""
        self._numbers = numbers
        self._totals.append(numbers.get("total_loss", float("nan")))
        if self._moves:  # the end of a run that has to end in time
            self._stop = int(numbers.get("iterations_planned", self._stop))
            self._bar.update(self._task, total=self._stop)
        if self._live is not None:
            speed = f"{numbers['images_per_second']:.1f} img/s"
            self._bar.update(self._task, completed=step, speed=speed)
            self._live.update(self._picture())
        else:
            now = time.monotonic()
            if now - self._said >= PLAIN_SECONDS or step == self._stop:
                self._said = now
                self._console.print(_line(step, self._stop, numbers), markup=False, soft_wrap=True)

    def on_note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(f"  {text}", markup=False, soft_wrap=True)

    def _picture(self) -> Group:
        table = Table.grid(padding=(0, 2))
        losses = {n.partition("/")[2]: v for n, v in self._numbers.items() if n[:7] == "losses/"}
        for _ in losses:
            table.add_column(justify="right")
        table.add_row(*(Text(name, style="dim") for name in losses))
        table.add_row(*(f"{value:.3f}" for value in losses.values()))
        rate = self._numbers.get("learning_rate")
        curve = Text(sparkline(self._totals, CURVE_WIDTH), style="cyan")
        tail = f"  loss {self._totals[-1]:.3f}   learning rate {rate:.2g}" if rate else "  ..."
        return Group(self._bar, table, curve.append(tail, style="default"))


def sparkline(values: Sequence[float], width: int) -> str:
    """The newest part of a curve in one line of blocks, scaled between its least and largest."""
    if not values:
        return ""
    bins = min(width, len(values))
    edges = [round(k * len(values) / bins) for k in range(bins + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    finite = [v for v in means if v == v and abs(v) != float("inf")]
    if not finite:
        return ""
    low, span = min(finite), max(max(finite) - min(finite), 1e-12)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round(top * (v - low) / span)] if v in finite else " " for v in means)


def closing_panel(rows: Mapping[str, str], *, title: str) -> Panel:
    """A run's end: what came out and where it lies."""
    head = Text(title, style="bold")
    return Panel(named_rows(rows), title=head, title_align="left", border_style="green", padding=1)


def named_rows(rows: Mapping[str, str]) -> Table:
    """A value a line, its name before it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(Text(name), Text(value))
    return table


def percents(numbers: Mapping[str, float | None], titles: Mapping[str, str]) -> str:
    """Those of the numbers that are there, by their titles."""
    told = [(title, numbers.get(key)) for key, title in titles.items()]
    return "  ".join(f"{title} {100 * ap:.1f}" for title, ap in told if ap is not None)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _line(step: int, stop: int, numbers: Mapping[str, float]) -> str:
    losses = " ".join(
        f"{n.partition('/')[2]}={v:.3f}" for n, v in numbers.items() if n.startswith("losses/")
    )
    speed = numbers.get("images_per_second", 0.0)
    return (
        f"{step}/{stop} loss={numbers.get('total_loss', float('nan')):.3f} {losses} "
        f"lr={numbers['learning_rate']:.2g} {speed:.1f} img/s"
    )
