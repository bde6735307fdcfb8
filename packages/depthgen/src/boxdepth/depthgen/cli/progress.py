"""Progress on a terminal as a bar, elsewhere as a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from boxdepth.depthgen.cli.app import console, interactive, say

_SECONDS_BETWEEN_LINES = 15.0


class _Rate(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("-- /s" if speed is None else f"{speed:.1f} /s", style="progress.data.speed")


@contextmanager
def show_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function to be called with (done, total), shown as the place allows."""
    if interactive():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        yield _lines(what)


def _lines(what: str) -> Callable[[int, int], None]:
    started = time.monotonic()
    last, first = started, -1

    def tell(done: int, total: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        if first < 0:
            first = done
        if done < total and now - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = (done - first) / max(now - started, 1e-9)
        left = f", about {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        say(f"{what}: {done}/{total}{f', {rate:.1f}/s' if rate > 0 else ''}{left}")

    return tell
