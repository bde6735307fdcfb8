"""Pseudo masks: the teacher's own predictions, in the student's frame, without a gradient."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from boxdepth.trainer import config
from boxdepth.trainer.build import build_model, mask_head_spec
from boxdepth.trainer.distill import matchers
from boxdepth.trainer.distill.candidates import Candidates, GivenBoxes
from boxdepth.trainer.distill.ema import make_teacher
from boxdepth.trainer.distill.matchers import match_by_depth, match_like_box_teacher
from boxdepth.trainer.distill.matching import depth_steps
from boxdepth.trainer.distill.pseudo import PseudoRules, pseudo_masks
from boxdepth.trainer.distill.rules import Distillation, Matching
from boxdepth.trainer.geometry.boxes import box_bitmaps
from boxdepth.trainer.geometry.resize import aligned_bilinear
from boxdepth.trainer.model.condinst import CondInst
from boxdepth.trainer.model.detections import detect
from boxdepth.trainer.model.dynamic_mask_head import mask_outputs
from boxdepth.trainer.model.rules import DetectionLimits
from boxdepth.trainer.structures import Batch, Positives, PseudoMasks
from boxdepth.trainer.targets.mask_grid import mask_grid

MODEL = config.Model(
    num_classes=3,
    backbone=config.Backbone(
        name="resnet10t",
        frozen_stages=0,
        frozen_norm=False,
        extra={"channels": (8, 16, 16, 32), "stem_width": 8},
    ),
    fpn_channels=32,
    fcos=config.FcosHead(convs=1, prior=0.3),
    mask_branch=config.MaskBranch(channels=16, convs=1),
)


@pytest.fixture(scope="module")
def teacher() -> CondInst:
    """A network of random weights that detects a lot of things, with masks of all shapes."""
    torch.manual_seed(0)
    model = build_model(MODEL)
    with torch.no_grad():
        model.controller.weight.normal_(std=0.05)
        model.controller.bias.normal_(std=0.5)
        model.head.ltrb.bias.fill_(1.5)
    return make_teacher(model)


def make_batch(*, sizes: tuple[tuple[int, int], ...] = ((90, 120), (96, 128))) -> Batch:
    generator = torch.Generator().manual_seed(1)
    height, width = (-(-max(side) // 32) * 32 for side in zip(*sizes, strict=True))
    count = len(sizes)
    images = torch.randint(0, 256, (count, 3, height, width), generator=generator)
    depth = (
        torch.rand((count, 1, 1, width), generator=generator).cumsum(-1).expand(-1, -1, height, -1)
    )
    inside = torch.zeros(count, height, width, dtype=torch.bool)
    for mask, (h, w) in zip(inside, sizes, strict=True):
        mask[:h, :w] = True
    boxes = torch.tensor([[10.0, 8, 60, 50], [40, 30, 110, 85], [5, 5, 90, 90]])
    return Batch(
        images=(images * inside[:, None]).to(torch.uint8),
        sizes=torch.tensor(sizes),
        valid=inside,
        inverse_depth=depth.contiguous() * inside[:, None],
        depth_valid=torch.ones(count, dtype=torch.bool),
        boxes_xyxy=boxes,
        labels=torch.tensor([0, 1, 2]),
        image_index=torch.tensor([0, 0, count - 1]),
        centers_xy=(boxes[:, :2] + boxes[:, 2:]) / 2,
        masks=None,
        has_mask=torch.zeros(3, dtype=torch.bool),
        image_ids=tuple(range(count)),
    )


def rules(*, score_threshold: float = 0.05, **settings: object) -> PseudoRules:
    plain: dict[str, object] = {
        "method": "depth_matching",
        "reliability": 0.2,
        "teacher_short_side": 128,
        "teacher_max_size": 200,
    }
    return PseudoRules(
        distillation=Distillation(**(plain | settings)),
        mask_head=mask_head_spec(MODEL),
        limits=DetectionLimits(score_threshold=score_threshold),
        theta=2.0,
    )


def taught(
    teacher: CondInst, batch: Batch, rules: PseudoRules, progress: float = 0.0
) -> PseudoMasks:
    return pseudo_masks(teacher, batch, mask_grid(batch), rules, progress=progress)


def test_are_binary_masks_inside_their_boxes(teacher: CondInst) -> None:
    batch = make_batch()
    pseudo = taught(teacher, batch, rules())
    assert pseudo.mask.shape == (3, 24, 32)
    assert set(pseudo.mask.unique().tolist()) <= {0.0, 1.0}
    outside = ~box_bitmaps(batch.boxes_xyxy, grid=(24, 32), stride=4)
    assert pseudo.mask[outside].count_nonzero() == 0
    assert pseudo.mask.count_nonzero() > 0
    assert torch.equal(pseudo.keep, pseudo.score > 0.2)
    assert (pseudo.weight == 1).all()


def test_can_be_kept_soft(teacher: CondInst) -> None:
    hard = taught(teacher, make_batch(), rules())
    soft = taught(teacher, make_batch(), rules(binarize=False))
    assert torch.equal((soft.mask > 0.5).float(), hard.mask)
    assert ((soft.mask > 0) & (soft.mask < 1)).any()


def test_equal_the_slow_way_at_full_resolution(teacher: CondInst) -> None:
    """Masks resized to the student's image with the framework's own resize, then subsampled."""
    batch = make_batch(sizes=((90, 120),))
    batch = replace(batch, image_index=torch.zeros(3, dtype=torch.int64), counts=())
    settings = rules(binarize=False, teacher_batch_stats=False)
    pseudo = taught(teacher, batch, settings)
    images = F.interpolate(
        batch.images[:, :, :90, :120].float(), size=(128, 170), mode="bilinear"
    ).round()
    images = F.pad(images, (0, 22, 0, 0)).to(torch.uint8)
    with torch.no_grad():
        outputs = teacher(images, torch.tensor([[128, 170]]))
    (found,) = detect(outputs, [(128, 170)], settings.limits)
    zeros = torch.zeros_like(found.level)
    positives = Positives(
        location_xy=found.location_xy,
        level=found.level,
        box_index=zeros,
        image_index=zeros,
        params=found.params,
    )
    logits = mask_outputs(outputs.mask_features, positives, settings.mask_head).logits
    masks = aligned_bilinear(logits.sigmoid(), 4)[..., :128, :170]
    masks = F.interpolate(masks, size=(90, 120), mode="bilinear")[:, 0, 2::4, 2::4]
    boxes = box_bitmaps(batch.boxes_xyxy, grid=(24, 32), stride=4)[:, :22, :30]
    assert (pseudo.score > -1).all()
    for mask, box in zip(pseudo.mask, boxes, strict=True):
        distance = (masks * box - mask[:22, :30]).abs().amax(dim=(1, 2))
        assert distance.min() < 1e-5, "it is one of the teacher's masks"


def test_leave_the_teacher_without_gradient_and_ready(teacher: CondInst) -> None:
    pseudo = taught(teacher, make_batch(), rules())
    assert not any(t.requires_grad for t in (pseudo.mask, pseudo.score, pseudo.weight))
    assert all(p.grad is None for p in teacher.parameters())
    assert not any(module.training for module in teacher.modules())


def test_move_the_teachers_running_statistics_only_on_demand(teacher: CondInst) -> None:
    def statistics() -> list[torch.Tensor]:
        return [b.clone() for name, b in teacher.named_buffers() if "running" in name]

    before = statistics()
    taught(teacher, make_batch(), rules(teacher_batch_stats=False))
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(), strict=True))
    taught(teacher, make_batch(), rules())
    assert not all(torch.equal(a, b) for a, b in zip(before, statistics(), strict=True))


def test_without_candidates_no_box_has_a_mask(teacher: CondInst) -> None:
    for method in ("depth_matching", "box_teacher"):
        pseudo = taught(teacher, make_batch(), rules(score_threshold=1.0, method=method))
        assert pseudo.score.tolist() == [-1, -1, -1]
        assert not pseudo.keep.any()
        assert pseudo.mask.count_nonzero() == 0


def test_images_without_boxes_are_passed_over(teacher: CondInst) -> None:
    batch = make_batch()
    batch = replace(batch, image_index=torch.tensor([1, 1, 1]), counts=())
    pseudo = taught(teacher, batch, rules())
    assert pseudo.mask.shape == (3, 24, 32)


def test_box_teacher_weighs_by_quality(teacher: CondInst, monkeypatch: pytest.MonkeyPatch) -> None:
    loose = partial(match_like_box_teacher, min_iou=0.05)
    monkeypatch.setattr(matchers, "match_like_box_teacher", loose)
    pseudo = taught(teacher, make_batch(), rules(method="box_teacher"))
    assert pseudo.keep.any()
    assert torch.equal(pseudo.keep, pseudo.weight > 0)
    assert (pseudo.weight <= 1).all()


def test_batch_mates_change_nothing_without_batch_statistics(teacher: CondInst) -> None:
    """Group norms look at padding: a larger mate must not add any to the teacher's input."""
    settings = rules(teacher_batch_stats=False, binarize=False)
    together = taught(teacher, make_batch(sizes=((60, 120), (96, 128))), settings)
    both = make_batch(sizes=((60, 120), (96, 128)))
    for image in range(2):
        own = both.image_index == image
        alone = replace(
            both,
            images=both.images[image : image + 1],
            sizes=both.sizes[image : image + 1],
            valid=both.valid[image : image + 1],
            inverse_depth=both.inverse_depth[image : image + 1],
            depth_valid=both.depth_valid[image : image + 1],
            boxes_xyxy=both.boxes_xyxy[own],
            labels=both.labels[own],
            image_index=torch.zeros(int(own.sum()), dtype=torch.int64),
            centers_xy=both.centers_xy[own],
            has_mask=both.has_mask[own],
            frames=(),
            counts=(),
        )
        single = taught(teacher, alone, settings)
        torch.testing.assert_close(single.score, together.score[own], atol=1e-5, rtol=0)
        torch.testing.assert_close(single.mask, together.mask[own], atol=1e-4, rtol=0)


class TestMatchByDepth:
    """One box on a slanted left and a flat right half; a candidate for each, and one for both."""

    size = (32, 64)

    def _given(self, *, depth_valid: bool = True) -> GivenBoxes:
        columns = torch.arange(64.0)
        depth = torch.where(columns < 32, columns * 3, torch.tensor(200.0)).expand(1, 32, -1)
        box = torch.tensor([[0.0, 0, 63, 31]])
        return GivenBoxes(
            boxes_xyxy=box,
            box_masks=box_bitmaps(box, grid=(8, 16), stride=4),
            depth_steps=depth_steps(depth),
            depth_valid=torch.tensor(depth_valid),
            size=self.size,
        )

    def _candidates(self) -> Candidates:
        masks = torch.zeros(2, 8, 16)
        masks[0, :, :8] = 1.0
        masks[1, :, 8:] = 1.0
        return Candidates(
            boxes_xyxy=torch.tensor([[0.0, 0, 63, 31], [0, 0, 63, 30]]),
            scores=torch.tensor([0.9, 0.9]),
            masks=masks,
        )

    def _matches(self, given: GivenBoxes, *, kind: str = "eq8", reliability: float = 0.8):
        settings = Distillation(
            method="depth_matching",
            reliability=reliability,
            matching=Matching(depth_score=kind),
        )
        return match_by_depth(given, self._candidates(), settings, theta=2.0, progress=0.0)

    @pytest.mark.parametrize("kind", ["eq8", "ratio"])
    def test_prefers_the_mask_on_one_surface(self, kind: str) -> None:
        assert self._matches(self._given(), kind=kind).index.tolist() == [1]

    def test_goes_by_boxes_where_depth_is_missing(self) -> None:
        matches = self._matches(self._given(depth_valid=False), reliability=0.99)
        assert matches.index.tolist() == [0]
        assert matches.score.item() == pytest.approx(1.0)
        assert matches.keep.all()
