"""Holes of a depth sensor: nothing is learnt there, and nothing becomes NaN."""

from pathlib import Path

import numpy as np
import pytest
import torch

from boxdepth.depthgen.store import (
    DepthInfo,
    ImageRecord,
    Store,
    UnitRows,
    open_store,
    open_writer,
    plan_store,
)
from boxdepth.trainer.criterion.masks import MaskSamples, depth_term
from boxdepth.trainer.criterion.rules import LossRules
from boxdepth.trainer.data.loader import SampleKey, load_batch
from boxdepth.trainer.data.rules import Augmentation, Data
from boxdepth.trainer.data.store_dataset import TrainingSet
from boxdepth.trainer.distill.matching import depth_smoothness, depth_steps
from boxdepth.trainer.targets.mask_grid import mask_grid
from boxdepth.trainer.targets.pairs import depth_pairs
from boxdepth.trainer.targets.rules import PairRule

GRID = (16, 24)
HOLE = np.zeros(GRID, dtype=bool)
HOLE[4:10, 8:14] = True


@pytest.fixture
def holed(make_store, tmp_path: Path) -> Store:  # type: ignore[no-untyped-def]
    """Depth that is flat everywhere, so that every pair of measured cells agrees; a hole."""
    plain = make_store(sizes=[(64, 96)] * 2)
    slope = np.linspace(0, 1e-3, GRID[0] * GRID[1], dtype=np.float32).reshape(GRID)
    slope[0, 0] = 1.0  # one far outlier: the rest lies within a level or so
    images = [plain.image_bytes(i) for i in range(2)]
    records = [_record(plain, i) for i in range(2)]
    attributes = plan_store(
        records, dataset="custom", split="train", categories=plain.attributes.categories,
        image_nbytes=np.array([len(data) for data in images]),
        depth=DepthInfo(kind="inverse_relative", sign="near_is_large", grid=GRID, holes=True),
        generator={"model": "imported"}, unit=4, masks=False,
    )  # fmt: skip
    with open_writer(tmp_path / "holed.zarr", attributes, records) as writer:
        rows = UnitRows(images=images, depth=[slope] * 2, measured=[~HOLE, np.ones(GRID, bool)])
        writer.write_unit(0, rows)
        writer.finish()
    return open_store(tmp_path / "holed.zarr")


def _record(store: Store, i: int) -> ImageRecord:
    boxes = store.boxes(i)
    return ImageRecord(
        id=int(store.image_ids[i]), name=store.image_names[i], path=None, height=64, width=96,
        boxes_xyxy=boxes.xyxy, labels=boxes.label, box_ids=boxes.id, crowd=boxes.crowd,
        areas=boxes.area,
    )  # fmt: skip


@pytest.fixture
def dataset(holed: Store) -> TrainingSet:
    plain = Augmentation(short_sides=(64,), flip=0)
    return TrainingSet(holed, Data(bottom_rows_removed=0, augmentation=plain), seed=0)


def test_a_pair_that_touches_a_hole_is_never_trusted(dataset: TrainingSet) -> None:
    batch = load_batch(dataset, (SampleKey(0, 0), SampleKey(0, 1)))
    grid = mask_grid(batch)
    hole = grid.inverse_depth[:, 0].isnan()
    inside = torch.from_numpy(HOLE)  # a cell of the store's grid is a cell of stride 4 here
    assert bool(hole[0, :16, :24][inside].all())
    assert not bool(hole[1].any())
    # Resizing lets a hole reach its neighbours, and no further.
    grown = torch.nn.functional.max_pool2d(inside[None, None].float(), 3, stride=1, padding=1)
    assert not bool((hole[0, :16, :24] & ~grown[0, 0].bool()).any())
    rule = PairRule()
    pairs = depth_pairs(grid, rule).pairs
    for k, (dy, dx) in enumerate(rule.offsets):
        for y, x in np.argwhere(HOLE):
            assert not pairs[0, k, y, x]
            if 0 <= y - dy < 16 and 0 <= x - dx < 24:
                assert not pairs[0, k, y - dy, x - dx]
    assert int(pairs[1].sum()) > int(pairs[0].sum()) > 0


def test_the_depth_loss_leaves_holes_out(dataset: TrainingSet) -> None:
    """Against the mean over measured cells in the box, added up in a loop."""
    batch = load_batch(dataset, (SampleKey(0, 0),))
    grid = mask_grid(batch)
    rows, columns = grid.valid.shape[-2:]
    predicted = torch.rand(2, 1, rows, columns, generator=torch.Generator().manual_seed(3))
    predicted.requires_grad_()
    bitmaps = torch.zeros(1, rows, columns, dtype=torch.bool)
    bitmaps[0, 2:12, 6:20] = True
    samples = MaskSamples(
        logits=torch.zeros(2, 1, rows, columns), depth=predicted, bitmaps=bitmaps,
        box_index=torch.zeros(2, dtype=torch.int64), image_index=torch.zeros(2, dtype=torch.int64),
        by_box=torch.ones(2, dtype=torch.bool),
    )  # fmt: skip
    loss = depth_term(samples, grid, LossRules())["depth"]
    errors = [
        (float(predicted[p, 0, y, x].detach()) - float(grid.inverse_depth[0, 0, y, x]) / 255) ** 2
        for p in range(2)
        for y in range(2, 12)
        for x in range(6, 20)
        if not np.isnan(float(grid.inverse_depth[0, 0, y, x]))
    ]
    assert len(errors) < 2 * 10 * 14
    assert float(loss.detach()) == pytest.approx(float(np.mean(errors)), rel=1e-5)
    loss.backward()
    assert bool(predicted.grad.isfinite().all())


def test_a_hole_is_no_smooth_surface(dataset: TrainingSet) -> None:
    batch = load_batch(dataset, (SampleKey(0, 0),))
    smooth = depth_smoothness(depth_steps(batch.inverse_depth[0]), size=(64, 96), theta=2.0)
    assert bool(smooth.isfinite().all())
    assert float(smooth[5:9, 9:13].max()) == 0
    assert float(smooth[12:15, 2:20].min()) > 0


def test_a_store_without_holes_holds_no_nan(make_store) -> None:  # type: ignore[no-untyped-def]
    dataset = TrainingSet(make_store(), Data(), seed=0)
    assert bool(dataset.load(0, epoch=0).inverse_depth.isfinite().all())
