"""Pseudo masks: the teacher's own predictions, in the student's frame, without a gradient."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from boxdepth.trainer import config
from boxdepth.trainer.build import build_model, mask_head_spec
from boxdepth.trainer.distill.candidates import Candidates, GivenBoxes
from boxdepth.trainer.distill.matchers import match_by_depth, match_like_box_teacher
from boxdepth.trainer.distill.pseudo import Distiller, pseudo_masks
from boxdepth.trainer.distill.teacher import make_teacher
from boxdepth.trainer.geometry.boxes import box_bitmaps
from boxdepth.trainer.geometry.resize import aligned_bilinear
from boxdepth.trainer.model.condinst import CondInst
from boxdepth.trainer.model.dynamic_mask_head import mask_outputs
from boxdepth.trainer.predict import detect
from boxdepth.trainer.structures import Batch, Positives, PseudoMasks

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
        original_sizes=sizes,
    )


def distiller(**changes: object) -> Distiller:
    plain = Distiller(
        detect=partial(detect, score_threshold=0.05),
        matcher=partial(match_by_depth, reliability=0.2),
        mask_head=mask_head_spec(MODEL),
        short_side=128,
        max_size=200,
    )
    return replace(plain, **changes)


def test_are_binary_masks_inside_their_boxes(teacher: CondInst) -> None:
    batch = make_batch()
    pseudo = pseudo_masks(teacher, batch, distiller(), progress=0.8)
    assert pseudo.mask.shape == (3, 24, 32)
    assert set(pseudo.mask.unique().tolist()) <= {0.0, 1.0}
    outside = ~box_bitmaps(batch.boxes_xyxy, grid=(24, 32), stride=4)
    assert pseudo.mask[outside].count_nonzero() == 0
    assert pseudo.mask.count_nonzero() > 0
    assert torch.equal(pseudo.keep, pseudo.score > 0.2)
    assert (pseudo.weight == 1).all()


def test_can_be_kept_soft(teacher: CondInst) -> None:
    hard = pseudo_masks(teacher, make_batch(), distiller(), progress=0.8)
    soft = pseudo_masks(teacher, make_batch(), distiller(binarize=False), progress=0.8)
    assert torch.equal((soft.mask > 0.5).float(), hard.mask)
    assert ((soft.mask > 0) & (soft.mask < 1)).any()


def test_equal_the_slow_way_at_full_resolution(teacher: CondInst) -> None:
    """Masks resized to the student's image with the framework's own resize, then subsampled."""
    batch = make_batch(sizes=((90, 120),))
    batch = replace(batch, image_index=torch.zeros(3, dtype=torch.int64))
    settings = distiller(binarize=False, batch_stats=False)
    pseudo = pseudo_masks(teacher, batch, settings, progress=0.0)
    images = F.interpolate(
        batch.images[:, :, :90, :120].float(), size=(128, 170), mode="bilinear"
    ).round()
    images = F.pad(images, (0, 22, 0, 0)).to(torch.uint8)
    with torch.no_grad():
        outputs = teacher(images, torch.tensor([[128, 170]]))
    (found,) = settings.detect(outputs, torch.tensor([[128, 170]]))
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
    pseudo = pseudo_masks(teacher, make_batch(), distiller(), progress=0.0)
    assert not any(t.requires_grad for t in (pseudo.mask, pseudo.score, pseudo.weight))
    assert all(p.grad is None for p in teacher.parameters())
    assert not any(module.training for module in teacher.modules())


def test_move_the_teachers_running_statistics_only_on_demand(teacher: CondInst) -> None:
    def statistics() -> list[torch.Tensor]:
        return [b.clone() for name, b in teacher.named_buffers() if "running" in name]

    before = statistics()
    pseudo_masks(teacher, make_batch(), distiller(batch_stats=False), progress=0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(), strict=True))
    pseudo_masks(teacher, make_batch(), distiller(), progress=0.0)
    assert not all(torch.equal(a, b) for a, b in zip(before, statistics(), strict=True))


def test_without_candidates_no_box_has_a_mask(teacher: CondInst) -> None:
    for matcher in (match_by_depth, match_like_box_teacher):
        settings = distiller(detect=partial(detect, score_threshold=1.0), matcher=matcher)
        pseudo = pseudo_masks(teacher, make_batch(), settings, progress=0.0)
        assert pseudo.score.tolist() == [-1, -1, -1]
        assert not pseudo.keep.any()
        assert pseudo.mask.count_nonzero() == 0


def test_images_without_boxes_are_passed_over(teacher: CondInst) -> None:
    batch = make_batch()
    batch = replace(batch, image_index=torch.tensor([1, 1, 1]))
    pseudo = pseudo_masks(teacher, batch, distiller(), progress=0.0)
    assert pseudo.mask.shape == (3, 24, 32)


def test_box_teacher_weighs_by_quality(teacher: CondInst) -> None:
    matcher = partial(match_like_box_teacher, min_iou=0.05)
    pseudo: PseudoMasks = pseudo_masks(
        teacher, make_batch(), distiller(matcher=matcher), progress=0.0
    )
    assert pseudo.keep.any()
    assert torch.equal(pseudo.keep, pseudo.weight > 0)
    assert (pseudo.weight <= 1).all()


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
            inverse_depth=depth.contiguous(),
            depth_valid=depth_valid,
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

    @pytest.mark.parametrize("kind", ["eq8", "ratio"])
    def test_prefers_the_mask_on_one_surface(self, kind: str) -> None:
        match: Callable[..., object] = partial(match_by_depth, depth_score=kind, progress=0.0)
        assert match(self._given(), self._candidates()).index.tolist() == [1]

    def test_goes_by_boxes_where_depth_is_missing(self) -> None:
        matches = match_by_depth(
            self._given(depth_valid=False), self._candidates(), progress=0.0, reliability=0.99
        )
        assert matches.index.tolist() == [0]
        assert matches.score.item() == pytest.approx(1.0)
        assert matches.keep.all()
