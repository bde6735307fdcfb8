"""What `trainer fit` was asked for, against what is there: stores, run folder, weights."""

import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor

from boxdepth.depthgen.store import Category, DataError, is_remote
from boxdepth.trainer import assemble
from boxdepth.trainer.cli.app import say
from boxdepth.trainer.cli.evaluation import category_ids_for, truth_classes
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import (
    ConfigError,
    apply_overrides,
    choose_preset,
    load_config,
)
from boxdepth.trainer.config.schedule_notes import schedule_notes
from boxdepth.trainer.data.categories import listed, rows_by_name, same_classes, shown
from boxdepth.trainer.data.store_dataset import TrainingSet
from boxdepth.trainer.data.validation_set import ValidationSet, open_validation_set
from boxdepth.trainer.engine.checkpoint import (
    BEST,
    LATEST,
    MODEL,
    TEACHER,
    Checkpoint,
    CheckpointError,
    find_checkpoint,
    load_checkpoint,
    load_newest,
)
from boxdepth.trainer.engine.evaluations import EVALUATION, PREDICTIONS, REPORT
from boxdepth.trainer.engine.loop import Progress, restore
from boxdepth.trainer.engine.run_folder import RunExistsError, read_json, write_json
from boxdepth.trainer.engine.update import Learner
from boxdepth.trainer.model.weight_files import check_finite, read_tensors
from boxdepth.trainer.model.weights import CLASS_LAYERS, is_adelaidet, load_adelaidet

CONFIG, RUN = "config.json", "run.json"
OURS = (CONFIG, RUN, LATEST, BEST, "metrics.jsonl", PREDICTIONS, REPORT, EVALUATION)
MAY_CHANGE = (
    "name", "data.train", "data.val", "data.val_annotations", "data.workers",
    "data.timeout_seconds", "inference", "checkpoints", "schedule.iterations", "compile",
)  # fmt: skip
"""Settings that a resumed run may be given anew: they change nothing of what was learnt so far.

The stores may lie elsewhere, but their fingerprints must be the same.
"""
PACKAGES = ("boxdepth-trainer", "boxdepth-depthgen", "torch", "torchvision", "timm", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The command line."""

    preset: str | None
    config: Path | None
    settings: tuple[str, ...]
    flags: Mapping[str, Any]
    out: Path | None
    resume: bool
    overwrite: bool
    init: Path | None
    fork: Path | None
    max_iterations: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be done."""

    config: RunConfig
    folder: Path
    train: TrainingSet
    val: ValidationSet | None
    val_category_ids: tuple[int | None, ...]
    """Id on the val store of each class that is learnt; None: it has no such class."""
    notes: tuple[str, ...]
    """What a person should know before the first step."""
    stop_at: int
    resume: bool
    overwrite: bool
    init: Path | None
    fork: Path | None


def plan_run(request: Request, known: Mapping[str, Callable[[], RunConfig]]) -> Plan:
    """Everything checked that can be checked before the first step.

    Raises:
        ConfigError: preset, file, setting, or settings that differ from the run to be resumed.
        DataError: a store that can't be used.
        RunExistsError: the folder holds a run, and nothing was said about it.
    """
    if request.resume and request.overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    if request.fork and (request.init or request.resume):
        raise ConfigError("--fork already says where the run starts: without --init and --resume")
    config = _resolve(request, known)
    folder = request.out or Path("runs") / config.name
    if (folder / RUN).exists() and not (request.resume or request.overwrite):
        raise RunExistsError(
            f"{folder} holds a run already: --resume goes on with it, --overwrite replaces it, "
            "--out puts the new one elsewhere"
        )
    if config.data.train is None:
        raise ConfigError("no store to learn from: give --train STORE (made by `depthgen run`)")
    train = assemble.training_set(config, config.data.train)
    try:
        config = assemble.with_classes(config, len(train.store.attributes.categories))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    val = _open_val(config, explicitly=request.flags.get("data.val") is not None)
    if val is None:
        config = apply_overrides(config, ["data.val=null"])
    _check_annotations(config)
    val_ids, notes = _val_classes(train, val, config)
    if request.init is None and request.fork is None:
        _check_frozen(config)
    if request.resume:
        _check_same(folder, config, train)
    return Plan(
        config=config,
        folder=folder,
        train=train,
        val=val,
        val_category_ids=val_ids,
        notes=(*notes, *schedule_notes(config)),
        stop_at=min(
            request.max_iterations or config.schedule.iterations, config.schedule.iterations
        ),
        resume=request.resume,
        overwrite=request.overwrite,
        init=request.init,
        fork=request.fork,
    )


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


def _resolve(request: Request, known: Mapping[str, Callable[[], RunConfig]]) -> RunConfig:
    named = request.preset is not None or request.config is not None
    if request.preset is not None and request.config is not None:
        raise ConfigError("give a preset or --config, not both")
    saved = request.out / CONFIG if request.out is not None else None
    if request.config is not None:
        config = load_config(request.config)
    elif request.resume and not named and saved is not None and saved.is_file():
        config = load_config(saved)
    else:
        config = choose_preset(known, request.preset or "coco_r50_1x")
    flags = [f"{path}={value}" for path, value in request.flags.items() if value is not None]
    return apply_overrides(config, [*request.settings, *flags])


def _open_val(config: RunConfig, *, explicitly: bool) -> ValidationSet | None:
    if config.data.val is None:
        return None
    if not explicitly and not (is_remote(config.data.val) or config.data.val.exists()):
        say(f"no val store at {config.data.val}: trains without an evaluation at the end")
        return None
    return open_validation_set(config.data.val)


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


def start_folder(plan: Plan, *, command: str) -> None:
    """Write what the run is into its folder, after removing an earlier run if told to."""
    if plan.overwrite:
        for name in OURS:
            (plan.folder / name).unlink(missing_ok=True)
        for path in [plan.folder / "checkpoints", *plan.folder.glob("events.*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write_json(plan.folder / CONFIG, plan.config.model_dump(mode="json"))
    annotations = plan.config.data.val_annotations
    write_json(
        plan.folder / RUN,
        {
            "command": command,
            **about(plan),
            "val_annotations": str(annotations.absolute()) if annotations else None,
        },
    )


def about(plan: Plan) -> dict[str, Any]:
    """What a checkpoint says about its run; nothing in it tells of this machine's folders."""
    data = {"train": None, "val": None, "val_annotations": None}
    backbone = plan.config.model.backbone.model_copy(update={"weights": None})
    model = plan.config.model.model_copy(update={"backbone": backbone})
    portable = plan.config.model_copy(
        update={"data": plan.config.data.model_copy(update=data), "model": model}
    )
    attributes = plan.train.store.attributes
    return {
        "config": portable.model_dump(mode="json"),
        "config_sha256": assemble.config_digest(portable),
        "categories": [{"id": c.id, "name": c.name} for c in attributes.categories],
        "data": {
            "dataset": attributes.dataset,
            "split": attributes.split,
            "train_fingerprint": plan.train.store.fingerprint,
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


def starting_point(plan: Plan, learner: Learner) -> Progress:
    """Weights and counters to start with: the newest checkpoint, other weights, or none.

    Raises:
        CheckpointError: damaged, or not of this network.
    """
    if plan.resume:
        newest = load_newest(plan.folder / "checkpoints")
        if newest is not None:
            folder, checkpoint = newest
            say(f"  goes on from {folder.name}")
            return restored(learner, checkpoint, folder)
        say("  no checkpoint yet: starts from the beginning")
    classes = plan.train.store.attributes.categories
    if plan.fork is not None:
        return fork(learner, plan.fork, classes)
    if plan.init is not None:
        for line in initialise(learner, plan.init, classes):
            say(f"  {line}")
    return Progress()


def restored(learner: Learner, checkpoint: Checkpoint, folder: Path) -> Progress:
    """`restore`, with words for a training state that somebody changed by hand."""
    check_weights(checkpoint, folder)
    try:
        return restore(learner, checkpoint)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: its training state is not this run's: {_first_line(error)}"
        ) from error


def fork(learner: Learner, source: Path, classes: Sequence[Category]) -> Progress:
    """Go on where another run stands, with its optimiser and its counters.

    Raises:
        ConfigError: its network, its optimiser or its classes are others.
        CheckpointError: damaged, or none there.
    """
    newest = None if (source / MODEL).is_file() else load_newest(source / "checkpoints")
    folder, checkpoint = newest or (source, load_checkpoint(find_checkpoint(source)))
    check_weights(checkpoint, folder)
    theirs = classes_of(checkpoint)
    if theirs is not None and not same_classes(theirs, classes):
        raise ConfigError(
            f"--fork {source}: it learns {_named(theirs)}, the training store has "
            f"{_named(classes)}; a fork goes on with the same classes in the same order: --init "
            "takes the weights, class rows by name"
        )
    try:
        progress = restore(learner, checkpoint)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--fork {source}: its network or optimiser is not this run's, it can't go on from "
            f"there ({_first_line(error)}); --init takes the weights that fit"
        ) from error
    say(f"  goes on from {folder}, iteration {progress.step}")
    return progress


def initialise(learner: Learner, source: Path, classes: Sequence[Category]) -> list[str]:
    """Weights of another run, checkpoint or file; layers of another shape start anew.

    Rows of the layers that tell classes apart go by the classes' names, where the source knows
    them; a class that it doesn't know starts anew.

    Returns:
        What a person should know of it.
    """
    model, theirs = learner.model, None
    if source.is_file():
        tensors = read_tensors(source)
        if is_adelaidet(tensors):
            report = load_adelaidet(model, tensors, source=source.name)  # type: ignore[arg-type]
            return str(report).splitlines()
    else:
        checkpoint: Checkpoint = load_checkpoint(find_checkpoint(source))
        tensors, theirs = checkpoint.teacher or checkpoint.model, classes_of(checkpoint)
    check_finite(tensors, source=str(source))
    state = model.state_dict()
    said = []
    if theirs is not None and not same_classes(theirs, classes):
        rows = rows_by_name(classes, theirs)
        tensors = {**tensors, **_class_rows(tensors, state, rows, known=len(theirs))}
        said += _class_words(classes, theirs, rows)
    elif theirs is None:
        said.append(f"{source.name} names no classes: class rows are taken in the order they have")
    fits = {k: v for k, v in tensors.items() if k in state and v.shape == state[k].shape}
    if not fits:
        raise ConfigError(f"--init {source}: holds no weight that fits this network")
    model.load_state_dict({**state, **fits})
    anew = sorted(state.keys() - fits.keys())
    loaded = f"{source}: {len(fits)} tensors loaded" + (
        f", {len(anew)} start anew ({listed(anew)})" if anew else ""
    )
    return [loaded, *said]


def _class_rows(
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    rows: Sequence[int | None],
    *,
    known: int,
) -> dict[str, Tensor]:
    """The layers of one row a class, their rows put where the class stands now."""
    moved = {}
    for name, tensor in tensors.items():
        mine = state.get(name)
        if mine is None or not name.startswith(CLASS_LAYERS) or len(tensor) != known:
            continue
        if tensor.shape[1:] != mine.shape[1:] or len(mine) != len(rows):
            continue
        there = [place for place, row in enumerate(rows) if row is not None]
        taken = [row for row in rows if row is not None]
        moved[name] = mine.detach().clone().cpu()
        moved[name][there] = tensor[taken].to(mine.dtype).cpu()
    return moved


def _class_words(
    classes: Sequence[Category], theirs: Sequence[Category], rows: Sequence[int | None]
) -> list[str]:
    anew = [shown(c.name) for c, row in zip(classes, rows, strict=True) if row is None]
    unused = [shown(c.name) for row, c in enumerate(theirs) if row not in rows]
    said = ["other classes than it learnt: class rows go by name"]
    if anew:
        said.append(f"{len(anew)} classes start anew: {listed(anew)}")
    if unused:
        said.append(f"{len(unused)} of its classes are not used: {listed(unused)}")
    return said


def check_weights(checkpoint: Checkpoint, folder: Path) -> None:
    """Refuse student and teacher with values that are not finite, by name.

    Raises:
        WeightsError: there are such.
    """
    check_finite(checkpoint.model, source=str(folder / MODEL))
    if checkpoint.teacher is not None:
        check_finite(checkpoint.teacher, source=str(folder / TEACHER))


def classes_of(checkpoint: Checkpoint) -> tuple[Category, ...] | None:
    """The classes a checkpoint was trained for; None if it doesn't say."""
    rows = checkpoint.run.get("categories")
    try:
        return (
            tuple(Category(id=int(row["id"]), name=str(row["name"])) for row in rows or ()) or None
        )
    except (KeyError, TypeError, ValueError):
        return None


def _named(classes: Sequence[Category]) -> str:
    return listed([shown(category.name) for category in classes])


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
