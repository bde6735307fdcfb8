"""A run in numbers, as its folder tells them."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxdepth.depthgen.store import DataError
from boxdepth.trainer.engine.evaluations import PREDICTIONS, REPORT, read_evaluation
from boxdepth.trainer.engine.log import read_metrics
from boxdepth.trainer.engine.monitors import MATCHING_SCORE, complaints
from boxdepth.trainer.engine.run_folder import read_json
from boxdepth.trainer.runs.provenance import RUN


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run has come to."""

    folder: Path
    name: str
    step: int
    reports: tuple[dict[str, Any], ...]
    """Rows of ``metrics.jsonl`` with losses."""
    evaluations: tuple[dict[str, Any], ...]
    """Rows of ``metrics.jsonl`` with an AP."""
    complaints: tuple[str, ...]
    """What looks unhealthy in the last report, in words."""
    notes: tuple[str, ...]
    """What else a person should know."""

    @property
    def losses(self) -> dict[str, float]:
        """Of the last report."""
        return self.reports[-1]["losses"] if self.reports else {}

    @property
    def monitors(self) -> dict[str, float]:
        """Of the last report."""
        return self.reports[-1].get("monitors", {}) if self.reports else {}

    @property
    def health(self) -> dict[str, float]:
        """The monitors of the last report that say something, without the histogram."""
        told = {k: v for k, v in self.monitors.items() if v is not None}
        return {k: v for k, v in told.items() if not k.startswith(MATCHING_SCORE)}

    @property
    def matching_scores(self) -> list[float]:
        """Histogram of the matching scores of the last report, from 0 to 1."""
        found = [v for k, v in self.monitors.items() if k.startswith(MATCHING_SCORE)]
        return [value for value in found if value is not None]

    @property
    def speed(self) -> float | None:
        """Images a second, the median of all reports."""
        found = [row["images_per_second"] for row in self.reports if row.get("images_per_second")]
        return statistics.median(found) if found else None

    def course(self, loss: str) -> list[float]:
        """A loss in every report that has it."""
        return [v for row in self.reports if (v := row["losses"].get(loss)) is not None]

    def to_json(self) -> dict[str, Any]:
        """Numbers, text and lists."""
        return {
            "run": str(self.folder),
            "iterations": self.step,
            "losses": self.losses,
            "monitors": self.monitors,
            "complaints": list(self.complaints),
            "val": [{"iteration": r["iteration"], **r["val"]} for r in self.evaluations],
        }


def summarise(run: Path) -> RunSummary:
    """Read what a run wrote while it ran.

    Raises:
        DataError: no run folder, or nothing in it yet.
        RunFileError: a file that somebody spoilt.
    """
    rows = read_metrics(run)
    if not rows:
        raise DataError(f"{run}: no metrics.jsonl with numbers; is it a run folder?")
    config = _section(read_json(run / RUN), "config")
    reports = tuple(row for row in rows if "losses" in row)
    step = rows[-1]["iteration"]
    return RunSummary(
        folder=run,
        name=str(config.get("name", run.name)),
        step=step,
        reports=reports,
        evaluations=tuple(row for row in rows if "val" in row),
        complaints=tuple(_unhealthy(reports, config)),
        notes=tuple(_outdated(run, step)),
    )


def _unhealthy(reports: tuple[dict[str, Any], ...], config: dict[str, Any]) -> list[str]:
    """Nothing while warm-ups last."""
    warmup = _section(config, "losses").get("warmup_iterations", 0)
    if not reports or reports[-1]["iteration"] < 2 * warmup:
        return []
    monitors = reports[-1].get("monitors", {})
    return complaints({k: v for k, v in monitors.items() if v is not None})


def _outdated(run: Path, step: int) -> list[str]:
    evaluated = read_evaluation(run)
    if evaluated is None or evaluated.step >= step:
        return []
    return [
        f"{PREDICTIONS} and {REPORT} are of iteration {evaluated.step}; `trainer fit --resume` "
        "evaluates when it is due"
    ]


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}
