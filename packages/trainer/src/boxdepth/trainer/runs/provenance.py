"""What a run says about itself: in its folder, and in every checkpoint."""

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from boxdepth.trainer import build
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.data.store_dataset import TrainingSet
from boxdepth.trainer.engine.checkpoint import BEST, LATEST
from boxdepth.trainer.engine.evaluations import EVALUATION, PREDICTIONS, REPORT
from boxdepth.trainer.engine.run_folder import write_json
from boxdepth.trainer.runs.start import CONFIG

RUN = "run.json"
OURS = (
    CONFIG,
    RUN,
    LATEST,
    BEST,
    "metrics.jsonl",
    "metrics.csv",
    "mlflow.id",
    PREDICTIONS,
    REPORT,
    EVALUATION,
)
PACKAGES = ("boxdepth-trainer", "boxdepth-depthgen", "torch", "torchvision", "timm", "numpy")


def start_folder(folder: Path, config: RunConfig, train: TrainingSet, *, command: str) -> None:
    """Write what the run is into its folder."""
    write_json(folder / CONFIG, config.model_dump(mode="json"))
    annotations = config.data.val_annotations
    write_json(
        folder / RUN,
        {
            "command": command,
            **about(config, train),
            "val_annotations": str(annotations.absolute()) if annotations else None,
        },
    )


def remove_run(folder: Path) -> None:
    """Delete what an earlier run left in a folder, and nothing else."""
    for name in OURS:
        (folder / name).unlink(missing_ok=True)
    for path in [folder / "checkpoints", folder / "samples", *folder.glob("events.*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def about(config: RunConfig, train: TrainingSet) -> dict[str, Any]:
    """What a checkpoint says about its run; nothing in it tells of this machine's folders."""
    data = {"train": None, "val": None, "val_annotations": None}
    backbone = config.model.backbone.changed(weights=None)
    portable = config.changed(
        data=config.data.changed(**data), model=config.model.changed(backbone=backbone)
    )
    attributes = train.store.attributes
    return {
        "config": portable.model_dump(mode="json"),
        "config_sha256": build.config_digest(portable),
        "categories": [{"id": c.id, "name": c.name} for c in attributes.categories],
        "data": {
            "dataset": attributes.dataset,
            "split": attributes.split,
            "train_fingerprint": train.store.fingerprint,
            "depth": dict(attributes.generator),
        },
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of Python, the machine's architecture and the packages that decide what is learnt."""
    found = {"python": sys.version.split()[0], "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
