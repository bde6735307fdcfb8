"""Health numbers: each equals what its sentence says, and each collapse is named."""

import math

import pytest
import torch
from torchvision.ops import box_iou

from boxdepth.trainer.engine.monitors import (
    complaints,
    pair_shares,
    pseudo_mask_shares,
    teacher_agreement,
    tightness,
)
from boxdepth.trainer.structures import PseudoMasks, TrustedPairs


def _rectangles(*corners: tuple[int, int, int, int], size: int = 12) -> torch.Tensor:
    masks = torch.zeros(len(corners), size, size, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def _pseudo(mask: torch.Tensor, score: list[float], keep: list[bool]) -> PseudoMasks:
    return PseudoMasks(
        mask=mask.float(),
        score=torch.tensor(score),
        keep=torch.tensor(keep, dtype=torch.bool),
        weight=torch.ones(len(score)),
    )


def _sources(color: torch.Tensor, depth: torch.Tensor) -> tuple[TrustedPairs, ...]:
    return (
        TrustedPairs(source="color", term="color", pairs=color),
        TrustedPairs(source="depth", term="consistency", pairs=depth),
    )


class TestMaskShape:
    def test_tightness_looks_at_extents_only(self) -> None:
        boxes = _rectangles((2, 2, 10, 10))
        diagonal = torch.zeros_like(boxes)
        for i in range(2, 10):
            diagonal[0, i, i] = True
        assert tightness(diagonal, boxes).item() == 1

    def test_tightness_equals_box_iou(self) -> None:
        corners = [(1, 2, 7, 9), (0, 0, 3, 3), (5, 5, 12, 12)]
        others = [(3, 1, 9, 8), (6, 6, 9, 9), (5, 5, 12, 12)]
        found = tightness(_rectangles(*corners), _rectangles(*others)).item()
        xyxy = lambda c: torch.tensor([[b, a, d, e] for a, b, e, d in c]).float()  # noqa: E731
        expected = box_iou(xyxy(corners), xyxy(others)).diagonal().mean().item()
        assert found == pytest.approx(expected, abs=1e-6)

    def test_an_empty_mask_has_no_extent(self) -> None:
        boxes = _rectangles((2, 2, 10, 10))
        assert tightness(torch.zeros_like(boxes), boxes).item() == 0

    def test_no_masks_at_all_is_no_number(self) -> None:
        nothing = torch.zeros(0, 4, 4, dtype=torch.bool)
        assert math.isnan(tightness(nothing, nothing))


class TestPairs:
    def test_counts_pairs_inside_boxes_only(self) -> None:
        color = torch.zeros(2, 8, 12, 12, dtype=torch.bool)
        color[0, :4, :6] = True
        depth = torch.ones_like(color)
        boxes = _rectangles((0, 0, 12, 6), (0, 6, 12, 12))
        shares = pair_shares(_sources(color, depth), boxes, torch.tensor([0, 0]))
        assert shares["color_pairs"].item() == pytest.approx(0.25)
        assert shares["depth_pairs"].item() == 1
        assert shares["common_pairs"].item() == pytest.approx(0.25)

    def test_overlapping_boxes_count_a_pair_once(self) -> None:
        color = torch.ones(1, 8, 12, 12, dtype=torch.bool)
        boxes = _rectangles((0, 0, 6, 6), (0, 0, 6, 6))
        shares = pair_shares(_sources(color, color), boxes, torch.tensor([0, 0]))
        assert shares["color_pairs"].item() == 1


class TestPseudoMasks:
    def test_shares_and_histogram(self) -> None:
        pseudo = _pseudo(
            torch.zeros(5, 4, 4), [0.85, 1.0, -1.0, 0.42, 0.88], [True, True, False, False, True]
        )
        shares = {name: value.item() for name, value in pseudo_mask_shares(pseudo).items()}
        assert shares["matched_boxes"] == pytest.approx(0.8)
        assert shares["reliable_boxes"] == pytest.approx(0.6)
        assert shares["matching_score/0.8"] == pytest.approx(0.4)
        assert shares["matching_score/0.9"] == pytest.approx(0.2)
        assert shares["matching_score/0.4"] == pytest.approx(0.2)
        total = sum(v for name, v in shares.items() if name.startswith("matching_score/"))
        assert total == pytest.approx(shares["matched_boxes"])

    def test_agreement_is_the_iou_with_reliable_masks(self) -> None:
        student = _rectangles((0, 0, 4, 4), (0, 0, 4, 4), (5, 5, 9, 9))
        pseudo = _pseudo(_rectangles((0, 0, 4, 2), (0, 0, 1, 1)), [0.9, 0.1], [True, False])
        agreement = teacher_agreement(student, pseudo, torch.tensor([0, 1, 1]))
        assert agreement.item() == pytest.approx(0.5)

    def test_nothing_reliable_is_no_number(self) -> None:
        pseudo = _pseudo(_rectangles((0, 0, 4, 2)), [0.1], [False])
        student = _rectangles((0, 0, 4, 4))
        assert math.isnan(teacher_agreement(student, pseudo, torch.tensor([0])))


class TestComplaints:
    def test_a_healthy_run_has_none(self) -> None:
        healthy = {
            "mask_by_box_area": 0.6,
            "tightness": 0.9,
            "color_pairs": 0.5,
            "depth_pairs": 0.6,
            "reliable_boxes": 0.5,
            "teacher_agreement": 0.8,
            "total": 3.0,
        }
        assert complaints(healthy) == []

    @pytest.mark.parametrize(
        ("numbers", "said"),
        [
            ({"mask_by_box_area": 1.2}, "masks fill or leave their boxes"),
            ({"mask_by_box_area": 0.01}, "collapsed"),
            ({"tightness": 0.2}, "sides of their boxes"),
            ({"depth_pairs": 1.0}, "0..255 units"),
            ({"color_pairs": 0.01}, "color_threshold"),
            ({"reliable_boxes": 0.0}, "hardly a box"),
            ({"teacher_agreement": 0.1}, "disagree"),
        ],
    )
    def test_each_collapse_is_named(self, numbers: dict[str, float], said: str) -> None:
        (only,) = complaints(numbers)
        assert said in only

    def test_missing_numbers_are_no_complaint(self) -> None:
        assert complaints({"tightness": math.nan}) == []
