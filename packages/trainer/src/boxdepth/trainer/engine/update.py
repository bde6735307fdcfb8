"""One update: gradients of one or more forward passes, checked, clipped, applied."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from boxdepth.trainer.distill.teacher import Teacher
from boxdepth.trainer.engine.distributed import any_rank
from boxdepth.trainer.engine.health import NonFiniteGuard, gradient_norm, non_finite
from boxdepth.trainer.engine.optim import set_learning_rate
from boxdepth.trainer.engine.schedule import LearningRate
from boxdepth.trainer.engine.step import StepRules, step_losses
from boxdepth.trainer.structures import Batch, LossTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """What learns, from whom, and how an update is made of gradients."""

    model: nn.Module
    """The student's own module: the one that is saved."""
    network: nn.Module
    """The same, wrapped for data parallel or compiled: the one that is called."""
    rules: StepRules
    optimizer: torch.optim.Optimizer
    learning_rate: LearningRate
    scaler: torch.amp.GradScaler
    device: torch.device
    seed: int
    rank: int = 0
    clip_norm: float | None = None
    teacher: Teacher | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters that learn."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def best(self, steps: int) -> nn.Module:
        """Who is evaluated and used after so many steps: the teacher, once there is one."""
        if self.teacher is not None and steps > self.teacher.start:
            return self.teacher.module
        return self.model


def learn_step(
    learner: Learner,
    step: int,
    passes: Sequence[Batch],
    *,
    guard: NonFiniteGuard,
    watching: bool = False,
) -> dict[str, Tensor]:
    """Update the student once from one or more forward passes; returns numbers to report.

    The random state of the step (dropout, sampled positives) is a function of (seed, rank, step),
    so that nothing about it has to be saved. A loss or gradient that is not finite, on any rank,
    leaves weights, teacher, momentum and running statistics as they were.

    Args:
        watching: report the run's health and the terms that weigh nothing yet, too.
    """
    torch.manual_seed(_step_seed(learner.seed, learner.rank, step))
    set_learning_rate(learner.optimizer, learner.learning_rate.at(step))
    if learner.teacher is not None:
        learner.teacher.follow(learner.model, step)
    learner.optimizer.zero_grad(set_to_none=True)
    with running_statistics_kept(learner) as put_back:
        done = _backward(learner, step, passes, watching=watching)
        learner.scaler.unscale_(learner.optimizer)
        norm = gradient_norm(learner.parameters)
        bad = non_finite({**done.losses, "gradient": norm})
        if any_rank(bool(bad), learner.device):
            put_back()
            learner.scaler.update()
            image_ids = [i for batch in passes for i in batch.image_ids]
            guard.step_was_skipped(
                step, what=", ".join(bad or ["another rank"]), image_ids=image_ids
            )
            return {}
    if learner.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(learner.parameters, learner.clip_norm, norm)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    if learner.teacher is not None:
        learner.teacher.follow(learner.model, step + 1)
    guard.step_was_finite()
    return {**done.numbers, "gradient_norm": norm.detach()}


@dataclass(slots=True)
class _Passes:
    """What the forward passes of a step came to."""

    numbers: dict[str, Tensor] = field(default_factory=dict)
    """Means over the passes."""
    losses: dict[str, Tensor] = field(default_factory=dict)
    """Sums over the passes: not finite if one of them isn't."""


def _backward(learner: Learner, step: int, passes: Sequence[Batch], *, watching: bool) -> _Passes:
    done = _Passes()
    for k, batch in enumerate(passes):
        with _gradients_synced(learner.network, last=k == len(passes) - 1):
            terms = step_losses(
                learner.network,
                batch.to(learner.device, non_blocking=True),
                learner.rules,
                step=step,
                teacher=learner.teacher,
                watching=watching,
            )
            total = terms.total()
            scaled: Tensor = learner.scaler.scale(total / len(passes))
            scaled.backward()  # type: ignore[no-untyped-call]
        active = {name: value for name, value in terms.values.items() if terms.factors[name]}
        _add(done.losses, {**active, "total": total}, weight=1.0)
        _add(done.numbers, _numbers(terms, total), weight=1 / len(passes))
    return done


def _add(sums: dict[str, Tensor], values: Mapping[str, Tensor], *, weight: float) -> None:
    for name, value in values.items():
        part = value.detach().float() * weight
        sums[name] = sums[name] + part if name in sums else part


def _numbers(terms: LossTerms, total: Tensor) -> dict[str, Tensor]:
    losses = {f"losses/{name}": value for name, value in terms.values.items()}
    watched = {f"monitors/{name}": value for name, value in terms.monitors.items()}
    return {"total_loss": total, **losses, **watched}


@contextmanager
def running_statistics_kept(learner: Learner) -> Iterator[Callable[[], None]]:
    """A function that puts BatchNorm statistics back: a bad batch would spoil them for good."""
    norms = [m for m in learner.model.modules() if isinstance(m, _BatchNorm) and m.training]
    if learner.teacher is not None and learner.teacher.learns_in_passes:
        norms += [m for m in learner.teacher.module.modules() if isinstance(m, _BatchNorm)]
    buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
    copies = [buffer.clone() for buffer in buffers]

    def put_back() -> None:
        for buffer, copy in zip(buffers, copies, strict=True):
            buffer.copy_(copy)

    yield put_back


@contextmanager
def _gradients_synced(network: nn.Module, *, last: bool) -> Iterator[None]:
    """Data parallel: exchange gradients in the last forward pass of a step only."""
    if isinstance(network, DistributedDataParallel) and not last:
        with network.no_sync():
            yield
    else:
        yield


def _step_seed(seed: int, rank: int, step: int) -> int:
    return (seed * 1_000_003 + rank * 7_919 + step) % 2**63
