"""Learning rate of an iteration, and the parameter groups."""

import pytest
import torch
from torch import nn

from boxdepth.trainer.engine.optim import make_optimizer, parameter_groups, set_learning_rate
from boxdepth.trainer.engine.schedule import learning_rate, scaled_learning_rate


def rate(iteration: int, warmup: int = 10) -> float:
    return learning_rate(
        iteration,
        base=0.1,
        steps=(20, 30),
        gamma=0.1,
        warmup_iterations=warmup,
        warmup_factor=0.001,
    )


def test_the_rate_rises_linearly_then_falls_at_each_step() -> None:
    assert rate(0) == pytest.approx(1e-4)
    assert rate(5) == pytest.approx(0.1 * (0.001 * 0.5 + 0.5))
    assert rate(10) == rate(19) == pytest.approx(0.1)
    assert rate(20) == rate(29) == pytest.approx(0.01)
    assert rate(30) == rate(10_000) == pytest.approx(0.001)


def test_without_warmup_the_first_iteration_has_the_full_rate() -> None:
    assert rate(0, warmup=0) == pytest.approx(0.1)


def test_the_rate_is_proportional_to_the_batch() -> None:
    assert scaled_learning_rate(0.01, batch_size=2, reference_batch_size=16) == 0.00125


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.group = nn.GroupNorm(2, 4)
        self.frozen = nn.Conv2d(4, 4, 1).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(1))
        self.again = self.conv


def test_norms_do_not_decay_and_frozen_and_shared_weights_count_once() -> None:
    decayed, norms = parameter_groups(Net(), weight_decay=1e-4, norm_weight_decay=0.0)
    assert set(decayed.names) == {"scale", "conv.weight", "conv.bias"}
    assert set(norms.names) == {"norm.weight", "norm.bias", "group.weight", "group.bias"}
    assert (decayed.weight_decay, norms.weight_decay) == (1e-4, 0.0)


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_holds_both_groups(name: str, kind: type) -> None:
    groups = parameter_groups(Net(), weight_decay=1e-4, norm_weight_decay=0.0)
    optimizer = make_optimizer(groups, name=name, learning_rate=0.1, momentum=0.9)  # type: ignore[arg-type]
    assert isinstance(optimizer, kind)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4, 0.0]
    set_learning_rate(optimizer, 0.02)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.02]
