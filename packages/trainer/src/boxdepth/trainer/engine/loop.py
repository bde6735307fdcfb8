"""The loop around the step: learning rate, numbers, checkpoints, evaluation, stopping."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from boxdepth.trainer.data.loader import BatchLoader
from boxdepth.trainer.engine.checkpoint import Checkpoint, prune, save_checkpoint, step_folder
from boxdepth.trainer.engine.distributed import (
    World,
    any_rank,
    barrier,
    mean_over_ranks,
    sum_over_ranks,
)
from boxdepth.trainer.engine.evaluations import (
    PREDICTIONS,
    Best,
    Evaluation,
    forget_best,
    read_best,
    read_evaluation,
    write_best,
    write_evaluation,
)
from boxdepth.trainer.engine.health import NonFiniteGuard
from boxdepth.trainer.engine.log import MetricsWriter
from boxdepth.trainer.engine.pace import Pace, Refit
from boxdepth.trainer.engine.rules import Checkpoints
from boxdepth.trainer.engine.signals import StopFlag
from boxdepth.trainer.engine.trackers import TRACKERS, Picture
from boxdepth.trainer.engine.update import Learner, learn_step
from boxdepth.trainer.errors import StoppedError

Scores = dict[str, Any]
"""An evaluation's numbers: {"segm": {"ap": ...}, "bbox": {...}}."""


class Listener(Protocol):
    """Who is told how the run goes; the command draws a progress bar with it."""

    def on_step(self, step: int) -> None:
        """``step`` steps are done."""

    def on_report(self, step: int, numbers: Mapping[str, float]) -> None:
        """The mean numbers since the last report."""

    def on_note(self, text: str) -> None:
        """Something that a person wants to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything that a run is made of, wired by ``build``."""

    folder: Path
    learner: Learner
    loader: BatchLoader
    evaluate: Callable[[nn.Module], Scores | None]
    """Predicts on the val store, and scores if it can."""
    evaluates: str = ""
    """Digest of what ``evaluate`` looks at and how: other scores can't be compared with its."""
    batch_size: int
    intervals: Checkpoints
    about: Mapping[str, Any]
    """What every checkpoint says about the run: config, versions, fingerprint."""
    world: World = field(default_factory=World)
    samples: Callable[[nn.Module, int], dict[str, Picture]] = lambda model, step: {}
    """Pictures of the masks after so many steps, by name."""
    replanned: "Callable[[Run, Refit], Run] | None" = None
    """The run with another schedule, where it has to end in time; None: it ends when it is done."""

    @property
    def iterations(self) -> int:
        """Steps that it has, as things stand."""
        return self.learner.learning_rate.schedule.iterations

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        return self.folder / "checkpoints"


@dataclass(slots=True, kw_only=True)
class Progress:
    """What changes while a run goes on, apart from weights and optimiser."""

    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    guard: NonFiniteGuard = field(default_factory=NonFiniteGuard)
    losses: dict[str, float] = field(default_factory=dict)
    """The last report."""
    scores: Scores | None = None

    def to_state(self) -> dict[str, Any]:
        """Numbers, text, dicts: fit for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Progress":
        """Back from a checkpoint."""
        return cls(**{**state, "guard": NonFiniteGuard(**state["guard"])})


def run_loop(
    run: Run, progress: Progress, *, stop_at: int, stop: StopFlag, listener: Listener
) -> None:
    """Train from ``progress.step`` to ``stop_at``; then save and evaluate.

    Raises:
        StoppedError: told to stop by a signal; everything up to the last step is saved.
        NonFiniteError: ten steps in a row without a finite update.
        DataError: a sample that can't be loaded.
        DiskFullError: no room for a checkpoint; the earlier ones are whole.
    """
    began = time.monotonic() - progress.seconds
    pace = Pace(step=progress.step, seconds=progress.seconds)
    owed = run.world.is_main and _evaluation_is_owed(run, progress, stop_at)
    with Reporter(run, progress, listener, without_scores=owed) as reporter:
        if progress.step and (
            progress.step >= stop_at or _due(progress.step, run.intervals.evaluate_every)
        ):
            _evaluate(run, progress, reporter, listener, wanted=owed)
        if _is_stale(run, progress, listener):
            return
        for passes in run.loader.steps(progress.step, _furthest(run, stop_at)):
            watching = progress.step + 1 == stop_at or _due(
                progress.step + 1, run.intervals.log_every
            )
            numbers = learn_step(
                run.learner, progress.step, passes, guard=progress.guard, watching=watching
            )
            reporter.add(numbers)
            progress.step += 1
            progress.seconds = time.monotonic() - began
            listener.on_step(progress.step)
            run, stop_at = _in_time(run, progress, pace, stop_at, listener)
            reporter.run = run
            step, every = progress.step, run.intervals
            stopping = any_rank(stop.number is not None, run.learner.device)
            last = step == stop_at or stopping
            evaluating = step == stop_at or (_due(step, every.evaluate_every) and not stopping)
            saving = last or evaluating or _due(step, every.every)
            if saving or _due(step, every.log_every):
                reporter.report(progress)
            if saving:
                save(run, progress)
                reporter.show(progress.step)
            if stopping:
                raise StoppedError(stop.number or 15, step)
            if evaluating:
                _evaluate(run, progress, reporter, listener)
                if _is_stale(run, progress, listener):
                    return
            if step == stop_at:
                return


def _furthest(run: Run, stop_at: int) -> int:
    """The step that a run may come to, if the machine is fast."""
    schedule = run.learner.learning_rate.schedule
    if run.replanned is None or stop_at < schedule.iterations:
        return stop_at
    return max(stop_at, schedule.at_most or 0)


def _in_time(
    run: Run, progress: Progress, pace: Pace, stop_at: int, listener: Listener
) -> tuple[Run, int]:
    """The run and where this call ends, with another schedule if it would not end in time."""
    schedule = run.learner.learning_rate.schedule
    if run.replanned is None or schedule.minutes is None:
        return run, stop_at

    def clock() -> float:  # asked now and then: a device has to be waited for
        return float(mean_over_ranks(torch.tensor(progress.seconds, device=run.learner.device)))

    seen = pace.look(schedule, progress.step, clock)
    if seen is None:
        return run, stop_at
    seconds, change = seen
    listener.on_note(
        f"step {change.step}: {seconds:.2g} s a step now; {change.after} steps instead of "
        f"{change.before} fit into {schedule.minutes:g} minutes"
    )
    whole = stop_at == change.before
    return run.replanned(run, change), change.after if whole else min(stop_at, change.after)


def save(run: Run, progress: Progress) -> None:
    """Write a checkpoint (the main process does) and delete the ones too many."""
    if run.world.is_main:
        learner = run.learner
        best = learner.best(progress.step)
        teacher = learner.teacher
        checkpoint = Checkpoint(
            step=progress.step,
            model=learner.model.state_dict(),
            teacher=best.state_dict() if best is not learner.model else None,
            state={
                "optimizer": learner.optimizer.state_dict(),
                "scaler": learner.scaler.state_dict(),
                "teacher": teacher.state() if teacher is not None else {},
                "progress": progress.to_state(),
            },
            run=dict(run.about),
        )
        save_checkpoint(run.checkpoints, checkpoint)
        prune(run.checkpoints, keep=run.intervals.keep)
    barrier()


def restore(learner: Learner, checkpoint: Checkpoint) -> Progress:
    """Put weights, optimiser and counters back, every key of them."""
    learner.model.load_state_dict(checkpoint.model)
    if learner.teacher is not None:
        state = checkpoint.state.get("teacher", {}) if checkpoint.teacher else {}
        learner.teacher.restore(checkpoint.teacher or checkpoint.model, state)
    learner.optimizer.load_state_dict(checkpoint.state["optimizer"])
    learner.scaler.load_state_dict(checkpoint.state["scaler"])
    return Progress.from_state(checkpoint.state["progress"])


@final
class Reporter:
    """Means of the numbers between two reports, gathered without waiting for the device."""

    def __init__(
        self, run: Run, progress: Progress, listener: Listener, *, without_scores: bool = False
    ) -> None:
        self.run, self._listener = run, listener
        self._out = None
        if run.world.is_main:
            config = run.about.get("config", {})
            trackers = [TRACKERS[name](run.folder, config) for name in run.intervals.track]
            self._out = MetricsWriter(
                run.folder,
                start=progress.step,
                without_scores=without_scores,
                trackers=trackers,
            )
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}
        self._from_step, self._since = progress.step, time.monotonic()

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._out is not None:
            self._out.close()

    def add(self, numbers: Mapping[str, Tensor]) -> None:
        """One step's numbers; none if it was skipped. NaN: this step has nothing to say on it."""
        for name, value in numbers.items():
            known = ~torch.isnan(value)
            self._sums[name] = self._sums.get(name, 0) + torch.where(known, value, 0)
            self._counts[name] = self._counts.get(name, 0) + known

    def report(self, progress: Progress) -> None:
        """Write and tell the means since the last report."""
        steps = progress.step - self._from_step
        if not steps:
            return
        elapsed = max(time.monotonic() - self._since, 1e-9)
        numbers = self._means()
        progress.losses = {
            name.partition("/")[2]: value
            for name, value in numbers.items()
            if name.startswith("losses/")
        }
        numbers["learning_rate"] = self.run.learner.learning_rate.at(progress.step - 1)
        numbers["images_per_second"] = steps * self.run.batch_size / elapsed
        numbers["skipped_steps"] = float(progress.guard.skipped)
        if self.run.replanned is not None:
            numbers["iterations_planned"] = float(self.run.iterations)
        self.write(progress.step, numbers)
        self._listener.on_report(progress.step, numbers)
        self._sums, self._counts = {}, {}
        self._from_step, self._since = progress.step, time.monotonic()

    def _means(self) -> dict[str, float]:
        """Of the steps and ranks that had something to say; one wait for the device.

        Ranks skip a step together and report the same names, so that their rows fit.
        """
        if not self._sums:
            return {}
        rows = [torch.stack(list(part.values())).float() for part in (self._sums, self._counts)]
        sums, counts = sum_over_ranks(torch.stack(rows)).double()
        means = dict(zip(self._sums, (sums / counts).tolist(), strict=True))
        return {name: mean for name, mean in means.items() if not math.isnan(mean)}

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Other numbers, such as an evaluation's."""
        if self._out is not None:
            self._out.write(step, numbers)

    def show(self, step: int) -> None:
        """Draw the sample images; what that takes is no training."""
        if self._out is not None:
            began = time.monotonic()
            pictures = self.run.samples(self.run.learner.best(step), step)
            self._out.show(step, pictures)
            self._since += time.monotonic() - began

    def restart_clock(self) -> None:
        """Leave out of the images per second what was no training."""
        self._since = time.monotonic()


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _evaluation_is_owed(run: Run, progress: Progress, stop_at: int) -> bool:
    """Whether a kill came between a checkpoint and the end of its evaluation.

    An evaluation counts for the step it was made at, and for what it looked at. What it left is
    taken over where it counts, and what lies in a future that is lost is forgotten.
    """
    forget_best(run.folder, after=progress.step)
    done = read_evaluation(run.folder)
    if done is not None and done.of != run.evaluates:
        forget_best(run.folder)
    if run.evaluates and not (run.folder / PREDICTIONS).is_file():
        done = None
    if done is not None and (done.step, done.of) == (progress.step, run.evaluates):
        progress.scores = dict(done.scores) if done.scores is not None else None
        return False
    if progress.step < stop_at and not _due(progress.step, run.intervals.evaluate_every):
        return False
    progress.scores = None
    return progress.step > 0


def _evaluate(
    run: Run, progress: Progress, reporter: Reporter, listener: Listener, *, wanted: bool = True
) -> None:
    """Predict with the teacher if there is one, else with the student; remember the best."""
    if run.world.is_main and wanted:
        learner = run.learner
        scores = run.evaluate(learner.best(progress.step))
        progress.scores = scores
        if scores is not None:
            reporter.write(progress.step, _flat(scores))
            _remember_the_best(run, progress, scores, listener)
        write_evaluation(
            run.folder, Evaluation(step=progress.step, of=run.evaluates, scores=scores)
        )
    barrier()
    reporter.restart_clock()


def _is_stale(run: Run, progress: Progress, listener: Listener) -> bool:
    """Whether the last `patience` evaluations brought nothing better than the best before them.

    A function of the step and of the pointer `best`, so that a resumed run ends where it would
    have. Not before the learning rate's first drop, which brings what the steps before it do not.
    """
    every, patience = run.intervals.evaluate_every, run.intervals.patience
    first_drop = min(run.learner.learning_rate.schedule.steps, default=0)
    if not (every and patience) or progress.step < first_drop:
        return False
    best = read_best(run.folder) if run.world.is_main else None
    stale = best is not None and progress.step - best.step >= patience * every
    if any_rank(stale, run.learner.device):
        listener.on_note(
            f"step {progress.step}: no better score in {patience} evaluations: ends here "
            "(checkpoints.patience)"
        )
        return True
    return False


def _flat(scores: Scores) -> dict[str, float]:
    return {
        f"val/{kind}_{name}": value
        for kind, values in scores.items()
        for name, value in values.items()
        if isinstance(value, float)
    }


def _remember_the_best(run: Run, progress: Progress, scores: Scores, listener: Listener) -> None:
    """By mask AP; by box AP where the val store holds no mask."""
    kind = "segm" if "segm" in scores else "bbox"
    ap = scores.get(kind, {}).get("ap")
    before = read_best(run.folder)
    if ap is not None and (before is None or before.ap < ap):
        name = step_folder(run.checkpoints, progress.step).name
        write_best(run.folder, Best(name=name, ap=ap))
        listener.on_note(f"step {progress.step}: {kind} AP {ap:.3f}, the best so far")
