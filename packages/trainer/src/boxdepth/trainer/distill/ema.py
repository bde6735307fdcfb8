"""A model that follows another one as a moving average, and its forward passes."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn


def make_teacher(student: nn.Module) -> nn.Module:
    """A copy of the student, parameters and buffers, in fp32 and without gradient.

    fp32 because a half-precision weight would swallow most steps of 0.001.
    """
    return copy.deepcopy(student).requires_grad_(False).float().eval()


def teacher_momentum(
    steps_since_start: int, *, momentum: float = 0.999, ramp: bool = False
) -> float:
    """Weight of the old teacher in the update before the step of that number (0-based).

    0 at the teacher's first step, which makes it equal to the student.  With ``ramp`` it rises as
    1 - 1 / (i + 1) until it reaches ``momentum``, as BoxTeacher's does (arXiv 2210.05174).
    """
    if steps_since_start == 0:
        return 0.0
    return min(momentum, 1 - 1 / (steps_since_start + 1)) if ramp else momentum


@torch.no_grad()
def update_teacher(
    teacher: nn.Module, student: nn.Module, *, momentum: float, average_buffers: bool = True
) -> None:
    """Move the teacher towards the student: ``teacher = m teacher + (1 - m) student``.

    Takes in the whole state dict: floating tensors are averaged in the teacher's fp32, counters
    are copied.  A momentum of 0 copies everything, whatever the teacher held before.

    Args:
        average_buffers: False leaves the teacher's buffers (BatchNorm statistics) to its own
            forward passes, as BoxTeacher does; a momentum of 0 copies them all the same.

    Raises:
        ValueError: the two models don't have the same state.
    """
    theirs = student.state_dict()
    mine = teacher.state_dict()
    if mine.keys() != theirs.keys():
        different = sorted(mine.keys() ^ theirs.keys())
        raise ValueError(
            f"teacher and student differ in {len(different)} entries, first {different[0]!r}: "
            "the teacher must be made from the student by make_teacher"
        )
    if momentum == 0:
        teacher.load_state_dict(theirs)
        return
    followed = dict(teacher.named_parameters()) if not average_buffers else mine
    average = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]
    floating = [name for name in followed if mine[name].is_floating_point()]
    if floating:
        average([mine[n] for n in floating], [theirs[n].to(mine[n].dtype) for n in floating], 0)
    for name in followed.keys() - set(floating):
        mine[name].copy_(theirs[name])


@contextmanager
def teaching(teacher: nn.Module, *, batch_stats: bool = True) -> Iterator[nn.Module]:
    """The teacher ready for a forward pass; afterwards it is in evaluation mode again.

    With ``batch_stats`` the BatchNorms that training would update use the batch's statistics and
    follow them, as the authors' and BoxTeacher's teachers do; frozen norms stay frozen, and
    dropout and stochastic depth stay off.
    """
    if batch_stats:
        teacher.train()
        learning = [m for m in teacher.modules() if isinstance(m, _BatchNorm) and m.training]
        teacher.eval()
        for norm in learning:
            norm.train()
    try:
        yield teacher
    finally:
        teacher.eval()
