"""The teacher of a run: when it begins, how it follows the student, and what it teaches."""

from collections.abc import Mapping
from typing import Any, final

from torch import Tensor, nn

from boxdepth.trainer.distill.ema import make_teacher, teacher_momentum, update_teacher
from boxdepth.trainer.distill.pseudo import PseudoRules, pseudo_masks
from boxdepth.trainer.structures import Batch, MaskGrid, PseudoMasks


@final
class Teacher:
    """A second whole model that follows the student as a moving average."""

    def __init__(self, student: nn.Module, rules: PseudoRules, iterations: int) -> None:
        self.module = make_teacher(student)
        self._rules, self._iterations = rules, iterations
        self._ready_for: int | None = None

    def replan(self, rules: PseudoRules, iterations: int) -> None:
        """Begin and end with a schedule that was fitted to the time there is."""
        self._rules, self._iterations = rules, iterations

    @property
    def start(self) -> int:
        """t0: the first step (0-based) that has a teacher."""
        return self._rules.distillation.start

    @property
    def learns_in_passes(self) -> bool:
        """Whether forward passes move its running statistics."""
        return self._rules.distillation.teacher_batch_stats

    def follow(self, student: nn.Module, step: int) -> None:
        """Be the teacher of ``step``: the average of all students before it, from t0 on.

        Asked again for the same step it stays where it is.
        """
        if step < self.start or self._ready_for == step:
            return
        like_box_teacher = self._rules.distillation.method == "box_teacher"
        momentum = teacher_momentum(
            step - self.start,
            momentum=self._rules.distillation.momentum,
            ramp=like_box_teacher,
        )
        update_teacher(
            self.module, student, momentum=momentum, average_buffers=not like_box_teacher
        )
        self._ready_for = step

    def masks(self, batch: Batch, grid: MaskGrid, step: int) -> PseudoMasks | None:
        """Its mask of each box of the batch; None before t0."""
        if step < self.start:
            return None
        return pseudo_masks(self.module, batch, grid, self._rules, progress=step / self._iterations)

    def state(self) -> dict[str, Any]:
        """Beside the weights: fit for a checkpoint."""
        return {"ready_for": self._ready_for}

    def restore(self, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Back from a checkpoint; one of before `state` was kept has yet to move its weights."""
        self.module.load_state_dict(dict(weights))
        self._ready_for = state.get("ready_for")
