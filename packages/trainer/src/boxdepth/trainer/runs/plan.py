"""What a run was asked to be, against what is there: stores, run folder, classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from boxdepth.depthgen.store import DataError, is_remote
from boxdepth.trainer import build
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides, load_config
from boxdepth.trainer.config.schedule_notes import schedule_notes
from boxdepth.trainer.data.store_dataset import TrainingSet
from boxdepth.trainer.data.validation_set import ValidationSet, open_validation_set
from boxdepth.trainer.engine.distributed import World
from boxdepth.trainer.engine.run_folder import read_json
from boxdepth.trainer.engine.trackers import check_trackers
from boxdepth.trainer.errors import ConfigError, RunExistsError
from boxdepth.trainer.predict.classes import category_ids_for
from boxdepth.trainer.runs.evaluation import truth_classes
from boxdepth.trainer.runs.provenance import RUN
from boxdepth.trainer.runs.start import CONFIG, NEW, Start

MAY_CHANGE = (
    "name", "data.train", "data.val", "data.val_annotations", "data.workers",
    "data.timeout_seconds", "inference", "checkpoints", "schedule.iterations", "compile",
)  # fmt: skip
"""Settings that a resumed run may be given anew: they change nothing of what was learnt so far.

The stores may lie elsewhere, but their fingerprints must be the same.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run that nothing stands against: everything is checked, nothing is written."""

    config: RunConfig
    folder: Path
    start: Start
    train: TrainingSet
    val: ValidationSet | None
    val_category_ids: tuple[int | None, ...]
    """Id on the val store of each class that is learnt; None: it has no such class."""
    notes: tuple[str, ...]
    """What a person should know before the first step."""
    stop_at: int
    """Iteration at which this call ends."""


def plan_run(
    config: RunConfig,
    *,
    out: Path | None = None,
    start: Start = NEW,
    max_iterations: int | None = None,
    val_may_be_absent: bool = False,
) -> Plan:
    """Everything checked that can be checked before the first step.

    Args:
        out: the run folder; None: ``runs/`` and the name of the config.
        max_iterations: stop at this iteration at the latest; the run can be resumed.
        val_may_be_absent: leave out a val store that does not exist, with a note.

    Raises:
        ConfigError: settings that contradict the store, or the run to be resumed.
        DataError: a store that can't be used.
        RunExistsError: the folder holds a run, and nothing was said about it.
    """
    if max_iterations is not None and max_iterations < 1:
        raise ConfigError(f"max_iterations {max_iterations}: expected at least 1")
    folder = out or Path("runs") / config.name
    if (folder / RUN).exists() and not (start.resumes or start.overwrites):
        raise RunExistsError(
            f"{folder} holds a run already: --resume goes on with it, --overwrite replaces it, "
            "--out puts the new one elsewhere"
        )
    check_trackers(config.checkpoints.track)
    if config.data.train is None:
        raise ConfigError("no store to learn from: give --train STORE (made by `depthgen run`)")
    train = build.training_set(config, config.data.train)
    try:
        config = build.with_classes(config, len(train.store.attributes.categories))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    absent = _absent_val(config) if val_may_be_absent else []
    if absent:
        config = apply_overrides(config, ["data.val=null"])
    val = open_validation_set(config.data.val) if config.data.val is not None else None
    _check_annotations(config)
    val_ids, notes = _val_classes(train, val, config)
    if not start.brings_weights:
        _check_frozen(config)
    if start.resumes:
        _check_same(folder, config, train)
    iterations = config.schedule.iterations
    return Plan(
        config=config,
        folder=folder,
        start=start,
        train=train,
        val=val,
        val_category_ids=val_ids,
        notes=(*absent, *notes, *schedule_notes(config)),
        stop_at=min(max_iterations or iterations, iterations),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a plan would take."""

    parameters: int
    checkpoint_bytes: int

    def to_json(self, plan: Plan) -> dict[str, Any]:
        """What would be done, and at what cost."""
        data = plan.config.data
        return {
            "run": str(plan.folder),
            "iterations": plan.stop_at,
            "train": str(data.train),
            "val": str(data.val) if data.val else None,
            "images": len(plan.train),
            "parameters": self.parameters,
            "checkpoint_bytes": self.checkpoint_bytes,
            "config": plan.config.model_dump(mode="json"),
        }


def costs(plan: Plan) -> Costs:
    """Size of the network and of one checkpoint: weights, momenta, the teacher's weights."""
    learner = build.build_learner(plan.config, torch.device("cpu"), World())
    weights = sum(p.numel() for p in learner.model.parameters())
    copies = 2 if plan.config.distillation.method == "off" else 3
    return Costs(parameters=weights, checkpoint_bytes=4 * weights * copies)


def _absent_val(config: RunConfig) -> list[str]:
    val = config.data.val
    if val is None or is_remote(val) or val.exists():
        return []
    return [f"no val store at {val}: trains without an evaluation at the end"]


def _check_frozen(config: RunConfig) -> None:
    """Frozen random weights would be a silent handicap."""
    backbone = config.model.backbone
    if backbone.weights is None and (backbone.frozen_stages or backbone.frozen_norm):
        raise ConfigError(
            f"the first stages or norms of {backbone.name} are frozen, and nothing gives them "
            "weights: --set model.backbone.weights=timm downloads ImageNet weights, "
            "--set model.backbone.weights=FILE or --init reads them; to train from random "
            "weights: --set model.backbone.frozen_stages=0 --set model.backbone.frozen_norm=false"
        )


def _val_classes(
    train: TrainingSet, val: ValidationSet | None, config: RunConfig
) -> tuple[tuple[int | None, ...], list[str]]:
    """By name: which ids predictions on the val store carry, and what a person should know."""
    if val is None:
        return (), []
    annotations = config.data.val_annotations
    classes, said = truth_classes(val, annotations)
    learnt = train.store.attributes.categories
    where = str(annotations or val.store.path)
    ids, more = category_ids_for(learnt, classes, where=where)
    return ids, [*said, *more]


def _check_annotations(config: RunConfig) -> None:
    path = config.data.val_annotations
    if path is not None and not path.is_file():
        raise DataError(f"{path}: no such annotation file (--val-annotations)")


def _check_same(folder: Path, config: RunConfig, train: TrainingSet) -> None:
    """A resumed run must be the run that was started.

    Raises:
        ConfigError: lists the settings that differ.
    """
    if not (folder / CONFIG).is_file():
        return
    before = load_config(folder / CONFIG).model_dump(mode="json")
    now = config.model_dump(mode="json")
    changed = [
        f"{path}: {was!r} then, {value!r} now"
        for path, was, value in _differences(before, now)
        if not any(path == free or path.startswith(free + ".") for free in MAY_CHANGE)
    ]
    data = read_json(folder / RUN).get("data")
    recorded = data.get("train_fingerprint") if isinstance(data, dict) else None
    if recorded not in (None, train.store.fingerprint):
        changed.append(f"data.train: {config.data.train} is not the store the run started with")
    if changed:
        raise ConfigError(
            f"{folder} was started with other settings, it can't go on with these: "
            + "; ".join(changed)
            + ". Start a new run with another --out: from its weights (--init), or from where it "
            "stands (--fork)"
        )


def _differences(before: Any, now: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            difference
            for key in {**before, **now}
            for difference in _differences(
                before.get(key), now.get(key), f"{path}.{key}".strip(".")
            )
        ]
    return [] if before == now else [(path, before, now)]
