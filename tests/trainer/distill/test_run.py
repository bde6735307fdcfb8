"""Distillation inside the training step: when it begins, what it moves, and how it resumes."""

import copy
import dataclasses
import math

import pytest
import torch
from tests.trainer.distill.test_pseudo import MODEL, make_batch

from boxdepth.trainer import build, config
from boxdepth.trainer.engine.distributed import World
from boxdepth.trainer.engine.health import NonFiniteGuard
from boxdepth.trainer.engine.monitors import pair_shares
from boxdepth.trainer.engine.update import Learner, learn_step
from boxdepth.trainer.structures import Batch
from boxdepth.trainer.targets.mask_grid import mask_grid
from boxdepth.trainer.targets.pairs import trusted_pairs
from boxdepth.trainer.targets.rules import PairRule

START = 2
CPU = torch.device("cpu")


def make_learner(**distillation: object) -> Learner:
    """A small network that learns fast enough to see a difference."""
    settings = {
        "method": "depth_matching",
        "start": START,
        "reliability": 0.1,
        "teacher_short_side": 128,
        "teacher_max_size": 200,
    } | distillation
    run = config.RunConfig(
        name="test",
        model=MODEL,
        data=config.Data(batch_size=2),
        losses=config.Losses(warmup_iterations=1),
        distillation=config.Distillation(**settings),
        optimizer=config.Optimizer(learning_rate=0.01, reference_batch_size=2),
        schedule=config.Schedule(iterations=8, steps=(), warmup_iterations=0),
        inference=config.Inference(score_threshold=0.01),
    )
    learner = build.build_learner(run, CPU, World())
    with torch.no_grad():
        for model in (learner.model, learner.teacher.module):
            model.head.ltrb.bias.fill_(1.5)
    return learner


def train(learner: Learner, *, start: int, stop: int) -> list[dict[str, float]]:
    """The numbers of each step."""
    guard = NonFiniteGuard()
    return [
        {
            name: float(value)
            for name, value in learn_step(
                learner, step, [make_batch()], guard=guard, watching=True
            ).items()
        }
        for step in range(start, stop)
    ]


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_no_pseudo_masks_before_the_start() -> None:
    steps = train(make_learner(), start=0, stop=START + 2)
    taught = [step["losses/pseudo_mask"] for step in steps]
    assert taught[:START] == [0, 0]
    assert all(value > 0 for value in taught[START:])
    assert all("monitors/reliable_boxes" not in step for step in steps[:START])
    assert all(step["monitors/reliable_boxes"] > 0 for step in steps[START:])


def test_teacher_starts_as_the_student_of_that_step() -> None:
    learner = make_learner(teacher_batch_stats=False)
    train(learner, start=0, stop=START - 1)
    student = weights(learner.model)
    assert learner.teacher is not None
    assert any(
        not torch.equal(value, student[name])
        for name, value in learner.teacher.module.state_dict().items()
    )
    train(learner, start=START - 1, stop=START)
    assert_equal(weights(learner.model), weights(learner.teacher.module))


def test_teacher_moves_a_thousandth_of_the_way_each_later_step() -> None:
    learner = make_learner(teacher_batch_stats=False)
    train(learner, start=0, stop=START + 1)
    assert learner.teacher is not None
    before = weights(learner.teacher.module)
    train(learner, start=START + 1, stop=START + 2)
    student = weights(learner.model)
    for name, value in learner.teacher.module.state_dict().items():
        if value.is_floating_point():
            expected = 0.999 * before[name] + 0.001 * student[name]
            torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)


def test_other_losses_go_on_unchanged() -> None:
    """gamma adds a term; it doesn't switch another one off."""
    steps = train(make_learner(), start=0, stop=START + 1)
    assert steps[0].keys() <= steps[START].keys()
    for name in ("projection", "color", "consistency", "depth"):
        assert steps[START][f"losses/{name}"] > 0


def test_a_resumed_run_is_the_same_run() -> None:
    whole = make_learner()
    train(whole, start=0, stop=5)
    first = make_learner()
    train(first, start=0, stop=3)
    second = make_learner()
    assert first.teacher is not None
    assert second.teacher is not None
    second.model.load_state_dict(first.model.state_dict())
    second.teacher.restore(first.teacher.module.state_dict(), first.teacher.state())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    train(second, start=3, stop=5)
    assert_equal(weights(whole.model), weights(second.model))
    assert whole.teacher is not None
    assert_equal(weights(whole.teacher.module), weights(second.teacher.module))


def test_a_checkpoint_of_before_the_teachers_state_was_kept_still_goes_on() -> None:
    """It holds the teacher of the step that was done: the next step moves it first."""
    learner, other = make_learner(teacher_batch_stats=False), make_learner()
    train(learner, start=0, stop=START + 1)
    assert learner.teacher is not None
    assert other.teacher is not None
    before, student = weights(learner.teacher.module), weights(learner.model)
    other.teacher.restore(before, {})
    other.teacher.follow(learner.model, START + 1)
    for name, value in other.teacher.module.state_dict().items():
        if value.is_floating_point():
            expected = 0.999 * before[name] + 0.001 * student[name]
            torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)


def test_box_teacher_teaches_from_the_first_step() -> None:
    learner = make_learner(
        method="box_teacher", start=0, gamma=0.5, mask_affinity=0.1, reliability=0.0
    )
    for step in train(learner, start=0, stop=3):
        assert math.isfinite(step["losses/pseudo_mask"])
        assert math.isfinite(step["losses/mask_affinity"])


def test_student_sees_its_own_colours_and_the_teacher_the_clean_image() -> None:
    learner = make_learner(teacher_short_side=None)
    train(learner, start=0, stop=START)
    assert learner.teacher is not None
    seen: dict[str, torch.Tensor] = {}
    for name, model in (("student", learner.model), ("teacher", learner.teacher.module)):
        model.register_forward_pre_hook(
            lambda _module, inputs, name=name: seen.update({name: inputs[0].clone()})
        )
    clean = make_batch()
    batch = dataclasses.replace(clean, student_images=255 - clean.images)
    numbers = learn_step(learner, START, [batch], guard=NonFiniteGuard(), watching=True)
    assert torch.equal(seen["student"], 255 - clean.images)
    assert torch.equal(seen["teacher"], clean.images)
    assert float(numbers["monitors/color_pairs"]) == pytest.approx(_color_pairs(clean))


def _color_pairs(batch: Batch) -> float:
    """Share of in-box pairs that the clean image's colours put together."""
    grid = mask_grid(batch)
    shares = pair_shares(trusted_pairs(grid, PairRule()), grid.box_bitmaps, batch.image_index)
    return shares["color_pairs"].item()
