"""Learning rate of an iteration."""

from bisect import bisect_right
from collections.abc import Sequence


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
