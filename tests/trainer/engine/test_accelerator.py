"""Every kind of training step on a make-believe accelerator: nothing mixed, and few waits."""

import pytest
import torch
from tests import phantom
from tests.trainer.loss_curves import STORE

from boxdepth.trainer import build
from boxdepth.trainer.config import presets
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.engine.distributed import World
from boxdepth.trainer.engine.health import NonFiniteGuard
from boxdepth.trainer.engine.update import learn_step
from boxdepth.trainer.geometry.levels import gather_rows

COMMON = (
    "data.workers=0", "losses.warmup_iterations=1", "data.augmentation.short_sides=[64]",
    "data.augmentation.max_size=96", "data.group_aspect=false", "model.fpn_channels=32",
    'model.backbone.extra={"channels": [8, 16, 16, 32], "stem_width": 8}', "model.fcos.convs=1",
)  # fmt: skip
TEACHER = (
    "distillation.start=0", "distillation.reliability=0.01", "distillation.teacher_short_side=96",
    "distillation.teacher_max_size=128",
)  # fmt: skip
DISTILLED = ("distillation.method=depth_matching", *TEACHER)
KINDS: dict[str, tuple[str, ...]] = {
    "the method": (),
    "boxinst": ("model.mask_head.depth=off", "losses.depth=0", "losses.consistency=0"),
    "distilled": DISTILLED,
    "distilled, mates apart": (*DISTILLED, "distillation.teacher_batch_stats=false"),
    "box_teacher": (
        "distillation.method=box_teacher", *TEACHER, "distillation.mask_affinity=0.1",
        "data.augmentation.color=strong",
    ),
    "condinst": (
        "data.supervision=masks", "losses.sampling.per_image=null", "losses.sampling.per_batch=5",
    ),
    "masks, semantic": ("data.supervision=masks", "model.mask_branch.semantic_loss=true"),
    "mixed": ("data.supervision=mixed", "data.mask_fraction=0.5"),
    "iou, sgd": ("model.fcos.quality=iou", "optimizer.name=sgd", "optimizer.clip_norm=null"),
    "deformable": (
        "model.backbone.name=resnet26", 'model.backbone.extra={"channels": [8, 16, 16, 32]}',
        "model.backbone.deformable_stages=[5]",
    ),
}  # fmt: skip

PLAIN = 3
"""Waits a step, whatever the batch: how many locations are positive, how many of each image are
sampled, and whether all losses and gradients are finite."""

TAUGHT = 4
"""More for each image: its candidates above the threshold, those that survive NMS, those with an
area in the student's frame, and the scores that the assignment on the host needs."""


def waits(kind: str, images: int, monkeypatch: pytest.MonkeyPatch) -> phantom.Ledger:
    """What a step in the middle of a run waits for."""
    run = apply_overrides(
        presets.scenes_tiny(), [*COMMON, f"data.batch_size={images}", *KINDS[kind]]
    )
    data = build.training_set(run, STORE)
    run = build.with_classes(run, len(data.store.attributes.categories))
    loader = build.batch_loader(run, data, World())
    guard = NonFiniteGuard()
    with phantom.accelerator(monkeypatch) as ledger:
        learner = build.build_learner(run, phantom.DEVICE, World())
        torch.nn.init.constant_(learner.model.head.class_logits.bias, -1.5)
        for step, passes in enumerate(loader.steps(0, 2)):
            ledger.waits.clear()
            ledger.blocking_copies.clear()
            numbers = learn_step(learner, step, passes, guard=guard)
        assert all(isinstance(value, phantom.Phantom) for value in numbers.values())
    assert guard.skipped == 0
    return ledger


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_mixed_and_waits_are_bounded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = 2
    ledger = waits(kind, images, monkeypatch)
    taught = any("distillation" in setting for setting in KINDS[kind])
    bound = PLAIN + (TAUGHT * images if taught else 0)
    assert ledger.waits.total() <= bound, ledger.waits
    assert not ledger.blocking_copies


def test_waits_of_a_plain_step_do_not_grow_with_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits("the method", 4, monkeypatch).waits.total() <= PLAIN


def test_looking_at_the_health_waits_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("monitors" in line for line in waits("distilled", 2, monkeypatch).waits)


def test_a_phantom_is_as_picky_as_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with phantom.accelerator(monkeypatch) as ledger:
        there = torch.ones(3, device=phantom.DEVICE)
        with pytest.raises(phantom.DeviceMixError, match="host and device together"):
            there + torch.ones(3)
        assert (there + torch.tensor(2.0)).device == phantom.DEVICE
        assert float((there * 2).sum()) == 6
        assert there[there > 0].tolist() == [1, 1, 1]
        assert ledger.waits.total() == 3
        torch.ones(3).to(phantom.DEVICE, non_blocking=True)
        assert not ledger.blocking_copies
        torch.ones(3).to(phantom.DEVICE)
        assert ledger.blocking_copies.total() == 1


def test_rows_of_other_levels_are_spread_over_the_map() -> None:
    """Their gradients are zeros, but an accelerator adds equal indices one after another."""
    maps = [torch.zeros(1, 1, 8, 8, requires_grad=True), torch.zeros(1, 1, 4, 4)]
    seen: list[torch.Tensor] = []

    class Watched(torch.Tensor):
        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            seen.append(index[2] * 8 + index[3])
            return super().__getitem__(index)

    rows = torch.arange(64, 80)
    gather_rows([maps[0].as_subclass(Watched), maps[1]], rows, torch.ones_like(rows))
    assert len(seen[0].unique()) == len(rows)
