"""One update: gradients gathered, checked, clipped, applied, or thrown away as a whole."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from boxdepth.trainer import build
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.data.collate import collate
from boxdepth.trainer.engine.distributed import World
from boxdepth.trainer.engine.health import MAX_IN_A_ROW, NonFiniteError, NonFiniteGuard
from boxdepth.trainer.engine.step import step_losses
from boxdepth.trainer.engine.update import Learner, learn_step
from boxdepth.trainer.structures import Batch

CPU = torch.device("cpu")


@pytest.fixture
def parts(make_store, tiny_run: RunConfig) -> tuple[RunConfig, Learner, list[Batch]]:
    return built(make_store, tiny_run)


def built(make_store, run: RunConfig) -> tuple[RunConfig, Learner, list[Batch]]:
    dataset = build.training_set(run, make_store().path)
    run = build.with_classes(run, 2)
    learner = build.build_learner(run, CPU, World())
    batches = [passes[0] for passes in build.batch_loader(run, dataset, World()).steps(0, 3)]
    return run, learner, batches


def state(learner: Learner) -> dict[str, Tensor]:
    momenta = {
        f"momentum/{k}": v["momentum_buffer"].clone()
        for k, v in learner.optimizer.state_dict()["state"].items()
    }
    teacher = learner.teacher.module.state_dict() if learner.teacher else {}
    both = {**learner.model.state_dict(), **{f"teacher/{k}": v for k, v in teacher.items()}}
    return {**{k: v.clone() for k, v in both.items()}, **momenta}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_step_reports_every_term_and_moves_the_weights(parts) -> None:
    _, learner, batches = parts
    before = state(learner)
    numbers = learn_step(learner, 0, batches[:1], guard=NonFiniteGuard())
    assert {"total_loss", "gradient_norm", "losses/projection", "losses/depth"} <= numbers.keys()
    assert all(torch.isfinite(value) for value in numbers.values())
    assert not same(before, state(learner))


def test_a_step_is_a_function_of_seed_and_step_alone(make_store, tiny_run: RunConfig) -> None:
    results = []
    for _ in range(2):
        _, learner, batches = built(make_store, tiny_run)
        torch.rand(7)
        learn_step(learner, 0, batches[:1], guard=NonFiniteGuard())
        results.append(state(learner))
    assert same(*results)


@contextmanager
def poisoned(learner: Learner, part: str) -> Iterator[None]:
    """The student's outputs are NaN as long as this lasts."""
    module = learner.model.get_submodule(part)
    handle = module.register_forward_hook(lambda _module, _inputs, out: out * float("nan"))
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("place", ["loss", "gradient"])
def test_a_step_that_is_not_finite_leaves_no_trace(
    parts, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights, momenta and running statistics: everything but the count stays as it was."""
    _, learner, batches = parts
    guard = NonFiniteGuard()
    learn_step(learner, 0, batches[:1], guard=guard)
    before = copy.deepcopy(state(learner))
    if place == "loss":
        with poisoned(learner, "mask_branch"):
            assert learn_step(learner, 1, batches[:1], guard=guard) == {}
        assert "projection" in caplog.text
    else:
        handle = next(iter(learner.model.parameters())).register_hook(lambda g: g * float("inf"))
        assert learn_step(learner, 1, batches[:1], guard=guard) == {}
        handle.remove()
        assert "gradient not finite" in caplog.text
    assert str(batches[0].image_ids[0]) in caplog.text
    assert same(before, state(learner))
    assert (guard.skipped, guard.in_a_row) == (1, 1)
    learn_step(learner, 2, batches[:1], guard=guard)
    assert (guard.skipped, guard.in_a_row) == (1, 0)


def test_the_tenth_in_a_row_ends_the_run(parts) -> None:
    _, learner, batches = parts
    guard = NonFiniteGuard()
    said = r"10 steps in a row.*classification.*images \[.*learning_rate"
    with poisoned(learner, "head.class_logits"):
        for step in range(MAX_IN_A_ROW - 1):
            learn_step(learner, step, batches[:1], guard=guard)
        with pytest.raises(NonFiniteError, match=said):
            learn_step(learner, 9, batches[:1], guard=guard)


def test_an_infinite_pixel_of_batch_statistics_is_undone(parts) -> None:
    """The forward pass itself spoils running statistics: they must be put back."""
    _, learner, batches = parts
    norm = next(m for m in learner.model.modules() if isinstance(m, nn.BatchNorm2d))
    handle = norm.register_forward_pre_hook(lambda module, x: (x[0] * float("inf"),))
    learn_step(learner, 0, batches[:1], guard=NonFiniteGuard())
    handle.remove()
    assert all(torch.isfinite(b).all() for b in learner.model.buffers())


def test_clipping_bounds_the_step(make_store, tiny_run: RunConfig) -> None:
    run = apply_overrides(tiny_run, ["optimizer.clip_norm=1e-6", "optimizer.weight_decay=0"])
    _, learner, batches = built(make_store, run)
    before = state(learner)
    learn_step(learner, 5, batches[:1], guard=NonFiniteGuard())
    names = dict(learner.model.named_parameters())
    moved = sum((learner.model.state_dict()[k] - before[k]).norm() ** 2 for k in names) ** 0.5
    assert moved <= 1.01e-6 * learner.learning_rate.at(5)


def test_accumulated_passes_average_their_gradients(make_store, tiny_run: RunConfig) -> None:
    """Twice the same pass is the pass itself."""
    results = []
    for copies in (1, 2):
        frozen = apply_overrides(tiny_run, ["model.backbone.frozen_norm=true"])
        _, learner, batches = built(make_store, frozen)
        learner.model.eval()
        learn_step(learner, 0, batches[:1] * copies, guard=NonFiniteGuard())
        results.append(state(learner))
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-4, atol=1e-7)


def test_bf16_keeps_losses_in_fp32(make_store, tiny_run: RunConfig) -> None:
    run = apply_overrides(tiny_run, ["precision=bf16"])
    _, learner, batches = built(make_store, run)
    terms = step_losses(learner.network, batches[0], learner.rules, step=0)
    assert all(value.dtype == torch.float32 for value in terms.values.values())
    numbers = learn_step(learner, 0, batches[:1], guard=NonFiniteGuard())
    assert torch.isfinite(numbers["total_loss"])


def test_a_batch_without_boxes_still_trains(make_store, tiny_run: RunConfig) -> None:
    """Every parameter gets a gradient, so that data parallel ranks stay in step."""

    def only_first(index: int, height: int, width: int) -> np.ndarray:
        box = np.array([[5, 5, 50, 40]], np.float32)
        return box if index == 0 else np.zeros((0, 4), np.float32)

    run = apply_overrides(tiny_run, ["data.keep_empty=true"])
    dataset = build.training_set(run, make_store(boxes=only_first).path)
    learner = build.build_learner(build.with_classes(run, 2), CPU, World())
    batch = collate([dataset.load(1, epoch=0), dataset.load(2, epoch=0)])
    numbers = learn_step(learner, 5, [batch], guard=NonFiniteGuard())
    assert torch.isfinite(numbers["total_loss"])
    without = [n for n, p in learner.model.named_parameters() if p.grad is None]
    assert not without


def test_the_teacher_starts_as_the_student_and_follows_it(make_store, tiny_run: RunConfig) -> None:
    run = apply_overrides(
        tiny_run,
        ["distillation.method=depth_matching", "distillation.start=1",
         "distillation.momentum=0.5", "distillation.teacher_short_side=64"],
    )  # fmt: skip
    _, learner, batches = built(make_store, run)
    assert learner.teacher is not None
    guard = NonFiniteGuard()
    learn_step(learner, 0, batches[:1], guard=guard)
    student = {n: p.detach().clone() for n, p in learner.model.named_parameters()}
    teacher = dict(learner.teacher.module.named_parameters())
    assert all(torch.equal(teacher[n], student[n]) for n in student), "at t0: equal to the student"
    numbers = learn_step(learner, 1, batches[:1], guard=guard)
    assert "losses/pseudo_mask" in numbers
    later = {n: p.detach().clone() for n, p in learner.model.named_parameters()}
    for name in student:
        torch.testing.assert_close(teacher[name], (student[name] + later[name]) / 2)


TEACHER = (
    "distillation.start=1", "distillation.momentum=0.5", "distillation.teacher_short_side=64",
)  # fmt: skip


@pytest.mark.parametrize("method", ["depth_matching", "box_teacher"])
@pytest.mark.parametrize("skipped", [1, 2], ids=["the first step", "a later step"])
def test_a_skipped_step_leaves_the_teacher_as_it_was(
    make_store, tiny_run: RunConfig, method: str, skipped: int
) -> None:
    """Its weights, and the running statistics that its own forward passes move."""
    run = apply_overrides(tiny_run, [f"distillation.method={method}", *TEACHER])
    _, learner, batches = built(make_store, run)
    guard = NonFiniteGuard()
    for step in range(skipped):
        learn_step(learner, step, batches[:1], guard=guard)
    before = copy.deepcopy(state(learner))
    with poisoned(learner, "mask_branch"):
        assert learn_step(learner, skipped, batches[:1], guard=guard) == {}
    assert same(before, state(learner))


def test_after_a_skipped_step_the_teacher_moves_once(make_store, tiny_run: RunConfig) -> None:
    run = apply_overrides(tiny_run, ["distillation.method=depth_matching", *TEACHER])
    _, learner, batches = built(make_store, run)
    assert learner.teacher is not None
    teacher, guard = learner.teacher, NonFiniteGuard()
    learn_step(learner, 0, batches[:1], guard=guard)
    with poisoned(learner, "mask_branch"):
        learn_step(learner, 1, batches[:1], guard=guard)
    before = {n: p.detach().clone() for n, p in teacher.module.named_parameters()}
    learn_step(learner, 2, batches[:1], guard=guard)
    student = dict(learner.model.named_parameters())
    for name, value in teacher.module.named_parameters():
        torch.testing.assert_close(value, (before[name] + student[name]) / 2)


def test_health_is_looked_at_only_when_asked_for(parts) -> None:
    _, learner, batches = parts
    plain = learn_step(learner, 0, batches[:1], guard=NonFiniteGuard())
    assert not [name for name in plain if name.startswith("monitors/")]
    seen = learn_step(learner, 1, batches[:1], guard=NonFiniteGuard(), watching=True)
    assert {"monitors/tightness", "monitors/positives", "monitors/depth_pairs"} <= seen.keys()


def test_masks_supervise_where_they_are_allowed_to(make_store, tiny_run: RunConfig) -> None:
    store = make_store(masks=True)
    run = apply_overrides(
        tiny_run, ["data.supervision=masks", 'losses.sampling={"per_image": null, "per_batch": 8}']
    )
    dataset = build.training_set(run, store.path)
    learner = build.build_learner(build.with_classes(run, 2), CPU, World())
    passes = next(build.batch_loader(run, dataset, World()).steps(0, 1))
    numbers = learn_step(learner, 0, passes, guard=NonFiniteGuard())
    assert "losses/mask" in numbers
    assert "losses/projection" not in numbers
