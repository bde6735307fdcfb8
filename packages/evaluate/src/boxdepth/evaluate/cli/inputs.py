"""Which files a command is about: named ones, a run folder's, or the newest run's."""

from dataclasses import dataclass
from pathlib import Path

from boxdepth.evaluate.results import DataError, UsageError, load_json

RUNS = Path("runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Results and the annotations to score them with.

    Attributes:
        predictions: a JSON file, or a folder of official Cityscapes results.
        run: the run folder they were found in, None where both were named.
    """

    predictions: Path
    annotations: Path
    run: Path | None


def find_inputs(run: Path | None, predictions: Path | None, annotations: Path | None) -> Inputs:
    """The files meant by `--run`, `--predictions` and `--annotations`.

    Raises:
        UsageError: too much or too little was named.
        DataError: the run folder lacks what was to be found in it.
    """
    if run is not None and predictions is not None:
        raise UsageError(
            "--run and --predictions exclude each other: a run has its own predictions."
        )
    if predictions is not None:
        if annotations is None:
            raise UsageError("--predictions needs --annotations, the COCO file to score against.")
        return Inputs(predictions=predictions, annotations=annotations, run=None)
    folder = run if run is not None else newest_run(RUNS)
    found = folder / "predictions.json"
    if not found.is_file():
        raise DataError(
            f"{found}: no such file. Write it with `trainer predict {folder} ... --out {found}`."
        )
    return Inputs(predictions=found, annotations=annotations or _recorded(folder), run=folder)


def newest_run(runs: Path) -> Path:
    """The run folder whose predictions were written last."""
    found = sorted(runs.glob("*/predictions.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UsageError(
            f"there is no run with predictions in {runs.absolute()}. Name what to score: "
            "--run FOLDER, or --predictions FILE --annotations FILE."
        )
    return found[-1].parent


def _recorded(folder: Path) -> Path:
    record = folder / "run.json"
    document = load_json(record) if record.is_file() else {}
    name = document.get("val_annotations") if isinstance(document, dict) else None
    if not isinstance(name, str) or not name:
        raise UsageError(
            f"{record} does not say which annotations the run was validated on "
            "(key val_annotations). Name them: --annotations FILE."
        )
    path = Path(name)
    if not path.is_absolute() and not path.exists():
        path = folder / path
    if not path.is_file():
        raise DataError(
            f"{record}: val_annotations names {name}, which is not there. Pass --annotations."
        )
    return path
