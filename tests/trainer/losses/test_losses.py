"""Every loss equals its equation; its gradient flows where it must."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boxdepth.trainer.geometry.neighbours import neighbour_offsets
from boxdepth.trainer.losses.depth import depth_loss
from boxdepth.trainer.losses.dice import dice_losses
from boxdepth.trainer.losses.focal import sigmoid_focal_sum
from boxdepth.trainer.losses.iou import box_losses, smoothed_ious
from boxdepth.trainer.losses.pairwise import (
    disagreement,
    pairwise_sums,
    sums_over_list,
    sums_over_shifts,
)
from boxdepth.trainer.losses.projection import projection_losses
from boxdepth.trainer.losses.quality import quality_sum
from boxdepth.trainer.targets.pairs import similarity
from boxdepth.trainer.targets.rules import PairRule

Z = torch.tensor([[2, 2, -1], [2, 0, -3], [1, -1, -3.0]])
D = torch.tensor([[100, 100, 104], [100, 101, 104], [100, 103, 110.0]])
BOX = torch.tensor([[True, True, False]] * 3)


def pairs(logits: Tensor, counted: Tensor, dilation: int = 1) -> tuple[Tensor, Tensor]:
    return pairwise_sums(
        logits[None, None], counted[None], torch.tensor([0]), neighbour_offsets(3, dilation)
    )


@pytest.mark.parametrize(
    ("y", "x", "k", "expected"),
    [
        *[(1, 1, k, 0.693147) for k in range(8)],
        (0, 1, 3, 0.235706),
        (0, 1, 4, 1.126928),
        (0, 1, 5, 0.235706),
        (0, 1, 6, 0.693147),
        (0, 1, 7, 1.862254),
        (0, 1, 0, 0),
    ],
)
def test_pair_loss_of_the_worked_example(y: int, x: int, k: int, expected: float) -> None:
    """method.md, golden vector 3."""
    counted = torch.zeros(8, 3, 3, dtype=torch.bool)
    counted[k, y, x] = True
    total, number = pairs(Z, counted)
    assert float(total) == pytest.approx(expected, abs=1e-6)
    assert number == 1


@pytest.mark.parametrize(
    ("threshold", "region", "expected", "number"),
    [
        (0.3, BOX, 0.498559, 19),
        (0.5, BOX, 0.475666, 17),
        (0.7, BOX, 0.274680, 8),
        (0.3, torch.ones_like(BOX), 0.477441, 22),
        (0.5, torch.ones_like(BOX), 0.455871, 20),
        (0.7, torch.ones_like(BOX), 0.288484, 10),
    ],
)
def test_consistency_of_the_worked_example(
    threshold: float, region: Tensor, expected: float, number: int
) -> None:
    """method.md, golden vector 4."""
    valid = torch.ones(1, 3, 3, dtype=torch.bool)
    trusted = similarity(D[None, None], valid, PairRule(dilation=1))[0] >= threshold
    total, count = pairs(Z, trusted & region)
    assert int(count) == number
    assert float(total / count) == pytest.approx(expected, abs=1e-6)


def test_projection_and_dice_of_the_worked_example() -> None:
    """method.md, golden vector 5."""
    loss = projection_losses(Z[None, None], BOX[None], torch.tensor([0]))
    assert float(loss) == pytest.approx(0.047614, abs=1e-6)
    target = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0.0]])
    dice = dice_losses(Z.sigmoid().flatten()[None], target.flatten()[None])
    assert float(dice) == pytest.approx(0.155924, abs=1e-6)


def test_depth_loss_of_the_worked_example() -> None:
    """method.md, golden vector 6."""
    loss = depth_loss(torch.full((1, 1, 3, 3), 0.4), D[None, None] / 255, BOX[None])
    assert float(loss) == pytest.approx(4.61361e-05, rel=1e-4)


def slow_pairwise(
    logits: np.ndarray, counted: np.ndarray, offsets: tuple[tuple[int, int], ...]
) -> float:
    """Eq. 4 of arXiv 2012.02310, pair by pair, in double precision."""
    m = 1 / (1 + np.exp(-logits.astype(np.float64)))
    total = 0.0
    for k, (dy, dx) in enumerate(offsets):
        for y, x in np.argwhere(counted[k]):
            if 0 <= y + dy < m.shape[0] and 0 <= x + dx < m.shape[1]:
                p, q = m[y, x], m[y + dy, x + dx]
                total += -math.log(p * q + (1 - p) * (1 - q))
    return total


@given(st.integers(0, 99), st.sampled_from([(3, 1), (3, 2), (5, 1)]))
@settings(max_examples=15)
def test_pairwise_sums_equal_the_slow_loop(seed: int, window: tuple[int, int]) -> None:
    random = np.random.default_rng(seed)
    kernel, dilation = window
    offsets = neighbour_offsets(kernel, dilation)
    counted = random.random((3, len(offsets), 5, 6)) < 0.4
    logits = random.normal(size=(4, 1, 5, 6)).astype(np.float32) * 4
    box_index = np.array([2, 0, 0, 1])
    sums, numbers = pairwise_sums(
        torch.from_numpy(logits),
        torch.from_numpy(counted),
        torch.from_numpy(box_index),
        offsets,
    )
    for i, box in enumerate(box_index):
        expected = slow_pairwise(logits[i, 0], counted[box], offsets)
        assert float(sums[i]) == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert int(numbers[i]) == counted[box].sum()


@pytest.mark.parametrize("form", ["list", "shifts"])
def test_pairwise_gradient_is_the_numeric_one(form: str) -> None:
    random = np.random.default_rng(3)
    counted = torch.from_numpy(random.random((2, 8, 4, 5)) < 0.5)
    logits = torch.from_numpy(random.normal(size=(3, 1, 4, 5))).requires_grad_()
    index = torch.tensor([1, 0, 1])

    def sums(z: Tensor) -> Tensor:
        chosen = sums_over_shifts if form == "shifts" else sums_over_list
        return chosen(z, counted, index, neighbour_offsets(3, 1))

    assert torch.autograd.gradcheck(sums, (logits,), atol=1e-6)


def test_pairs_by_list_and_by_shifts_are_one_number() -> None:
    """The form for few pairs on a CPU and the one for many, or for accelerators."""
    random = np.random.default_rng(5)
    counted = torch.from_numpy(random.random((3, 8, 9, 7)) < 0.3)
    index = torch.tensor([0, 2, 2, 1])
    both = []
    for form in (
        lambda z: sums_over_list(z, counted, index, neighbour_offsets(3, 2)),
        lambda z: sums_over_shifts(z, counted, index, neighbour_offsets(3, 2)),
    ):
        torch.manual_seed(0)
        logits = (5 * torch.randn(4, 1, 9, 7)).requires_grad_()
        sums = form(logits)
        sums.sum().backward()
        both.append((sums.detach(), logits.grad))
    torch.testing.assert_close(both[0], both[1])


@pytest.mark.parametrize("share", [0.01, 0.9])
def test_few_pairs_and_many_are_summed_alike(share: float) -> None:
    """Whichever form the share of pairs chooses; several groups of masks, too."""
    random = np.random.default_rng(6)
    offsets = neighbour_offsets(3, 1)
    counted = random.random((2, 8, 40, 48)) < share
    logits = random.normal(size=(80, 1, 40, 48)).astype(np.float32)
    index = random.integers(0, 2, 80)
    sums, numbers = pairwise_sums(
        torch.from_numpy(logits), torch.from_numpy(counted), torch.from_numpy(index), offsets
    )
    for mask in (0, 33, 79):
        expected = slow_pairwise(logits[mask, 0], counted[index[mask]], offsets)
        assert float(sums[mask]) == pytest.approx(expected, rel=1e-4)
        assert float(numbers[mask]) == counted[index[mask]].sum()


def test_saturated_logits_cost_no_precision() -> None:
    z = torch.tensor([150.0, 150.0, -150.0, 40.0])
    other = torch.tensor([150.0, -150.0, -150.0, 40.0])
    expected = [0, 150 - math.log(2), 0, 0]
    assert disagreement(z, other).tolist() == pytest.approx(expected, abs=1e-5)


def test_pairwise_without_masks_or_pairs_is_zero_with_a_graph() -> None:
    logits = torch.zeros(0, 1, 4, 4, requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.int64)
    none = torch.zeros(0, 8, 4, 4).bool()
    sums, numbers = pairwise_sums(logits, none, nothing, neighbour_offsets(3, 2))
    sums.sum().backward()
    assert numbers.shape == (0,)
    assert logits.grad is not None


def test_all_foreground_and_all_background_cost_no_pair() -> None:
    counted = torch.ones(1, 8, 6, 6, dtype=torch.bool)
    for value in (-30.0, 30.0):
        logits = torch.full((1, 1, 6, 6), value)
        assert float(pairs(logits[0, 0], counted[0], dilation=2)[0]) < 1e-9


def slow_focal(logits: np.ndarray, labels: np.ndarray) -> float:
    total = 0.0
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        for c, z in enumerate(row):
            p = 1 / (1 + math.exp(-z))
            p_t, alpha = (p, 0.25) if c == label else (1 - p, 0.75)
            total -= alpha * (1 - p_t) ** 2 * math.log(p_t)
    return total


def test_focal_sum_equals_the_slow_loop() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(9, 4)).astype(np.float32) * 3
    labels = random.integers(0, 5, 9)
    ours = sigmoid_focal_sum(torch.from_numpy(logits), torch.from_numpy(labels))
    assert float(ours) == pytest.approx(slow_focal(logits, labels), rel=1e-5)


def test_focal_sum_survives_huge_logits() -> None:
    logits = torch.tensor([[500.0, -500.0]], requires_grad=True)
    loss = sigmoid_focal_sum(logits, torch.tensor([1]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.75 * 500 + 0.25 * 500)
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]


def test_iou_of_a_box_with_itself_is_one() -> None:
    ltrb = torch.tensor([[1.0, 2, 3, 4], [0.5, 0.5, 0.5, 0.5]])
    iou, giou = smoothed_ious(ltrb, ltrb)
    assert iou.tolist() == [1, 1]
    assert giou.tolist() == [1, 1]
    for kind in ("giou", "iou", "linear_iou"):
        assert box_losses(iou, giou, kind).tolist() == [0, 0]


def test_iou_is_smoothed_by_one() -> None:
    """Boxes 2x2 and 2x1: I = 2, U = 4, hull 4: IoU 3/5, GIoU the same."""
    iou, giou = smoothed_ious(torch.tensor([[1.0, 1, 1, 1]]), torch.tensor([[1.0, 1, 1, 0]]))
    assert float(iou) == pytest.approx(3 / 5)
    assert float(giou) == pytest.approx(3 / 5)


def test_quality_targets_get_no_gradient() -> None:
    logits = torch.zeros(3, requires_grad=True)
    target = torch.full((3,), 0.5, requires_grad=True)
    quality_sum(logits, target).backward()
    assert target.grad is None
    assert logits.grad is not None


def test_depth_loss_reductions_weigh_large_boxes_differently() -> None:
    depth = torch.zeros(2, 1, 2, 2, requires_grad=True)
    target = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    boxes = torch.tensor([[[1, 1], [1, 0]], [[1, 0], [0, 0]]]).bool()
    assert float(depth_loss(depth, target, boxes).detach()) == pytest.approx(1 / 4)
    by_instance = depth_loss(depth, target, boxes, reduction="instances")
    assert float(by_instance.detach()) == pytest.approx(1 / 2)


@pytest.mark.parametrize("reduction", ["pixels", "instances"])
def test_depth_loss_without_cells_is_zero_with_a_graph(reduction: str) -> None:
    depth = torch.rand(2, 1, 2, 2, requires_grad=True)
    nowhere = torch.zeros(2, 2, 2, dtype=torch.bool)
    loss = depth_loss(depth, torch.zeros(2, 1, 2, 2), nowhere, reduction=reduction)  # type: ignore[arg-type]
    loss.backward()
    assert float(loss.detach()) == 0
    assert depth.grad is not None


def test_depth_loss_reaches_only_cells_inside_the_box() -> None:
    depth = torch.rand(1, 1, 3, 3, requires_grad=True)
    depth_loss(depth, torch.zeros(1, 1, 3, 3), BOX[None]).backward()
    assert depth.grad is not None
    assert torch.equal(depth.grad[0, 0] != 0, BOX)


def test_projection_gradient_reaches_one_cell_a_line() -> None:
    logits = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 0, 0]])[None, None].requires_grad_()
    projection_losses(logits, BOX[None], torch.tensor([0])).backward()
    assert logits.grad is not None
    touched = (logits.grad[0, 0] != 0).tolist()
    assert touched == [[True, False, False], [True, True, True], [True, False, False]]


@given(st.integers(0, 50))
@settings(max_examples=10)
def test_dice_lies_between_zero_and_one(seed: int) -> None:
    torch.manual_seed(seed)
    losses = dice_losses(torch.rand(3, 20), (torch.rand(3, 20) > 0.5).float())
    assert ((losses >= 0) & (losses <= 1)).all()
