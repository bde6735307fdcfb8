"""Detections, masks at the original size, and what goes into a results file."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pycocotools import mask as coco_mask
from torchvision.ops import batched_nms

from boxdepth.trainer.geometry.resize import aligned_bilinear
from boxdepth.trainer.model import detections as detecting
from boxdepth.trainer.model.controller import ParameterMaps
from boxdepth.trainer.model.detections import detect, detect_in_boxes
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec, mask_probabilities
from boxdepth.trainer.model.rules import DetectionLimits, Inference
from boxdepth.trainer.predict.masks import Finish, cut_to_box, predict_masks
from boxdepth.trainer.predict.results import encode_rle, to_coco_results
from boxdepth.trainer.structures import DenseOutputs, Detections

SPEC = MaskHeadSpec(features=8)
SHAPES = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
SIZES = [(64, 96), (50, 70)]


def outputs(bias: float = -1.0, dtype: torch.dtype = torch.float32) -> DenseOutputs:
    """Random, with masks that don't saturate: halfway between 0 and 1 rounding would decide."""
    torch.manual_seed(0)
    return DenseOutputs(
        class_logits=tuple((torch.randn(2, 3, *s) + bias).to(dtype) for s in SHAPES),
        ltrb=tuple(30 * torch.rand(2, 4, *s) for s in SHAPES),
        quality_logits=tuple(torch.randn(2, 1, *s).to(dtype) for s in SHAPES),
        controller=ParameterMaps(
            maps=tuple((0.4 * torch.randn(2, SPEC.num_params, *s)).to(dtype) for s in SHAPES)
        ),
        mask_features=torch.randn(2, 8, 8, 12).to(dtype),
    )


def test_detections_come_in_decreasing_order_and_no_more_than_asked() -> None:
    for found in detect(outputs(), SIZES, DetectionLimits(max_detections=7)):
        assert len(found.scores) == 7
        assert (found.scores.diff() <= 0).all()
        assert found.params.shape == (7, SPEC.num_params)


@pytest.mark.parametrize(
    ("side", "enough"), [(1.0, True), (1000.0, False)], ids=["small boxes", "one behind all others"]
)
def test_what_is_best_is_looked_at_first_and_changes_nothing(
    side: float, enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small boxes never meet; of large ones a class keeps one, so that all have to be looked at."""
    dense = outputs(bias=3.0)
    dense = replace(dense, ltrb=tuple(torch.full_like(x, side) for x in dense.ltrb))
    limits = DetectionLimits(max_detections=4)
    asked: list[int] = []

    def counted(boxes: torch.Tensor, *rest: Any) -> torch.Tensor:
        asked.append(len(boxes))
        return batched_nms(boxes, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(detecting, "batched_nms", counted)
        found = detect(dense, SIZES, limits)
        assert (len(asked) == len(SIZES)) == enough
        assert asked[0] == detecting.BEST_FIRST * 4
    monkeypatch.setattr(detecting, "BEST_FIRST", 10**6)
    for few, everything in zip(found, detect(dense, SIZES, limits), strict=True):
        assert len(few.scores) == (4 if enough else 3)
        assert few.cut == everything.cut == enough
        for name in ("boxes_xyxy", "scores", "labels", "location_xy", "level", "params"):
            assert torch.equal(getattr(few, name), getattr(everything, name))


def test_every_image_keeps_its_own_size() -> None:
    assert [found.size for found in detect(outputs(), SIZES, DetectionLimits())] == [
        (64, 96),
        (50, 70),
    ]


def test_a_batch_detects_what_its_images_detect_alone() -> None:
    everything = outputs()
    both = detect(everything, SIZES, DetectionLimits())
    for i, found in enumerate(both):
        alone = DenseOutputs(
            class_logits=tuple(x[i : i + 1] for x in everything.class_logits),
            ltrb=tuple(x[i : i + 1] for x in everything.ltrb),
            quality_logits=tuple(x[i : i + 1] for x in everything.quality_logits),
            controller=ParameterMaps(
                maps=tuple(x[i : i + 1] for x in everything.controller.tensors)
            ),
            mask_features=everything.mask_features[i : i + 1],
        )
        (single,) = detect(alone, SIZES[i : i + 1], DetectionLimits())
        for name in ("boxes_xyxy", "scores", "labels", "location_xy", "level", "params"):
            assert torch.equal(getattr(single, name), getattr(found, name)), name


def two_step_masks(
    probabilities: torch.Tensor, size: tuple[int, int], new: tuple[int, int]
) -> np.ndarray:
    """condinst.md 5 to the letter."""
    fine = aligned_bilinear(probabilities[:, None], 4)[..., : size[0], : size[1]]
    out = torch.nn.functional.interpolate(fine, size=new, mode="bilinear", align_corners=False)
    return (out[:, 0] > 0.5).numpy()


@pytest.mark.parametrize("original", [(64, 96), (150, 37), (31, 200)])
def test_masks_equal_the_two_resizes_they_replace(original: tuple[int, int]) -> None:
    dense = outputs()
    found = detect(dense, SIZES, DetectionLimits())
    results = predict_masks(
        dense, found, SPEC, Finish(drop_empty_boxes=False), original_sizes=[original, original]
    )
    for i, (detections, instances) in enumerate(zip(found, results, strict=True)):
        features = dense.mask_features[i : i + 1]
        probabilities = torch.cat(list(mask_probabilities(features, detections, SPEC)))
        expected = two_step_masks(probabilities, detections.size, original)
        ours = np.stack([coco_mask.decode(mask) for mask in instances.masks]).astype(bool)
        assert ours.shape == expected.shape
        assert (ours != expected).mean() < 1e-4


def test_chunks_change_nothing() -> None:
    dense = outputs()
    found = detect(dense, SIZES, DetectionLimits())
    sizes = [(64, 96), (64, 96)]
    large = predict_masks(dense, found, SPEC, Finish(chunk=1000), original_sizes=sizes)
    small = predict_masks(dense, found, SPEC, Finish(chunk=3), original_sizes=sizes)
    assert [r.masks for r in large] == [r.masks for r in small]


def test_rescoring_takes_the_root_of_score_times_mask_quality() -> None:
    dense = outputs()
    found = detect(dense, SIZES, DetectionLimits())
    sizes = [(64, 96), (50, 70)]
    plain = predict_masks(dense, found, SPEC, Finish(drop_empty_boxes=False), original_sizes=sizes)
    rescoring = Finish(settings=Inference(rescore=True), drop_empty_boxes=False, chunk=3)
    again = predict_masks(dense, found, SPEC, rescoring, original_sizes=sizes)
    for i, (before, after) in enumerate(zip(plain, again, strict=True)):
        parts = mask_probabilities(dense.mask_features[i : i + 1], found[i], SPEC)
        quality = [
            p[p > 0.5].mean() if (p > 0.5).any() else 0.0 for part in parts for p in part.numpy()
        ]
        assert len(quality) > 3
        np.testing.assert_allclose(after.scores, np.sqrt(before.scores * quality), rtol=1e-5)
        assert after.masks == before.masks


def test_an_image_without_detections_has_an_empty_answer() -> None:
    dense = outputs(bias=-30.0)
    found = detect(dense, SIZES, DetectionLimits())
    results = predict_masks(dense, found, SPEC, original_sizes=[(9, 9), (5, 5)])
    assert [len(r.masks) for r in results] == [0, 0]
    assert results[0].boxes_xyxy.shape == (0, 4)
    assert to_coco_results(results[0], image_id=1, category_ids=[1, 2, 3]) == []


def test_half_precision_outputs_are_enough() -> None:
    dense = outputs(dtype=torch.bfloat16)
    found = detect(dense, SIZES, DetectionLimits())
    results = predict_masks(dense, found, SPEC, original_sizes=[(64, 96), (50, 70)])
    assert all(len(r.masks) > 0 for r in results)


def test_boxes_are_clipped_to_the_original_image() -> None:
    dense = outputs()
    for r in predict_masks(
        dense, detect(dense, SIZES, DetectionLimits()), SPEC, original_sizes=[(20, 30), (30, 20)]
    ):
        height, width = r.size
        assert r.boxes_xyxy.min() >= 0
        assert (r.boxes_xyxy <= [width, height, width, height]).all()
        assert ((r.boxes_xyxy[:, 2:] - r.boxes_xyxy[:, :2]) > 0).all()


@given(
    npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 3),
    st.integers(0, 3),
)
@settings(max_examples=80)
def test_encoding_a_part_is_encoding_the_whole_mask(
    part: np.ndarray, top: int, left: int, below: int, right: int
) -> None:
    height, width = top + part.shape[0] + below, left + part.shape[1] + right
    whole = np.zeros((height, width), dtype=np.uint8, order="F")
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    ours = encode_rle(part, offset=(top, left), size=(height, width))
    theirs = coco_mask.encode(whole)
    assert ours == {"size": [height, width], "counts": theirs["counts"].decode()}


def test_an_empty_part_is_an_empty_mask() -> None:
    empty = encode_rle(np.zeros((0, 0), dtype=bool), offset=(0, 0), size=(5, 7))
    assert coco_mask.decode(empty).sum() == 0


def test_given_boxes_take_the_location_that_predicts_them_best() -> None:
    dense = outputs()
    everything = detect(
        dense, SIZES, DetectionLimits(score_threshold=0.0, nms_iou=1.0, max_detections=50)
    )
    wanted = [found.boxes_xyxy[[3, 0, 11]] for found in everything]
    for found, answer in zip(everything, detect_in_boxes(dense, SIZES, wanted), strict=True):
        assert torch.equal(answer.location_xy, found.location_xy[[3, 0, 11]])
        assert torch.equal(answer.boxes_xyxy, found.boxes_xyxy[[3, 0, 11]])
        assert torch.equal(answer.params, found.params[[3, 0, 11]])


SIDE = st.floats(0, 40, width=32)


@given(
    npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9)),
    st.integers(0, 20), st.integers(0, 20), st.tuples(SIDE, SIDE, SIDE, SIDE),
)  # fmt: skip
@settings(max_examples=200)
def test_a_mask_cut_to_a_box_keeps_what_touches_the_box(
    part: np.ndarray, top: int, left: int, corners: tuple[float, float, float, float]
) -> None:
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    whole = np.zeros((40, 40), dtype=bool)
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    rows, columns = np.mgrid[:40, :40]
    # A pixel counts if more than a hundredth of its side lies in the box.
    inside = (columns + 0.99 > x1) & (columns + 0.01 < x2)
    inside &= (rows + 0.99 > y1) & (rows + 0.01 < y2)
    kept, offset = cut_to_box((part, (top, left)), (x1, y1, x2, y2))
    mask = coco_mask.decode(encode_rle(kept, offset=offset, size=(40, 40))).astype(bool)
    assert np.array_equal(mask, whole & inside)


def test_cropped_masks_are_the_whole_ones_inside_their_boxes() -> None:
    dense = outputs()
    found = detect(dense, SIZES, DetectionLimits())
    originals = [(128, 192), (75, 105)]
    whole, cut = (
        predict_masks(dense, found, SPEC, Finish(chunk=3, crop=crop), original_sizes=originals)
        for crop in (False, True)
    )
    lost = 0
    for before, after in zip(whole, cut, strict=True):
        height, width = before.size
        rows, columns = np.mgrid[:height, :width]
        for old, new, (x1, y1, x2, y2) in zip(
            before.masks, after.masks, before.boxes_xyxy, strict=True
        ):
            inside = (columns + 0.99 > x1) & (columns + 0.01 < x2)
            inside &= (rows + 0.99 > y1) & (rows + 0.01 < y2)
            mask = coco_mask.decode(old).astype(bool)
            assert np.array_equal(coco_mask.decode(new).astype(bool), mask & inside)
            lost += (mask & ~inside).sum()
    assert lost > 0


def test_no_given_boxes_give_no_masks() -> None:
    answer = detect_in_boxes(outputs(), SIZES, [torch.zeros(0, 4), torch.zeros(0, 4)])
    assert [len(found.scores) for found in answer] == [0, 0]


def test_results_carry_original_categories_and_plain_numbers() -> None:
    dense = outputs()
    (first, _) = predict_masks(
        dense, detect(dense, SIZES, DetectionLimits()), SPEC, original_sizes=[(64, 96), (50, 70)]
    )
    entries = to_coco_results(first, image_id=139, category_ids=[7, 1, 90])
    assert json.loads(json.dumps(entries)) == entries
    assert {entry["category_id"] for entry in entries} <= {7, 1, 90}
    x, y, w, h = entries[0]["bbox"]
    assert [x, y, x + w, y + h] == pytest.approx(first.boxes_xyxy[0].tolist(), abs=1e-4)
    assert entries[0]["segmentation"]["size"] == [64, 96]


def test_memory_is_bounded_by_the_chunk() -> None:
    """A thousand detections on a large image: no array of all masks is ever made."""
    torch.manual_seed(0)
    n = 1000
    found = Detections(
        boxes_xyxy=torch.tensor([[0.0, 0, 50, 50]]).repeat(n, 1),
        scores=torch.ones(n),
        labels=torch.zeros(n, dtype=torch.int64),
        location_xy=torch.full((n, 2), 20.0),
        level=torch.zeros(n, dtype=torch.int64),
        params=torch.zeros(n, SPEC.num_params),
        size=(64, 96),
    )
    sizes = [len(p) for p in mask_probabilities(torch.randn(1, 8, 8, 12), found, SPEC, chunk=32)]
    assert max(sizes) == 32
    assert sum(sizes) == n
