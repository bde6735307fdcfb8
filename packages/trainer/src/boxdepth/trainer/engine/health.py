"""Non-finite numbers: noticed before they reach the weights, counted, and fatal when they stay."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor, nn

from boxdepth.trainer.errors import NonFiniteError

log = logging.getLogger(__name__)

MAX_IN_A_ROW: Final = 10


@final
@dataclass(slots=True, kw_only=True)
class NonFiniteGuard:
    """Counts skipped steps; part of the checkpoint."""

    skipped: int = 0
    in_a_row: int = 0

    def step_was_finite(self) -> None:
        """The row is broken."""
        self.in_a_row = 0

    def step_was_skipped(self, step: int, *, what: str, image_ids: Iterable[int]) -> None:
        """Count a step whose update was thrown away.

        Raises:
            NonFiniteError: the tenth in a row.
        """
        self.skipped += 1
        self.in_a_row += 1
        ids = list(image_ids)
        log.warning("step %d skipped: %s not finite; images %s", step, what, ids)
        if self.in_a_row >= MAX_IN_A_ROW:
            raise NonFiniteError(
                f"{MAX_IN_A_ROW} steps in a row without a finite update, the last at step {step}: "
                f"{what}; images {ids}. Lower the learning rate (--set "
                "optimizer.learning_rate=...), clip the gradient (--set optimizer.clip_norm=10), "
                "or use --set precision=fp32; the checkpoints before it are whole"
            )


def non_finite(values: Mapping[str, Tensor]) -> list[str]:
    """Names of the numbers that are NaN or infinite; one wait for the device."""
    names = list(values)
    if not names:
        return []
    finite = torch.isfinite(torch.stack([values[name].detach().float() for name in names]))
    return [name for name, ok in zip(names, finite.tolist(), strict=True) if not ok]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm of all gradients together; not finite if any of them is not."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.nn.utils.get_total_norm(gradients)
