"""Learning rate of an iteration."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from boxdepth.trainer.config.settings import (
    Fraction,
    InOrder,
    NonNegative,
    Positive,
    Scale,
    Settings,
)


class Schedule(Settings):
    """How long a run is, and how its learning rate goes."""

    iterations: Positive = 90_000
    steps: InOrder = (60_000, 80_000)
    """Iterations after which the learning rate is multiplied by `gamma`."""
    gamma: Fraction = 0.1
    warmup_iterations: NonNegative = 1000
    warmup_factor: Fraction = 0.001
    minutes: Scale | None = None
    """Wall time that the run may take, evaluations included: while it goes, `iterations`, `steps`
    and the warm-ups are fitted to the pace of the machine; None: as long as the iterations take."""
    at_most: Positive | None = None
    """With `minutes`: iterations that a fast machine makes; None: `iterations`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRate:
    """The learning rate of a run."""

    base: float
    """After the warm-up."""
    schedule: Schedule

    def at(self, iteration: int) -> float:
        """In the iteration of that (0-based) number."""
        schedule = self.schedule
        return learning_rate(
            iteration,
            base=self.base,
            steps=schedule.steps,
            gamma=schedule.gamma,
            warmup_iterations=schedule.warmup_iterations,
            warmup_factor=schedule.warmup_factor,
        )


def learning_rate(
    iteration: int,
    *,
    base: float,
    steps: Sequence[int],
    gamma: float,
    warmup_iterations: int,
    warmup_factor: float,
) -> float:
    """Linear warm-up, then multiplied by ``gamma`` from each of ``steps`` on (0-based iteration).

    During the warm-up: base * (f (1 - i/W) + i/W).
    """
    rate = base * gamma ** bisect_right(sorted(steps), iteration)
    if iteration >= warmup_iterations:
        return float(rate)
    progress = iteration / warmup_iterations
    return float(rate * (warmup_factor * (1 - progress) + progress))


def scaled_learning_rate(base: float, *, batch_size: int, reference_batch_size: int) -> float:
    """Linear scaling: as much learning for each image whatever the batch size."""
    return base * batch_size / reference_batch_size
