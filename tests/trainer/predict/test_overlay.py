"""Pictures of predictions."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from scipy import ndimage

from boxdepth.trainer.predict.overlay import distinct_instances, draw_overlay
from boxdepth.trainer.predict.results import Instances


def instances(*boxes: tuple[int, int, int, int], scores: tuple[float, ...]) -> Instances:
    masks = []
    for x1, y1, x2, y2 in boxes:
        mask = np.zeros((60, 80), np.uint8, order="F")
        mask[y1:y2, x1:x2] = 1
        rle = coco_mask.encode(mask)
        masks.append({"size": [60, 80], "counts": rle["counts"].decode("ascii")})
    return Instances(
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        labels=np.zeros(len(boxes), np.int64),
        masks=tuple(masks),
        size=(60, 80),
    )


@pytest.fixture
def grey() -> np.ndarray:
    return np.full((60, 80, 3), 128, np.uint8)


def test_only_what_is_sure_enough_is_drawn(grey: np.ndarray) -> None:
    found = instances((10, 30, 40, 50), scores=(0.4,))
    assert (draw_overlay(grey, found, ["cup"], min_score=0.5) == 128).all()
    assert (draw_overlay(grey, found, ["cup"], min_score=0.3) != 128).any()


def test_a_mask_is_tinted_where_it_lies_and_the_picture_is_enlarged(grey: np.ndarray) -> None:
    picture = draw_overlay(grey, instances((40, 30, 70, 50), scores=(0.9,)), ["cup"])
    assert picture.shape == (480, 640, 3)
    changed = (picture != 128).any(axis=2)
    assert changed[8 * 32 : 8 * 48, 8 * 42 : 8 * 68].all()
    assert not changed[:, : 8 * 38].any()


def test_of_several_names_for_one_thing_the_best_is_drawn() -> None:
    found = instances((10, 10, 40, 40), (12, 10, 40, 40), (50, 10, 70, 40), scores=(0.5, 0.9, 0.7))
    assert distinct_instances(found, min_score=0.3) == [1, 2]


def test_a_thing_in_front_of_another_does_not_hide_it() -> None:
    found = instances((10, 10, 20, 20), (5, 5, 40, 50), scores=(0.9, 0.8))
    assert distinct_instances(found, min_score=0.3) == [0, 1]


def test_nothing_found_leaves_the_picture_as_it_is(grey: np.ndarray) -> None:
    assert (draw_overlay(grey, instances(scores=()), ["cup"]) == 128).all()


def test_a_label_at_the_border_stays_inside(grey: np.ndarray) -> None:
    found = instances((0, 0, 12, 10), (70, 0, 80, 8), (0, 50, 80, 60), scores=(0.9, 0.8, 0.7))
    assert draw_overlay(grey, found, ["a very long category name"]).shape == (480, 640, 3)


def test_a_mask_has_a_fill_a_line_and_a_shadow_wherever_it_lies() -> None:
    """Against the definition on the whole picture; masks at the border and inside of it."""
    side, thickness = 480, 2
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    for top, left in ((0, 0), (150, 30), (240, 220)):
        mask = np.zeros((side, side), dtype=np.uint8)
        mask[top : top + 60, left : left + 90] = ndimage.binary_opening(rng.random((60, 90)) < 0.9)
        text = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
        one = Instances(
            boxes_xyxy=np.array([[470, 470, 478, 478]], dtype=np.float32),  # and its label: far off
            scores=np.ones(1, dtype=np.float32),
            labels=np.zeros(1, dtype=np.int64),
            masks=({"size": [side, side], "counts": text},),
            size=(side, side),
        )
        drawn = draw_overlay(rgb, one, ["a"]).astype(float)[:400, :400]
        inner = ndimage.binary_erosion(mask, iterations=thickness)
        shadow = ndimage.binary_dilation(mask) & (mask == 0)
        line = (mask == 1) & ~inner
        color = drawn[line[:400, :400]][0]
        expected = rgb.astype(float)
        expected[inner] += 0.42 * (color - expected[inner])
        expected[line] = color
        expected[shadow] *= 0.45
        assert mask.any()
        assert np.abs(drawn - expected[:400, :400]).max() <= 0.5 + 1e-4
