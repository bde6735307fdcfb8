"""Weights and counters to start with: the newest checkpoint's, other weights, or none."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from boxdepth.depthgen.store import Category
from boxdepth.trainer.data.categories import listed, rows_by_name, same_classes, shown
from boxdepth.trainer.engine.checkpoint import (
    MODEL,
    TEACHER,
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_newest,
)
from boxdepth.trainer.engine.loop import Progress, restore
from boxdepth.trainer.engine.update import Learner
from boxdepth.trainer.errors import CheckpointError, ConfigError
from boxdepth.trainer.model.weight_files import check_finite, read_tensors
from boxdepth.trainer.model.weights import CLASS_LAYERS, is_adelaidet, load_adelaidet
from boxdepth.trainer.predict.classes import recorded_classes
from boxdepth.trainer.runs.start import Start

MISFITS = (RuntimeError, ValueError, KeyError, TypeError)
"""What restoring raises where a training state is another run's, or was changed by hand."""


def starting_point(
    learner: Learner, start: Start, folder: Path, classes: Sequence[Category]
) -> tuple[Progress, list[str]]:
    """Put the weights into the learner that a run starts with.

    Returns:
        The counters to go on from, and what a person should know of it.

    Raises:
        CheckpointError: damaged, or not of this network.
        ConfigError: other weights that don't fit.
    """
    said = []
    if start.resumes:
        newest = load_newest(folder / "checkpoints")
        if newest is not None:
            place, checkpoint = newest
            return restored(learner, checkpoint, place), [f"goes on from {place.name}"]
        said.append("no checkpoint yet: starts from the beginning")
    if start.forked is not None:
        return fork(learner, start.forked, classes)
    if start.weights is not None:
        said += initialise(learner, start.weights, classes)
    return Progress(), said


def restored(learner: Learner, checkpoint: Checkpoint, folder: Path) -> Progress:
    """`restore`, with words for a training state that somebody changed by hand."""
    check_weights(checkpoint, folder)
    try:
        return restore(learner, checkpoint)
    except MISFITS as error:
        raise CheckpointError(
            f"{folder}: its training state is not this run's: {_first_line(error)}"
        ) from error


def fork(learner: Learner, source: Path, classes: Sequence[Category]) -> tuple[Progress, list[str]]:
    """Go on where another run stands, with its optimiser and its counters.

    Raises:
        ConfigError: its network, its optimiser or its classes are others.
        CheckpointError: damaged, or none there.
    """
    newest = None if (source / MODEL).is_file() else load_newest(source / "checkpoints")
    folder, checkpoint = newest or (source, load_checkpoint(find_checkpoint(source)))
    check_weights(checkpoint, folder)
    theirs = recorded_classes(checkpoint.run)
    if theirs is not None and not same_classes(theirs, classes):
        raise ConfigError(
            f"--fork {source}: it learns {_named(theirs)}, the training store has "
            f"{_named(classes)}; a fork goes on with the same classes in the same order: --init "
            "takes the weights, class rows by name"
        )
    try:
        progress = restore(learner, checkpoint)
    except MISFITS as error:
        raise ConfigError(
            f"--fork {source}: its network or optimiser is not this run's, it can't go on from "
            f"there ({_first_line(error)}); --init takes the weights that fit"
        ) from error
    return progress, [f"goes on from {folder}, iteration {progress.step}"]


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
        checkpoint = load_checkpoint(find_checkpoint(source))
        tensors, theirs = checkpoint.teacher or checkpoint.model, recorded_classes(checkpoint.run)
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


def _named(classes: Sequence[Category]) -> str:
    return listed([shown(category.name) for category in classes])


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
