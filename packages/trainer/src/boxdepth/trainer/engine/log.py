"""Where numbers go: `metrics.jsonl` always, TensorBoard if it is there."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final


@final
class MetricsWriter:
    """Appends one JSON object a line; a resumed run drops the lines of steps it repeats."""

    def __init__(self, folder: Path, *, start: int, tensorboard: bool = True) -> None:
        self._path = folder / "metrics.jsonl"
        _drop_repeated(self._path, start)
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
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # the last line of a killed run may be half
    return rows


def _drop_repeated(path: Path, start: int) -> None:
    if not path.is_file():
        return
    kept = [row for row in read_metrics(path.parent) if row["iteration"] <= start]
    temporary = path.with_suffix(".partial")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    os.replace(temporary, path)


def _tensorboard(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=start + 1)
