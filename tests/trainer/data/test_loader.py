"""The order of samples, and batches that no worker, restart or rank can change."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxdepth.depthgen.store import DataError
from boxdepth.trainer.data.collate import collate
from boxdepth.trainer.data.loader import BatchLoader, BatchOrder
from boxdepth.trainer.data.rules import Augmentation, Data
from boxdepth.trainer.data.store_dataset import TrainingSet
from boxdepth.trainer.structures import Batch, Sample

OPTIONS = Data(augmentation=Augmentation(short_sides=(48, 64), max_size=128), bottom_rows_removed=0)


@settings(max_examples=40)
@given(
    samples=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 5),
    grouped=st.booleans(),
)
def test_an_epoch_is_each_sample_exactly_once(
    samples: int, batch_size: int, seed: int, grouped: bool
) -> None:
    landscape = np.random.default_rng(seed).random(samples) < 0.5 if grouped else None
    order = BatchOrder(samples=samples, batch_size=batch_size, seed=seed, landscape=landscape)
    block = max(samples // batch_size, 1)
    keys = [key for number in range(2 * samples * block) for key in order.keys(number)]
    for epoch in range(2):
        drawn = sorted(key.sample for key in keys if key.epoch == epoch)
        assert drawn == list(range(samples))


def test_grouped_batches_hold_one_aspect() -> None:
    landscape = np.arange(100) % 3 == 0
    order = BatchOrder(samples=100, batch_size=5, seed=0, landscape=landscape)
    mixed = [
        len({bool(landscape[key.sample]) for key in order.keys(number)}) > 1 for number in range(20)
    ]
    assert sum(mixed) <= 1


def test_another_seed_is_another_order() -> None:
    orders = [BatchOrder(samples=50, batch_size=5, seed=seed).keys(0) for seed in (0, 1)]
    assert orders[0] != orders[1]


def ids(loader: BatchLoader, steps: int) -> list[int]:
    return [i for passes in loader.steps(0, steps) for batch in passes for i in batch.image_ids]


@pytest.fixture
def dataset(make_store) -> TrainingSet:
    sizes = [(64, 96), (96, 64), (64, 64), (50, 70), (70, 50), (64, 96), (80, 60), (60, 80)]
    return TrainingSet(make_store(sizes=sizes), OPTIONS, seed=3)


def order_of(dataset: TrainingSet, batch_size: int = 4) -> BatchOrder:
    return BatchOrder(
        samples=len(dataset), batch_size=batch_size, seed=3, landscape=dataset.landscape
    )


def equal(a: Batch, b: Batch) -> bool:
    return a.image_ids == b.image_ids and all(
        torch.equal(getattr(a, name), getattr(b, name))
        for name in ("images", "inverse_depth", "valid", "boxes_xyxy", "labels", "centers_xy")
    )


def test_workers_change_nothing(dataset: TrainingSet) -> None:
    alone = list(BatchLoader(dataset, order_of(dataset)).steps(0, 6))
    for workers in (2, 4):
        many = list(BatchLoader(dataset, order_of(dataset), Data(workers=workers)).steps(0, 6))
        assert all(
            equal(a, b) for x, y in zip(alone, many, strict=True) for a, b in zip(x, y, strict=True)
        )


def test_loader_threads_work_alone(dataset: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A team of OpenMP threads each would let those of the model sleep (docs/lab-log.md)."""
    seen: set[tuple[str, int]] = set()
    load = TrainingSet.load

    def watched(self: TrainingSet, index: int, *, epoch: int) -> Sample:
        seen.add((threading.current_thread().name[:6], torch.get_num_threads()))
        return load(self, index, epoch=epoch)

    monkeypatch.setattr(TrainingSet, "load", watched)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for workers in (1, 3):
            batches = BatchLoader(dataset, order_of(dataset), Data(workers=workers)).steps(0, 6)
            next(batches)
            assert torch.get_num_threads() == 3
            assert len(list(batches)) == 5
    finally:
        torch.set_num_threads(before)
    assert seen == {("loader", 1)}


def test_starting_in_the_middle_changes_nothing(dataset: TrainingSet) -> None:
    loader = BatchLoader(dataset, order_of(dataset), Data(workers=2))
    whole, rest = list(loader.steps(0, 6)), list(loader.steps(3, 6))
    assert all(equal(a[0], b[0]) for a, b in zip(whole[3:], rest, strict=True))


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)])
def test_ranks_and_accumulation_share_the_same_global_batches(
    dataset: TrainingSet, world: int, accumulate: int
) -> None:
    order = order_of(dataset)
    loaders = [
        BatchLoader(dataset, order, Data(accumulate=accumulate), rank=rank, world=world)
        for rank in range(world)
    ]
    for step in range(4):
        parts = [key for loader in loaders for keys in loader.keys(step) for key in keys]
        assert sorted(parts) == sorted(order.keys(step))


def test_an_indivisible_batch_is_refused(dataset: TrainingSet) -> None:
    with pytest.raises(ValueError, match="4 images can't be divided over 3 ranks with 1"):
        BatchLoader(dataset, order_of(dataset), world=3)


def test_images_are_padded_at_the_right_and_bottom_to_32(dataset: TrainingSet) -> None:
    samples = [dataset.load(index, epoch=0) for index in range(3)]
    batch = collate(samples)
    assert batch.images.shape[-1] % 32 == batch.images.shape[-2] % 32 == 0
    for k, sample in enumerate(samples):
        h, w = sample.image.shape[-2:]
        assert torch.equal(batch.images[k, :, :h, :w], sample.image)
        assert not batch.images[k, :, h:].any()
        assert not batch.images[k, :, :, w:].any()
        assert batch.valid[k].sum() == h * w
        assert tuple(batch.sizes[k].tolist()) == (h, w)
    assert batch.image_index.tolist() == [0, 0, 1, 1, 2, 2]


def test_recoloured_images_are_padded_beside_the_clean_ones(make_store) -> None:
    store = make_store(sizes=[(64, 96), (64, 80)])
    options = Data(augmentation=Augmentation(short_sides=(32,), color="strong_blur"))
    samples = [TrainingSet(store, options, seed=3).load(index, epoch=1) for index in range(2)]
    batch = collate(samples)
    assert batch.student_images is not None
    assert batch.student_images.shape == batch.images.shape
    for k, sample in enumerate(samples):
        h, w = sample.image.shape[-2:]
        assert torch.equal(batch.images[k, :, :h, :w], sample.image)
        assert torch.equal(batch.student_images[k, :, :h, :w], sample.student_image)
        assert not batch.student_images[k, :, :, w:].any()


def test_removed_rows_are_not_valid(make_store) -> None:
    store = make_store(sizes=[(64, 96)])
    options = Data(augmentation=Augmentation(short_sides=(32,), flip=0), bottom_rows_removed=10)
    batch = collate([TrainingSet(store, options, seed=3).load(0, epoch=0)])
    assert batch.valid[0].any(dim=1).sum() == 32 - 10 * 32 // 64


def test_a_slow_sample_is_named(dataset: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    load = dataset.load

    def stuck(index: int, *, epoch: int) -> Sample:
        released.wait(20)
        return load(index, epoch=epoch)

    monkeypatch.setattr(dataset, "load", stuck)
    loader = BatchLoader(dataset, order_of(dataset), Data(workers=1, timeout_seconds=1))
    try:
        with pytest.raises(DataError, match=r"images \[10\d\d.*\] were not loaded within 1 s"):
            next(iter(loader.steps(0, 1)))
    finally:
        released.set()
