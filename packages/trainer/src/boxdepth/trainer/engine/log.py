"""Where numbers go: `metrics.jsonl` and `metrics.csv` always, TensorBoard if it is there, and the
experiment trackers that a run names."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from boxdepth.trainer.engine.trackers import Picture, Tracker


@final
class MetricsWriter:
    """Appends one JSON object a line; a resumed run drops the lines of steps it repeats.

    Args:
        start: steps done.
        without_scores: the evaluation after ``start`` steps is repeated, too.
        trackers: who else is told; closed with it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        start: int,
        without_scores: bool = False,
        tensorboard: bool = True,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self._path = folder / "metrics.jsonl"
        _drop_repeated(self._path, start, without_scores=without_scores)
        self._file = self._path.open("a", encoding="utf-8")
        self._table = _Table(folder)
        self._trackers = tuple(trackers)
        self._board = _tensorboard(folder, start) if tensorboard else None

    def close(self) -> None:
        """To disk, and done."""
        self._file.close()
        if self._board is not None:
            self._board.close()
        for tracker in self._trackers:
            tracker.close()

    def show(self, step: int, pictures: Mapping[str, Picture]) -> None:
        """Pictures after ``step`` iterations, by name."""
        if self._board is not None:
            for name, pixels in pictures.items():
                self._board.add_image(f"samples/{name}", pixels, step, dataformats="HWC")
        for tracker in self._trackers:
            tracker.show(step, pictures)

    def write(self, step: int, numbers: Mapping[str, float | int]) -> None:
        """The numbers after ``step`` iterations; what is not finite is written as null.

        A name with a slash goes one level down: ``losses/color`` to ``{"losses": {"color": ...}}``.
        """
        row: dict[str, Any] = {"iteration": step}
        for name, value in numbers.items():
            group, slash, leaf = name.partition("/")
            section = row.setdefault(group, {}) if slash else row
            section[leaf if slash else group] = value if math.isfinite(value) else None
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        self._table.add(row)
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        for tracker in self._trackers:
            tracker.log(step, finite)
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)


class _Table:
    """`metrics.csv`: the rows of `metrics.jsonl`, one column a number."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "metrics.csv"
        self._columns: list[str] = []
        self._rewrite()

    def add(self, row: Mapping[str, Any]) -> None:
        cells = flat(row)
        if not set(cells) <= set(self._columns):
            self._rewrite()  # a new column: the row is in metrics.jsonl by now
            return
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(cells)

    def _rewrite(self) -> None:
        rows = [flat(row) for row in read_metrics(self._folder)]
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        with self._path.open("w", encoding="utf-8", newline="") as file:
            if rows:
                writer = csv.DictWriter(file, self._columns, restval="")
                writer.writeheader()
                writer.writerows(rows)


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """``{"losses": {"color": 1}}`` to ``{"losses/color": 1}``."""
    cells: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            cells |= {f"{name}/{leaf}": number for leaf, number in value.items()}
        else:
            cells[name] = value
    return cells


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's metrics, in order."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the last line of a killed run may be half
        if _is_row(row):
            rows.append(row)
    return rows


def _is_row(row: Any) -> bool:
    """Whether a line is as it was written: nothing that somebody typed there is taken for one."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("iteration"), int)
        and all(isinstance(row.get(name, {}), dict) for name in ("losses", "monitors", "val"))
    )


def _drop_repeated(path: Path, start: int, *, without_scores: bool) -> None:
    if not path.is_file():
        return
    kept = [
        row
        for row in read_metrics(path.parent)
        if row["iteration"] < start
        or (row["iteration"] == start and not (without_scores and "val" in row))
    ]
    temporary = path.with_suffix(".partial")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    temporary.replace(path)


def _tensorboard(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=start + 1)
