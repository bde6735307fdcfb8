"""The teacher follows the student."""

import pytest
import torch
from torch import nn

from boxdepth.trainer.distill.ema import (
    make_teacher,
    teacher_momentum,
    teaching,
    update_teacher,
)


def _student() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))


def _changed(student: nn.Sequential) -> nn.Sequential:
    with torch.no_grad():
        for tensor in student.state_dict().values():
            tensor += 1
    return student


class TestUpdate:
    def test_starts_as_the_student_with_its_buffers(self) -> None:
        student = _changed(_student())
        teacher = make_teacher(student)
        for name, value in student.state_dict().items():
            assert torch.equal(teacher.state_dict()[name], value)

    def test_shares_no_memory_with_the_student(self) -> None:
        student = _student()
        teacher = make_teacher(student)
        before = teacher[0].weight.clone()
        _changed(student)
        assert torch.equal(teacher[0].weight, before)

    def test_averages_parameters_and_buffers_and_copies_counters(self) -> None:
        student = _student()
        teacher = make_teacher(student)
        before = {k: v.clone() for k, v in teacher.state_dict().items()}
        update_teacher(teacher, _changed(student), momentum=0.999)
        for name, value in teacher.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value, before[name] + 0.001, atol=2e-6, rtol=0)
            else:
                assert value == student.state_dict()[name] == 1

    def test_own_buffers_stay_with_box_teacher(self) -> None:
        student = _student()
        teacher = make_teacher(student)
        update_teacher(teacher, _changed(student), momentum=0.5, average_buffers=False)
        assert torch.equal(teacher[1].running_mean, torch.zeros(4))
        assert teacher[1].num_batches_tracked == 0
        torch.testing.assert_close(teacher[1].weight, torch.full((4,), 1.5))

    def test_momentum_zero_is_a_copy_even_over_nan(self) -> None:
        student = _student()
        teacher = make_teacher(student)
        nn.init.constant_(teacher[0].weight, torch.nan)
        update_teacher(teacher, student, momentum=0.0, average_buffers=False)
        assert torch.equal(teacher[0].weight, student[0].weight)

    def test_half_precision_student_has_a_full_precision_teacher(self) -> None:
        student = nn.Linear(1, 1, bias=False).bfloat16()
        nn.init.constant_(student.weight, 1.0)
        teacher = make_teacher(student)
        nn.init.constant_(student.weight, 2.0)
        update_teacher(teacher, student, momentum=0.999)
        assert teacher.weight.item() == pytest.approx(1.001, abs=1e-6)

    def test_tells_which_entry_differs(self) -> None:
        with pytest.raises(ValueError, match=r"differ in 2 entries, first '1.bias'"):
            update_teacher(
                nn.Sequential(nn.Linear(2, 2)),
                nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
                momentum=0.9,
            )


class TestMomentum:
    def test_is_zero_once_then_constant(self) -> None:
        assert [teacher_momentum(i) for i in range(3)] == [0, 0.999, 0.999]

    def test_ramp_rises_to_the_constant(self) -> None:
        ramp = [teacher_momentum(i, ramp=True) for i in (0, 1, 3, 998, 5000)]
        assert ramp == pytest.approx([0, 1 / 2, 3 / 4, 998 / 999, 0.999])


class TestTeaching:
    def test_batch_norm_learns_but_dropout_sleeps(self) -> None:
        teacher = make_teacher(_student())
        with teaching(teacher) as ready:
            assert ready[1].training
            assert not ready[2].training
            ready(torch.randn(2, 3, 8, 8))
        assert teacher[1].num_batches_tracked == 1
        assert not any(m.training for m in teacher.modules())

    def test_running_statistics_on_demand(self) -> None:
        with teaching(make_teacher(_student()), batch_stats=False) as ready:
            assert not any(m.training for m in ready.modules())

    def test_frozen_norms_stay_frozen(self) -> None:
        class Frozen(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm = nn.BatchNorm2d(3)

            def train(self, mode: bool = True) -> "Frozen":
                super().train(mode)
                self.norm.eval()
                return self

        with teaching(make_teacher(Frozen())) as ready:
            assert not ready.norm.training

    def test_takes_no_gradient(self) -> None:
        assert not any(p.requires_grad for p in make_teacher(_student()).parameters())
