"""Experiment trackers of other people: asked for by name, imported only then."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, final

import numpy as np
from jaxtyping import UInt8

from boxdepth.trainer.errors import MissingPackageError

Name = Literal["wandb", "mlflow"]
Picture = UInt8[np.ndarray, "h w 3"]


class Tracker(Protocol):
    """What is told the numbers and pictures of a run."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers after so many steps."""

    def show(self, step: int, pictures: Mapping[str, Picture]) -> None:
        """Pictures after so many steps, by name."""

    def close(self) -> None:
        """The process ends; the run may be resumed."""


@final
class Wandb:
    """Weights & Biases; `WANDB_MODE=offline` keeps everything in the run folder."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._wandb = imported("wandb")
        self._run = self._wandb.init(
            project="boxdepth",
            name=folder.name,
            id=folder.name,
            dir=str(folder),
            config=dict(config),
            resume="allow",
        )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers after so many steps."""
        self._run.log(dict(numbers), step=step)

    def show(self, step: int, pictures: Mapping[str, Picture]) -> None:
        """Pictures after so many steps, by name."""
        shown = {f"samples/{name}": self._wandb.Image(made) for name, made in pictures.items()}
        self._run.log(shown, step=step)

    def close(self) -> None:
        """Everything is handed over."""
        self._run.finish()


@final
class Mlflow:
    """MLflow, where `MLFLOW_TRACKING_URI` says; by default a file store beside the run folder."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._mlflow = imported("mlflow")
        self._mlflow.set_experiment("boxdepth")
        known = folder / "mlflow.id"
        run_id = known.read_text("utf-8").strip() if known.is_file() else None
        run = self._mlflow.start_run(run_id=run_id, run_name=folder.name)
        known.write_text(str(run.info.run_id), encoding="utf-8")
        if run_id is None:
            self._mlflow.log_dict(dict(config), "config.json")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers after so many steps."""
        self._mlflow.log_metrics(dict(numbers), step=step)

    def show(self, step: int, pictures: Mapping[str, Picture]) -> None:
        """Pictures after so many steps, by name."""
        for name, made in pictures.items():
            self._mlflow.log_image(made, artifact_file=f"samples/{name}-{step:07d}.png")

    def close(self) -> None:
        """Everything is handed over."""
        self._mlflow.end_run()


TRACKERS: Mapping[Name, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "wandb": Wandb,
    "mlflow": Mlflow,
}


def imported(name: str) -> Any:
    """A package that only those have who want it.

    Raises:
        MissingPackageError: it is not installed; says how it is.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"checkpoints.track names {name}, which is not installed ({error}): "
            f"`pip install {name}`, or leave it out (metrics.jsonl and metrics.csv are always "
            "written)"
        ) from error


def check_trackers(names: Sequence[Name]) -> None:
    """Say before a run what it would miss.

    Raises:
        MissingPackageError: a tracker whose package is not installed.
    """
    for name in names:
        imported(name)
