"""One update: gradients of one or more forward passes, checked, clipped, applied."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from boxdepth.trainer.engine.distributed import any_rank
from boxdepth.trainer.engine.health import NonFiniteGuard, gradient_norm, non_finite_terms
from boxdepth.trainer.engine.optim import set_learning_rate
from boxdepth.trainer.structures import Batch, LossTerms

Losses = Callable[[Batch, int], LossTerms]
"""(batch, step) -> loss terms of the student's forward pass, with gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """What learns, and how an update is made of gradients."""

    model: nn.Module
    """The student's own module: the one that is saved."""
    network: nn.Module
    """The same, wrapped for data parallel or compiled: the one that is called."""
    losses: Losses
    optimizer: torch.optim.Optimizer
    learning_rate: Callable[[int], float]
    scaler: torch.amp.GradScaler
    device: torch.device
    seed: int
    rank: int = 0
    clip_norm: float | None = None
    teacher: nn.Module | None = None
    teacher_from: int = 0
    """First step that has a teacher."""
    update_teacher: Callable[[int], None] = lambda step: None
    """Called before the forward passes of every step."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters that learn."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def learn_step(
    learner: Learner, step: int, passes: Sequence[Batch], *, guard: NonFiniteGuard
) -> dict[str, Tensor]:
    """Update the student once from one or more forward passes; returns numbers to report.

    The random state of the step (dropout, sampled positives) is a function of (seed, rank, step),
    so that nothing about it has to be saved. A loss or gradient that is not finite, on any rank,
    leaves weights, teacher, momentum and running statistics as they were.
    """
    torch.manual_seed(_step_seed(learner.seed, learner.rank, step))
    set_learning_rate(learner.optimizer, learner.learning_rate(step))
    learner.update_teacher(step)
    learner.optimizer.zero_grad(set_to_none=True)
    with running_statistics_kept(learner.model) as put_back:
        numbers, bad = _backward(learner, step, passes)
        learner.scaler.unscale_(learner.optimizer)
        norm = gradient_norm(learner.parameters)
        if not bad and not torch.isfinite(norm):
            bad = ["gradient"]
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
    guard.step_was_finite()
    return {**numbers, "gradient_norm": norm.detach()}


def _backward(
    learner: Learner, step: int, passes: Sequence[Batch]
) -> tuple[dict[str, Tensor], list[str]]:
    numbers: dict[str, Tensor] = {}
    bad: list[str] = []
    for k, batch in enumerate(passes):
        with _gradients_synced(learner.network, last=k == len(passes) - 1):
            terms = learner.losses(batch.to(learner.device, non_blocking=True), step)
            total = terms.total()
            scaled: Tensor = learner.scaler.scale(total / len(passes))
            scaled.backward()  # type: ignore[no-untyped-call]
        bad += non_finite_terms({**terms.values, "total": total})
        for name, value in _numbers(terms, total).items():
            numbers[name] = numbers.get(name, torch.zeros_like(value)) + value / len(passes)
    return numbers, bad


def _numbers(terms: LossTerms, total: Tensor) -> dict[str, Tensor]:
    losses = {f"losses/{name}": value.detach().float() for name, value in terms.values.items()}
    watched = {f"monitors/{name}": value.detach().float() for name, value in terms.monitors.items()}
    return {"total_loss": total.detach().float(), **losses, **watched}


@contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[Callable[[], None]]:
    """A function that puts BatchNorm statistics back: a bad batch would spoil them for good."""
    buffers = [
        buffer
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training
        for buffer in module.buffers(recurse=False)
    ]
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
