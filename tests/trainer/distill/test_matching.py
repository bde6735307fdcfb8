"""Depth-aware matching: golden vectors 1, 10 and 11 of the method, and what must always hold."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxdepth.trainer.distill.matching import (
    MatchingWeights,
    box_overlaps,
    depth_scores,
    depth_smoothness,
    depth_steps,
    match,
    matching_scores,
    weights_at,
)
from boxdepth.trainer.distill.rules import Matching

BOXES = torch.tensor([[0.0, 0, 10, 10], [8, 0, 18, 10]])
CANDIDATES = torch.tensor([[0.0, 0, 10, 9], [1, 0, 11, 10], [9, 0, 18, 10]])
S_DEP = torch.tensor([[0.6, 0.95, 0.5], [0.4, 0.9, 0.7]])
S_PRED = torch.tensor([0.9, 0.6, 0.8])


def _scores(weights: MatchingWeights, overlap: str = "iou") -> torch.Tensor:
    return matching_scores(
        overlaps=box_overlaps(BOXES, CANDIDATES, kind=overlap),
        depth=S_DEP,
        candidate_scores=S_PRED,
        weights=weights,
    )


def _weights(alpha: float, beta: float, schedule: str = "constant", progress: float = 0.0):
    matching = Matching(alpha=alpha, beta=beta, beta_schedule=schedule)
    return weights_at(matching, progress)


class TestGoldenVectors:
    def test_similarity_halves_its_exponent(self) -> None:
        depth = torch.zeros(1, 4, 12)
        expected = [1, 0.606531, 0.367879, 0.223130, 0.135335, 0.082085, 0.049787]
        for difference, value in enumerate(expected):
            depth[0, :, 4] = difference
            smooth = depth_smoothness(depth_steps(depth), size=(4, 12), theta=2.0)
            assert smooth[0, 0].item() == pytest.approx(value, abs=1e-6)

    def test_overlap_of_boxes(self) -> None:
        iou = _scores(_weights(1.0, 0.0))
        expected = [[0.9, 0.818182, 0.055556], [0.104651, 0.176471, 0.9]]
        torch.testing.assert_close(iou, torch.tensor(expected), atol=1e-6, rtol=0)
        giou = _scores(_weights(1.0, 0.0), "giou")
        expected[1][0] = 0.060207
        torch.testing.assert_close(giou, torch.tensor(expected), atol=1e-6, rtol=0)

    def test_boxes_alone_choose_the_outer_candidates(self) -> None:
        assert match(_scores(_weights(1.0, 0.0))).tolist() == [0, 2]

    def test_depth_changes_the_choice(self) -> None:
        scores = _scores(_weights(0.8, 0.2))
        matched = match(scores)
        assert matched.tolist() == [1, 2]
        chosen = scores[torch.arange(2), matched]
        torch.testing.assert_close(chosen, torch.tensor([0.844545, 0.86]), atol=1e-6, rtol=0)

    def test_decayed_depth_weight_with_giou(self) -> None:
        weights = _weights(0.8, 0.2, "linear", 65 / 90)
        assert (weights.depth, weights.prediction) == pytest.approx((0.055556, 0.144444), abs=1e-6)
        scores = _scores(weights, "giou")
        matched = match(scores)
        assert matched.tolist() == [0, 2]
        chosen = scores[torch.arange(2), matched]
        torch.testing.assert_close(chosen, torch.tensor([0.883333, 0.874444]), atol=1e-6, rtol=0)

    @pytest.mark.parametrize(
        ("kind", "value"), [("ratio", 0.625), ("eq8", 0.864284), ("ratio_and_edges", 0.625)]
    )
    def test_depth_score_of_a_mask(self, kind: str, value: float) -> None:
        mask = torch.tensor([[[0.0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 0]]])
        smoothness = torch.tensor([1, 1, 0.607, 0.2, 0.05]).expand(3, 5)
        score = depth_scores(torch.ones_like(mask), mask, smoothness, kind=kind)
        assert score.item() == pytest.approx(value, abs=1e-5)


class TestWeights:
    @given(progress=st.floats(0, 1), alpha=st.floats(0, 1), share=st.floats(0, 1))
    def test_sum_is_one_at_every_time(self, progress: float, alpha: float, share: float) -> None:
        for schedule in ("constant", "linear"):
            weights = _weights(alpha, share * (1 - alpha), schedule, progress)
            for w in (weights, weights.without_depth()):
                assert w.overlap + w.depth + w.prediction == pytest.approx(1, abs=1e-6)

    def test_authors_weights_at_the_start_of_distillation(self) -> None:
        weights = _weights(0.8, 0.2, "linear", 65_000 / 90_000)
        assert weights.depth == pytest.approx(0.056, abs=5e-4)
        assert weights.prediction == pytest.approx(0.144, abs=5e-4)

    def test_missing_depth_keeps_the_scale_of_the_score(self) -> None:
        weights = _weights(0.8, 0.2).without_depth()
        assert (weights.overlap, weights.depth, weights.prediction) == pytest.approx((1, 0, 0))
        assert _weights(0.0, 1.0).without_depth().overlap == 1


class TestSmoothness:
    def test_equals_a_slow_loop(self) -> None:
        generator = torch.Generator().manual_seed(0)
        depth = torch.rand((1, 32, 64), generator=generator) * 10
        height, width = 27, 49
        smooth = depth_smoothness(depth_steps(depth), size=(height, width), theta=2.0)
        expected = np.zeros((8, 16))
        for i in range(8):
            for j in range(16):
                y, x = 4 * i + 2, 4 * j + 2
                if y < height and x + 2 < width:
                    difference = abs(float(depth[0, y, x]) - float(depth[0, y, x + 2]))
                    expected[i, j] = np.exp(-0.5 * difference)
        np.testing.assert_allclose(smooth.numpy(), expected, rtol=1e-5)

    def test_padding_changes_nothing(self) -> None:
        depth = torch.arange(24 * 40, dtype=torch.float32).view(1, 24, 40) % 7
        padded = torch.nn.functional.pad(depth, (0, 24, 0, 8), value=200.0)
        small = depth_smoothness(depth_steps(depth), size=(24, 40), theta=2.0)
        large = depth_smoothness(depth_steps(padded), size=(24, 40), theta=2.0)
        assert torch.equal(large[:6, :10], small)
        assert large.sum() == small.sum()


class TestDepthScores:
    def test_equals_a_slow_loop(self) -> None:
        generator = torch.Generator().manual_seed(1)
        boxes = (torch.rand((3, 6, 8), generator=generator) > 0.4).float()
        masks = (torch.rand((5, 6, 8), generator=generator) > 0.5).float()
        smooth = torch.rand((6, 8), generator=generator)
        for kind in ("eq8", "ratio", "ratio_and_edges"):
            scores = depth_scores(boxes, masks, smooth, kind=kind)
            for g in range(3):
                for p in range(5):
                    inside = boxes[g] * masks[p]
                    s = smooth if kind == "eq8" else torch.ones_like(smooth)
                    good = (smooth > 0.5) | ((smooth < 0.1) & (kind == "ratio_and_edges"))
                    value = (inside * s * good).sum() / (inside * s).sum()
                    assert scores[g, p].item() == pytest.approx(value.item(), abs=1e-6)

    def test_a_mask_outside_the_box_scores_zero(self) -> None:
        box, mask = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
        box[0, :2], mask[0, 2:] = 1, 1
        for kind in ("eq8", "ratio", "ratio_and_edges"):
            assert depth_scores(box, mask, torch.ones(4, 4), kind=kind).item() == 0

    def test_many_boxes_and_candidates_need_no_joint_tensor(self) -> None:
        boxes, masks = torch.ones(90, 200, 336), torch.ones(100, 200, 336)
        # 90 x 100 x 200 x 336 floats would be 2.4 GB
        assert depth_scores(boxes, masks, torch.ones(200, 336), kind="eq8").shape == (90, 100)


class TestMatch:
    @settings(max_examples=50)
    @given(g=st.integers(0, 4), p=st.integers(0, 4), seed=st.integers(0, 1000))
    def test_is_the_best_of_all_matchings(self, g: int, p: int, seed: int) -> None:
        scores = torch.rand((g, p), generator=torch.Generator().manual_seed(seed))
        matched = match(scores)
        total = sum(scores[i, j].item() for i, j in enumerate(matched.tolist()) if j >= 0)
        copies = [j for j in range(p) for _ in range(2 if p < g else 1)]
        slots = [*copies, *[None] * g]
        best = max(
            (
                sum(scores[i, j].item() for i, j in enumerate(choice) if j is not None)
                for choice in set(permutations(slots, g))
            ),
            default=0.0,
        )
        assert total == pytest.approx(best, abs=1e-5)

    def test_a_candidate_serves_one_box_if_there_are_enough(self) -> None:
        scores = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
        assert sorted(match(scores).tolist()) == [0, 1]

    def test_a_candidate_serves_two_boxes_but_never_three(self) -> None:
        matched = match(torch.tensor([[0.9], [0.8], [0.7]]))
        assert matched.tolist() == [0, 0, -1]

    def test_no_candidates(self) -> None:
        assert match(torch.zeros(2, 0)).tolist() == [-1, -1]
        assert match(torch.zeros(0, 3)).tolist() == []
