"""Which location learns which box, and which learn a mask."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxdepth.trainer.geometry.levels import flatten_levels, gather_rows
from boxdepth.trainer.model.controller import ParameterMaps, ParametersOnDemand
from boxdepth.trainer.structures import DenseOutputs, GroundTruth, Targets
from boxdepth.trainer.targets.assign import assign_targets, centerness
from boxdepth.trainer.targets.rules import Assignment, Sampling
from boxdepth.trainer.targets.sampling import best_of_each_box, select_positives

SHAPES = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]


def assign(boxes: list[list[float]], images: list[int] | None = None, **options: object) -> Targets:
    boxes_xyxy = torch.tensor(boxes).reshape(-1, 4)
    truth = GroundTruth(
        boxes_xyxy=boxes_xyxy,
        labels=torch.arange(len(boxes)),
        image_index=torch.tensor(images or [0] * len(boxes), dtype=torch.int64),
        centers_xy=(boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2,
        num_images=2,
    )
    return assign_targets(truth, SHAPES, Assignment(**options), num_classes=9)


def slow_assignment(box: list[float], stride: int, low: float, high: float) -> set[tuple[int, int]]:
    """Locations of one level that may learn a box, by the words of condinst.md 2.1."""
    x1, y1, x2, y2 = box
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    found = set()
    level = int(np.log2(stride)) - 3
    for i in range(SHAPES[level][0]):
        for j in range(SHAPES[level][1]):
            x, y = stride * j + stride // 2, stride * i + stride // 2
            left, right = max(x1, cx - 1.5 * stride), min(x2, cx + 1.5 * stride)
            top, bottom = max(y1, cy - 1.5 * stride), min(y2, cy + 1.5 * stride)
            inside = min(x - left, right - x, y - top, bottom - y) > 0
            if inside and low <= max(x - x1, x2 - x, y - y1, y2 - y) <= high:
                found.add((x, y))
    return found


@given(
    st.floats(0, 60, width=32),
    st.floats(0, 40, width=32),
    st.floats(1, 36, width=32),
    st.floats(1, 24, width=32),
)
@settings(max_examples=40)
def test_locations_of_one_box_equal_the_slow_loop(x: float, y: float, w: float, h: float) -> None:
    box = [x, y, x + w, y + h]
    targets = assign([box])
    chosen = targets.box_index == 0
    for level, (low, high) in enumerate([(-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8)]):
        ours = targets.location_xy[chosen & (targets.level == level)]
        expected = slow_assignment(box, 8 << level, low, high)
        assert {(int(a), int(b)) for a, b in ours.tolist()} == expected


def test_the_smaller_of_two_boxes_wins_and_the_first_of_equals() -> None:
    big, small = [8.0, 8, 56, 56], [16.0, 16, 48, 48]
    both = assign([big, small])
    at_center = (both.location_xy == torch.tensor([36.0, 36.0])).all(dim=1) & (both.level == 0)
    assert both.box_index[at_center & (both.image_index == 0)].tolist() == [1]
    equal = assign([big, big])
    assert 1 not in equal.box_index.tolist()


def test_boxes_are_learnt_in_their_own_image_only() -> None:
    targets = assign([[8.0, 8, 40, 40], [20.0, 20, 60, 60]], [0, 1])
    for box in (0, 1):
        assert (targets.image_index[targets.box_index == box] == box).all()
        assert (targets.box_index == box).any()


def test_without_boxes_all_is_background() -> None:
    targets = assign([])
    assert (targets.label == 9).all()
    assert (targets.box_index == -1).all()


@pytest.mark.parametrize(
    "box", [[200.0, 200, 260, 260], [16.0, 16, 16, 40], [40.0, 40, 20, 20], [-50.0, -50, -10, -10]]
)
def test_boxes_outside_or_without_area_teach_nothing(box: list[float]) -> None:
    assert (assign([box]).box_index == -1).all()


def test_background_has_the_label_after_the_last_class() -> None:
    targets = assign([[8.0, 8, 40, 40]])
    assert set(targets.label.tolist()) == {0, 9}
    assert torch.equal(targets.label == 9, targets.box_index == -1)


def test_centerness_is_one_in_the_middle_and_falls_to_the_sides() -> None:
    values = centerness(torch.tensor([[5.0, 5, 5, 5], [1, 5, 4, 5], [0, 5, 9, 5]]))
    assert values.tolist() == [1, 0.5, 0]


def maps(channels: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(2, channels, h, w) for h, w in SHAPES)


def test_gathered_rows_are_rows_of_the_flattened_levels() -> None:
    levels = maps(3)
    everything = flatten_levels(levels)
    targets = assign([])
    rows = torch.randperm(len(everything))[:20]
    assert torch.equal(gather_rows(levels, rows, targets.level[rows]), everything[rows])


def outputs() -> DenseOutputs:
    return DenseOutputs(
        class_logits=maps(9),
        ltrb=maps(4),
        quality_logits=maps(1),
        controller=ParameterMaps(maps=tuple(m.requires_grad_() for m in maps(5))),
        mask_features=torch.zeros(2, 1, 8, 12),
    )


BOXES = [[8.0, 8, 56, 56], [30.0, 10, 90, 60], [2.0, 2, 40, 30]]


def test_each_box_keeps_its_best_locations() -> None:
    targets, dense = assign(BOXES, [0, 0, 1]), outputs()
    kept = select_positives(targets, dense, Sampling(per_image=4), num_boxes=3)
    logits = flatten_levels(dense.class_logits).amax(dim=1).sigmoid()
    scores = logits * flatten_levels(dense.quality_logits)[:, 0].sigmoid()
    for box, limit in ((0, 2), (1, 2), (2, 4)):
        rows = (targets.box_index == box).nonzero()[:, 0]
        best = rows[scores[rows].argsort(descending=True)[:limit]]
        ours = kept.location_xy[kept.box_index == box]
        assert torch.equal(ours, targets.location_xy[best])


def test_every_box_keeps_one_location_even_beyond_the_limit() -> None:
    kept = select_positives(assign(BOXES, [0, 0, 0]), outputs(), Sampling(per_image=1), num_boxes=3)
    assert sorted(kept.box_index.tolist()) == [0, 1, 2]


def test_more_images_than_boxes() -> None:
    """The only box lies in the second image."""
    kept = select_positives(assign(BOXES[:1], [1]), outputs(), Sampling(per_image=4), num_boxes=1)
    assert kept.image_index.tolist() == [1] * 4
    assert kept.counts == (0, 4)


def test_gradient_reaches_the_controller_at_the_samples_only() -> None:
    dense = outputs()
    kept = select_positives(assign(BOXES, [0, 0, 1]), dense, Sampling(), num_boxes=3)
    kept.params.sum().backward()
    touched = sum(int((m.grad[:, 0] != 0).sum()) for m in dense.controller.tensors)  # type: ignore[index]
    assert touched == len(kept.level)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_controller_asked_at_locations_says_what_its_maps_say(
    layout: torch.memory_format,
) -> None:
    """The fast form and the plain one: corners, sides and the inside of every level."""
    torch.manual_seed(0)
    controller = torch.nn.Conv2d(6, 7, 3, padding=1)
    shapes = [(8, 6), (4, 3), (2, 2), (1, 1), (1, 1)]
    features = [torch.randn(2, 6, *shape).to(memory_format=layout) for shape in shapes]
    level = torch.cat([torch.full((2 * h * w,), k) for k, (h, w) in enumerate(shapes)])
    rows = torch.randperm(len(level))
    said = []
    for fast in (False, True):
        leaves = tuple(x.clone(memory_format=layout).requires_grad_() for x in features)
        controller.zero_grad()
        form = (
            ParametersOnDemand(features=leaves, weight=controller.weight, bias=controller.bias)
            if fast
            else ParameterMaps(maps=tuple(controller(x) for x in leaves))
        )
        params = form.at(rows, level[rows])
        (params * torch.linspace(-1, 1, params.numel()).view_as(params)).sum().backward()
        gradients = [x.grad for x in (*leaves, controller.weight, controller.bias)]
        said.append([x.clone() for x in (params, *gradients)])
    for plain, quick in zip(*said, strict=True):
        torch.testing.assert_close(quick, plain, rtol=1e-4, atol=2e-6)


def test_random_samples_are_no_more_than_asked() -> None:
    kept = select_positives(
        assign(BOXES, [0, 0, 1]),
        outputs(),
        Sampling(per_image=None, per_batch=7),
        num_boxes=3,
    )
    assert len(kept.level) == 7


def test_nothing_positive_selects_nothing() -> None:
    dense = outputs()
    kept = select_positives(assign([]), dense, Sampling(), num_boxes=0)
    assert kept.params.shape == (0, 5)
    kept.params.sum().backward()
    assert dense.controller.tensors[0].grad is not None


def test_uncut_boxes_keep_the_given_order() -> None:
    order, counts = best_of_each_box(
        torch.tensor([0.1, 0.9, 0.5, 0.7]),
        torch.tensor([1, 0, 1, 0]),
        torch.zeros(4, dtype=torch.int64),
        num_boxes=2,
        num_images=2,
        per_image=10,
    )
    assert order.tolist() == [1, 3, 0, 2]
    assert counts == (4, 0)
