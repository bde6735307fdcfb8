"""Where numbers go: `metrics.jsonl` always, TensorBoard if it is there."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final


@final
class MetricsWriter:
    """Appends one JSON object a line; a resumed run drops the lines of steps it repeats.

    Args:
        start: steps done.
        without_scores: the evaluation after ``start`` steps is repeated, too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        start: int,
        without_scores: bool = False,
        tensorboard: bool = True,
    ) -> None:
        self._path = folder / "metrics.jsonl"
        _drop_repeated(self._path, start, without_scores=without_scores)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _tensorboard(folder, start) if tensorboard else None

    def close(self) -> None:
        """To disk, and done."""
        self._file.close()
        if self._board is not None:
            self._board.close()

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
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)


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
