"""A store that was written with schema 1 and committed: every later reader still reads it."""

from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from boxdepth.depthgen.store import Store, open_store, verify_store


@pytest.fixture(scope="module")
def path() -> Path:
    return Path(__file__).parent.parent / "golden" / "store_v1.zarr"


@pytest.fixture(scope="module")
def store(path: Path) -> Store:
    return open_store(path)


def test_it_opens_and_every_byte_is_sound(path: Path, store: Store) -> None:
    assert len(store) == 8
    assert not verify_store(path, deep=True).problems


def test_ids_names_sizes_and_categories(store: Store) -> None:
    assert store.image_ids.tolist() == list(range(100, 108))
    assert store.image_names[7] == "000007.png"
    assert store.image_sizes.tolist()[4] == [128, 96]
    assert [category.id for category in store.attributes.categories][:3] == [1, 2, 3]
    assert store.attributes.masks


def test_boxes_are_those_of_the_masks(store: Store) -> None:
    for row in range(len(store)):
        boxes = store.boxes(row)
        for box, area, rle in zip(boxes.xyxy, boxes.area, store.masks(row), strict=True):
            assert rle is not None
            x, y, width, height = coco_mask.toBbox(rle)
            np.testing.assert_array_equal(box, [x, y, x + width, y + height])
            assert area == coco_mask.area(rle)
    assert store.boxes(1).crowd.tolist() == [False, False, True, False, False]


def test_images_and_depth_decode(store: Store) -> None:
    for row in range(len(store)):
        assert store.image(row).shape == (*store.image_sizes[row], 3)
        inverse_depth = store.inverse_depth(row)
        assert inverse_depth.shape == (48, 64)
        if row == 3:
            assert not store.depth_valid[row]
        else:
            assert inverse_depth.min() == pytest.approx(0, abs=0.01)
            assert inverse_depth.max() == pytest.approx(255, abs=0.01)
