"""A run: planned, started, trained, evaluated."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch

from boxdepth.trainer import build
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.engine.device import choose_device
from boxdepth.trainer.engine.distributed import (
    World,
    barrier,
    process_group,
    world_from_environment,
)
from boxdepth.trainer.engine.loop import Listener, Progress, Run, Scores, run_loop
from boxdepth.trainer.engine.pace import Refit
from boxdepth.trainer.engine.run_folder import lock_run
from boxdepth.trainer.engine.schedule import LearningRate
from boxdepth.trainer.engine.signals import stop_flag
from boxdepth.trainer.engine.update import Learner
from boxdepth.trainer.predict.inference import inference_spec
from boxdepth.trainer.runs.evaluation import Evaluator
from boxdepth.trainer.runs.plan import Plan, plan_run
from boxdepth.trainer.runs.provenance import about, remove_run, start_folder
from boxdepth.trainer.runs.samples import Samples
from boxdepth.trainer.runs.start import NEW, Start
from boxdepth.trainer.runs.weights import starting_point


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What came of a run."""

    folder: Path
    iterations: int
    """Steps done, those before it was resumed or forked included."""
    seconds: float
    losses: dict[str, float] = field(default_factory=dict)
    """Means of the last report, unweighted."""
    scores: Scores | None = None
    """``{"segm": {"ap": ...}, "bbox": {...}}``, fractions; None: nothing could be scored."""
    skipped: int = 0
    """Steps whose update was not finite and was thrown away."""
    images_seen: int = 0
    """Those of all its steps."""

    def to_json(self) -> dict[str, Any]:
        """Numbers, text and the scores of the whole val store."""
        scores = self.scores or {}
        ap = {kind: {k: v for k, v in s.items() if k != "per_class"} for kind, s in scores.items()}
        return {
            "run": str(self.folder),
            "iterations": self.iterations,
            "images_seen": self.images_seen,
            "seconds": round(self.seconds, 3),
            "losses": self.losses,
            "ap": ap or None,
        }


@final
class Silent:
    """A listener that tells nobody."""

    def on_step(self, step: int) -> None:
        """A step is done."""

    def on_report(self, step: int, numbers: Mapping[str, float]) -> None:
        """New means."""

    def on_note(self, text: str) -> None:
        """Something that a person wants to know."""


def fit(
    config: RunConfig,
    *,
    out: str | Path | None = None,
    start: Start = NEW,
    max_iterations: int | None = None,
    device: str = "auto",
    listener: Listener | None = None,
) -> Fitted:
    """Train a run and evaluate it on its val store; SIGINT and SIGTERM save and stop it.

    Under torchrun every rank calls it. Results lie in the run folder, see docs/training.md.

    Args:
        config: what to train, from ``preset``, ``saved_config`` or made by hand.
        out: the run folder; None: ``runs/`` and the name of the config.
        start: from nothing, from where it stopped, from another run, or with its weights.
        max_iterations: stop at this iteration at the latest; ``Start.resume()`` goes on.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        listener: is told of steps, reports and notes.

    Raises:
        TrainerError: what can't be done, and why; ``StoppedError`` after a signal.
        DepthgenError: a store that can't be used.
    """
    plan = plan_run(
        config,
        out=None if out is None else Path(out),
        start=start,
        max_iterations=max_iterations,
    )
    target = choose_device(device, local_rank=world_from_environment().local_rank)
    listener = listener or Silent()
    for note in plan.notes:
        listener.on_note(note)
    return train(plan, device=target, listener=listener)


def train(
    plan: Plan, *, device: torch.device, listener: Listener, command: str = "boxdepth.trainer.fit"
) -> Fitted:
    """Do what was planned.

    Args:
        listener: is told on the first rank only.
        command: how the run was asked for, to be kept in its folder.

    Raises:
        TrainerError: as ``fit``.
    """
    world = world_from_environment()
    listener = listener if world.is_main else Silent()
    with ExitStack() as stack:
        stack.enter_context(process_group(world, device))
        if world.is_main:
            stack.enter_context(lock_run(plan.folder))
        # Before anything is written: its weights may be missing, and then there is no run yet.
        learner = build.build_learner(plan.config, device, world)
        classes = plan.train.store.attributes.categories
        progress, said = starting_point(learner, plan.start, plan.folder, classes)
        for note in said:
            listener.on_note(note)
        if world.is_main:
            if plan.start.overwrites:
                remove_run(plan.folder)
            start_folder(plan.folder, plan.config, plan.train, command=command)
        barrier()
        if progress.step >= plan.stop_at:
            listener.on_note(
                f"{plan.folder}: already at iteration {progress.step}, nothing left to train"
            )
        run = _run(plan, learner, world)
        if plan.config.schedule.minutes is not None:
            run = replace(run, replanned=Replanner(plan, command=command))
        with stop_flag() as stop:
            run_loop(run, progress, stop_at=plan.stop_at, stop=stop, listener=listener)
    return _fitted(plan, progress)


@final
class Replanner:
    """Gives a run another schedule, and says so in its folder."""

    def __init__(self, plan: Plan, *, command: str) -> None:
        self._plan, self._command = plan, command
        self.config = plan.config

    def __call__(self, run: Run, change: Refit) -> Run:
        """The same run, whatever is yet to come moved: drops, warm-ups, the teacher, the end."""
        config = self.config
        losses, distillation = config.losses, config.distillation
        self.config = config = config.changed(
            schedule=change.schedule(config.schedule),
            losses=losses.changed(warmup_iterations=change.moved(losses.warmup_iterations)),
            distillation=distillation.changed(start=change.moved(distillation.start)),
        )
        if run.world.is_main:
            start_folder(run.folder, config, self._plan.train, command=self._command)
        learner = replace(
            run.learner,
            learning_rate=LearningRate(
                base=run.learner.learning_rate.base, schedule=config.schedule
            ),
            rules=build.step_rules(config),
        )
        if learner.teacher is not None:
            learner.teacher.replan(build.pseudo_rules(config), config.schedule.iterations)
        return replace(run, learner=learner, about=about(config, self._plan.train))


def _run(plan: Plan, learner: Learner, world: World) -> Run:
    config = plan.config
    evaluator = Evaluator(
        images=plan.val,
        annotations=config.data.val_annotations,
        category_ids=plan.val_category_ids,
        spec=inference_spec(config),
        folder=plan.folder,
    )
    return Run(
        folder=plan.folder,
        learner=learner,
        loader=build.batch_loader(
            config, plan.train, world, pin_memory=learner.device.type == "cuda"
        ),
        evaluate=evaluator,
        evaluates=evaluator.digest,
        batch_size=config.data.batch_size,
        intervals=config.checkpoints,
        about=about(config, plan.train),
        world=world,
        samples=Samples(
            folder=plan.folder,
            dataset=plan.train,
            spec=inference_spec(config),
            count=config.checkpoints.samples,
        ),
    )


def _fitted(plan: Plan, progress: Progress) -> Fitted:
    return Fitted(
        folder=plan.folder,
        iterations=progress.step,
        seconds=progress.seconds,
        losses=dict(progress.losses),
        scores=progress.scores,
        skipped=progress.guard.skipped,
        images_seen=progress.step * plan.config.data.batch_size,
    )
