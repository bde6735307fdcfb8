"""What of a store becomes a sample, and what is left out and counted."""

from typing import get_args

import numpy as np
import pytest
import torch

from boxdepth.depthgen.store import DataError, Store
from boxdepth.trainer.data.loader import SampleKey, load_batch
from boxdepth.trainer.data.rules import Augmentation, Data
from boxdepth.trainer.data.store_dataset import DepthForm, TrainingSet
from boxdepth.trainer.data.validation_set import ValidationSet, check_images
from boxdepth.trainer.distill.candidates import given_boxes
from boxdepth.trainer.distill.matching import depth_smoothness
from boxdepth.trainer.targets.mask_grid import mask_grid


def training_set(store: Store, *, seed: int = 0, **changes: object) -> TrainingSet:
    plain = {"bottom_rows_removed": 0, "augmentation": Augmentation(short_sides=(64,), flip=0)}
    return TrainingSet(store, Data(**(plain | changes)), seed=seed)  # type: ignore[arg-type]


def awkward(index: int, height: int, width: int) -> np.ndarray:
    """One good box; one without area; one that reaches out; in image 2 none at all."""
    if index == 2:
        return np.zeros((0, 4), np.float32)
    return np.array(
        [[5, 5, 40, 30], [10, 10, 10, 20], [50, 40, width + 20, height + 5], [1, 1, 9, 9]],
        np.float32,
    )


def fourth_is_crowd(index: int) -> np.ndarray:
    return np.array([False, False, False, True]) if index != 2 else np.zeros(0, bool)


def test_crowd_and_empty_boxes_are_left_out_and_counted(make_store) -> None:
    store = make_store(sizes=[(64, 96)] * 3, boxes=awkward, crowd=fourth_is_crowd)
    dataset = training_set(store)
    census = dataset.census
    assert (census.images, census.images_used, census.images_without_boxes) == (3, 2, 1)
    assert (census.boxes, census.boxes_used) == (8, 4)
    assert (census.boxes_crowd, census.boxes_empty, census.boxes_clipped) == (2, 2, 2)
    sample = dataset.load(0, epoch=0)
    assert sample.boxes_xyxy.tolist() == [[5, 5, 40, 30], [50, 40, 96, 64]]


def test_images_without_boxes_stay_if_asked_for(make_store) -> None:
    store = make_store(sizes=[(64, 96)] * 3, boxes=awkward, crowd=fourth_is_crowd)
    dataset = training_set(store, keep_empty=True)
    assert len(dataset) == 3
    empty = dataset.load(2, epoch=0)
    assert empty.boxes_xyxy.shape == (0, 4)
    assert empty.labels.dtype == torch.int64


def test_other_colours_are_for_the_student_alone(make_store) -> None:
    store = make_store(sizes=[(64, 96)] * 4)
    plain, strong = (
        training_set(store, augmentation=Augmentation(short_sides=(64,), color=c))
        for c in ("none", "strong")
    )
    changed = 0
    for epoch in range(5):
        for index in range(4):
            clean, seen = (data.load(index, epoch=epoch) for data in (plain, strong))
            assert clean.student_image is None
            assert seen.student_image is not None
            assert seen.student_image.shape == seen.image.shape
            assert torch.equal(clean.image, seen.image)
            assert torch.equal(clean.boxes_xyxy, seen.boxes_xyxy)
            assert torch.equal(clean.inverse_depth, seen.inverse_depth)
            changed += not torch.equal(seen.student_image, seen.image)
    assert changed >= 10


def test_centres_are_those_of_the_rasterised_box(make_store) -> None:
    sample = training_set(make_store(sizes=[(64, 96)], boxes=awkward)).load(0, epoch=0)
    assert sample.centers_xy[0].tolist() == [(5 + 40) / 2, (5 + 30) / 2]


def test_a_store_without_a_usable_box_is_refused(make_store) -> None:
    store = make_store(boxes=lambda index, height, width: np.zeros((0, 4), np.float32))
    with pytest.raises(DataError, match="no image with a usable box"):
        training_set(store)


def test_masks_are_read_only_if_they_are_supervision(make_store) -> None:
    store = make_store(masks=True)
    assert training_set(store).load(0, epoch=0).masks is None
    sample = training_set(store, supervision="masks").load(0, epoch=0)
    assert sample.masks is not None
    assert sample.masks.shape == (2, 16, 24)
    assert sample.has_mask.all()


def test_supervision_by_masks_needs_a_store_with_masks(make_store) -> None:
    with pytest.raises(DataError, match="depthgen run --with-masks"):
        training_set(make_store(), supervision="masks")


def test_the_share_of_masks_is_chosen_by_annotation_and_stays_chosen(make_store) -> None:
    store = make_store(sizes=[(64, 96)] * 40, masks=True)
    few, more = (
        training_set(store, supervision="mixed", mask_fraction=share) for share in (0.25, 0.5)
    )
    has_few = torch.cat([few.load(k, epoch=k % 3).has_mask for k in range(40)])
    has_more = torch.cat([more.load(k, epoch=0).has_mask for k in range(40)])
    assert 0.1 < has_few.float().mean() < 0.4
    assert (has_more | ~has_few).all(), "a larger share keeps what the smaller had"


def test_a_mask_sample_is_where_its_box_is(make_store) -> None:
    mirrored = Augmentation(short_sides=(64,), flip=1)
    dataset = training_set(make_store(masks=True), supervision="masks", augmentation=mirrored)
    sample = dataset.load(0, epoch=0)
    assert sample.masks is not None
    for mask, (x1, y1, x2, y2) in zip(sample.masks, sample.boxes_xyxy.tolist(), strict=True):
        rows, columns = mask.nonzero().unbind(1)
        assert x1 - 4 <= 4 * columns.min() + 2 < 4 * columns.max() + 2 <= x2 + 4
        assert y1 - 4 <= 4 * rows.min() + 2 < 4 * rows.max() + 2 <= y2 + 4


def test_missing_depth_is_marked(make_store) -> None:
    store = make_store(depth=lambda index: None if index == 1 else np.eye(24, 32, dtype=np.float32))
    dataset = training_set(store)
    assert [dataset.load(k, epoch=0).depth_valid for k in range(3)] == [True, False, True]
    assert dataset.census.images_without_depth == 1


def test_a_damaged_image_is_named_with_its_store(make_store) -> None:
    store = make_store(sizes=[(64, 96)] * 2)
    shard = next(store.path.glob("image/data/c/*"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 0xFF
    shard.write_bytes(bytes(data))
    dataset = training_set(store)
    with pytest.raises(DataError, match=r"train\.zarr.*image 1000.*damaged"):
        load_batch(dataset, (SampleKey(0, 0),))
    assert len(check_images(store, range(2))) == 1


def test_a_stores_own_masks_are_its_ground_truth(make_store) -> None:
    truth = ValidationSet(make_store(masks=True)).ground_truth()
    assert [category["id"] for category in truth["categories"]] == [3, 9]
    first = truth["annotations"][0]
    assert (first["image_id"], first["category_id"], first["id"]) == (1000, 3, 100)
    assert first["segmentation"]["size"] == [64, 96]


def test_a_store_without_masks_still_has_boxes_to_score_against(make_store) -> None:
    images = ValidationSet(make_store("boxes"))
    assert not images.has_masks
    annotations = images.ground_truth()["annotations"]
    assert len(annotations) == 12
    assert not any("segmentation" in annotation for annotation in annotations)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_depth_on_the_grid_teaches_what_depth_of_every_pixel_teaches(
    make_store, flip: float
) -> None:
    """One batch of two sizes, each way of handing on the depth: the same grid, the same matches."""

    def uneven(index: int) -> np.ndarray:
        return np.random.default_rng(index).random((24, 24)).astype(np.float32)

    store = make_store(sizes=[(64, 96), (50, 75)], depth=uneven)
    settings = Data(augmentation=Augmentation(short_sides=(90,), flip=flip))
    batches = {}
    for form in get_args(DepthForm):
        dataset = TrainingSet(store, settings, seed=0, depth=form)
        batches[form] = load_batch(dataset, (SampleKey(0, 0), SampleKey(0, 1)))
    grids = {form: mask_grid(batch) for form, batch in batches.items()}
    smooth = {
        form: depth_smoothness(
            given_boxes(batches[form], grids[form], 1).depth_steps,
            size=batches[form].frames[1],
            theta=2.0,
        )
        for form in ("pixels", "steps")
    }
    for form in ("cells", "steps"):
        torch.testing.assert_close(
            grids[form].inverse_depth, grids["pixels"].inverse_depth, atol=2e-4, rtol=0
        )
    assert batches["cells"].inverse_depth.shape[-1] * 4 == batches["pixels"].inverse_depth.shape[-1]
    torch.testing.assert_close(smooth["steps"], smooth["pixels"], atol=2e-4, rtol=0)


def test_pillows_resize_hands_on_every_pixels_depth(make_store) -> None:
    settings = Data(augmentation=Augmentation(short_sides=(64,), resize="pillow"))
    sample = TrainingSet(make_store(), settings, seed=0, depth="cells").load(0, epoch=0)
    assert sample.depth_stride == 1
    assert sample.inverse_depth.shape[-2:] == sample.image.shape[-2:]
