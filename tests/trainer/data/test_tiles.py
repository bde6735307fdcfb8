"""A tile as a training sample: what it shows, what it cuts, and what the masks lose by that."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from tests.trainer.conftest import TINY

from boxdepth.depthgen.store import Store
from boxdepth.trainer.config.overrides import load_config
from boxdepth.trainer.data.collate import collate
from boxdepth.trainer.data.rules import Augmentation, Data
from boxdepth.trainer.data.store_dataset import TrainingSet
from boxdepth.trainer.geometry.tiles import Tiling, parts_in
from boxdepth.trainer.losses.dice import dice_losses
from boxdepth.trainer.losses.projection import projection_losses
from boxdepth.trainer.model.rules import Inference

TILE, OVERLAP = 64, 16
BOXES = np.array(
    [
        [4, 4, 40, 30],  # whole in the first tile
        [50, 10, 90, 50],  # cut by the first tile at the right, whole in the second
        [10, 40, 30, 90],  # cut below, and above by the tile under it
        [60, 60, 63, 63],  # in the corner that four tiles share
    ],
    np.float32,
)


def four_boxes(index: int, height: int, width: int) -> np.ndarray:
    return BOXES


@pytest.fixture
def store(make_store) -> Store:
    return make_store(sizes=[(112, 112)], boxes=four_boxes, masks=True)


def tiles_of(store: Store, **changes: object) -> TrainingSet:
    augmentation = Augmentation(
        short_sides=(TILE,), max_size=TILE, flip=changes.pop("flip", 0), tile=TILE, overlap=OVERLAP
    )  # type: ignore[arg-type]
    plain = {"bottom_rows_removed": 10, "augmentation": augmentation, "supervision": "mixed"}
    return TrainingSet(store, Data(**(plain | changes)), seed=0)  # type: ignore[arg-type]


def test_a_part_counts_where_enough_of_it_is_seen_and_its_cut_sides_are_known() -> None:
    window, size = (0, 0, 64, 64), (112, 112)
    boxes = np.array(
        [[4, 4, 40, 30], [50, 10, 90, 50], [62, 0, 90, 50], [0, 0, 112, 112], [70, 0, 90, 50]],
        np.float32,
    )
    kept, cut = parts_in(boxes, window, size=size, tile=64)
    # 14 of 40 pixels are more than a sixteenth of the tile (4); 2 of 28 are less than that
    assert kept.tolist() == [True, True, False, True, False]
    assert cut[0].tolist() == [False, False, False, False]
    assert cut[1].tolist() == [False, False, True, False]
    assert cut[3].tolist() == [False, False, True, True]
    _, border = parts_in(boxes, (48, 48, 112, 112), size=size, tile=64)
    assert border[3].tolist() == [True, True, False, False]  # the image's own border cuts nothing


@given(
    st.integers(64, 300), st.integers(64, 300), st.sampled_from([(64, 0), (64, 16), (80, 39)]),
    st.integers(0, 10_000),
)  # fmt: skip
@settings(max_examples=60)
def test_every_box_has_a_part_in_some_tile(
    height: int, width: int, tiles: tuple[int, int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 1, (20, 2)) * [width - 1, height - 1]
    far = corner + np.maximum(random.uniform(0, 1, (20, 2)) ** 2 * ([width, height] - corner), 0.5)
    boxes = np.concatenate([corner, np.minimum(far, [width, height])], axis=1).astype(np.float32)
    tiling = Tiling(size=tiles[0], overlap=tiles[1])
    seen, whole = np.zeros(20, bool), np.zeros(20, bool)
    for window in tiling.windows(height, width):
        kept, cut = parts_in(boxes, window, size=(height, width), tile=tiling.size)
        seen |= kept
        whole |= kept & ~cut.any(axis=1)
    assert seen.all()
    short = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) <= tiling.overlap
    assert whole[short].all()


def test_a_tile_shows_its_part_of_all_that_is_known(store: Store) -> None:
    dataset = tiles_of(store)
    assert len(dataset) == 4
    assert dataset.rows.tolist() == [0, 0, 0, 0]
    assert dataset.box_counts.tolist() == [4, 2, 2, 1]
    pixels = np.array(Image.open(io.BytesIO(store.image_bytes(0))))
    for index, (left, top) in enumerate([(0, 0), (48, 0), (0, 48), (48, 48)]):
        sample = dataset.load(index, epoch=0)
        shown = sample.image.permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(shown, pixels[top : top + TILE, left : left + TILE])
        # the depth rises from top to bottom over the whole image, and so it does in its parts
        depth = sample.inverse_depth[0].numpy()
        whole = np.asarray(
            Image.fromarray(store.inverse_depth(0)).resize((112, 112), Image.Resampling.BILINEAR)
        )
        np.testing.assert_allclose(depth, whole[top : top + TILE, left : left + TILE], atol=3.5)
        assert sample.bottom_rows_removed == (10 if top else 0)
    first, second, third, fourth = (dataset.load(index, epoch=0) for index in range(4))
    assert first.boxes_xyxy.tolist() == [
        [4, 4, 40, 30], [50, 10, 64, 50], [10, 40, 30, 64], [60, 60, 63, 63],
    ]  # fmt: skip
    assert first.cut is not None
    assert first.cut.int().tolist() == [[0] * 4, [0, 0, 1, 0], [0, 0, 0, 1], [0] * 4]
    assert second.boxes_xyxy.tolist() == [[2, 10, 42, 50], [12, 60, 15, 63]]
    assert third.boxes_xyxy.tolist() == [[10, 0, 30, 42], [60, 12, 63, 15]]
    assert third.cut is not None
    assert third.cut.int().tolist() == [[0, 1, 0, 0], [0] * 4]
    assert fourth.boxes_xyxy.tolist() == [[12, 12, 15, 15]]


def test_masks_and_cut_sides_turn_with_a_flip(store: Store) -> None:
    plain, flipped = tiles_of(store).load(0, epoch=0), tiles_of(store, flip=1).load(0, epoch=0)
    assert plain.cut is not None
    assert flipped.cut is not None
    assert flipped.cut.tolist() == plain.cut[:, [2, 1, 0, 3]].tolist()
    assert torch.equal(flipped.image, plain.image.flip(2))
    assert plain.masks is not None
    assert plain.has_mask.tolist() == [True, True, True, True]
    # half of the ellipse [50, 10, 90, 50] would end at 70: the part up to 64, read every 4 pixels
    y, x = np.mgrid[2:64:4, 2:64:4]
    expected = ((x + 0.5 - 70) / 20) ** 2 + ((y + 0.5 - 30) / 20) ** 2 <= 1
    np.testing.assert_array_equal(plain.masks[1].numpy(), expected)


def test_a_batch_carries_the_cut_sides(store: Store) -> None:
    dataset = tiles_of(store)
    batch = collate([dataset.load(index, epoch=0) for index in (0, 3)])
    assert batch.cut is not None
    assert batch.cut.shape == (5, 4)
    assert batch.cut[4].tolist() == [False] * 4
    whole = TrainingSet(store, Data(augmentation=Augmentation(short_sides=(64,))), seed=0)
    assert collate([whole.load(0, epoch=0)]).cut is None


def disc_behind_an_edge() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the visible 5 columns of a disc of 16, and the box that is left of its box."""
    y, x = np.mgrid[0:20, 0:24]
    disc = (x + 0.5 - 27) ** 2 + (y + 0.5 - 10) ** 2 <= 8**2
    box = np.zeros((20, 24), bool)
    box[2:18, 19:24] = True
    logits = torch.from_numpy(np.where(disc, 12.0, -12.0).astype(np.float32))
    return logits[None, None], torch.from_numpy(box)[None]


def test_the_visible_part_of_a_cut_object_costs_nothing() -> None:
    logits, box = disc_behind_an_edge()
    index, cut = torch.tensor([0]), torch.tensor([[False, False, True, False]])
    assert float(projection_losses(logits, box, index, cut)) == pytest.approx(0, abs=1e-3)
    # uncut, all 16 rows of the box would be wanted, and the visible part fills 14: 3.5 columns from
    # the centre the disc is 2 sqrt(64 - 3.5^2) = 14.4 high
    rows = torch.zeros(1, 20)
    rows[0, 3:17] = 1
    wanted = torch.zeros(1, 20)
    wanted[0, 2:18] = 1
    expected = float(dice_losses(rows, wanted))
    assert float(projection_losses(logits, box, index)) == pytest.approx(expected, abs=1e-3)
    assert expected > 0.05


@pytest.mark.parametrize(
    ("cut", "columns_known", "rows_known"),
    [([0, 0, 0, 0], True, True), ([1, 0, 0, 0], True, False), ([0, 0, 1, 0], True, False),
     ([0, 1, 0, 0], False, True), ([0, 0, 0, 1], False, True), ([0, 1, 1, 0], False, False)],
)  # fmt: skip
def test_a_cut_leaves_one_profile_open_inside_the_box_and_none_outside(
    cut: list[int], columns_known: bool, rows_known: bool
) -> None:
    """A loop over the definition: dice of each profile, its own value as target where unknown."""
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 6, 7)
    box = torch.zeros(1, 6, 7, dtype=torch.bool)
    box[0, 1:4, 2:6] = True
    found = logits[0, 0].sigmoid().numpy()
    total = 0.0
    for profile, inside, known in (
        (found.max(axis=0), range(2, 6), columns_known),
        (found.max(axis=1), range(1, 4), rows_known),
    ):
        target = [
            (1.0 if known else float(p)) if k in inside else 0.0 for k, p in enumerate(profile)
        ]
        shared = sum(p * t for p, t in zip(profile, target, strict=True))
        squares = sum(p * p for p in profile) + sum(t * t for t in target)
        total += 1 - 2 * shared / (squares + 1e-5)
    sides = torch.tensor([[bool(side) for side in cut]])
    loss = projection_losses(logits, box, torch.tensor([0]), sides)
    assert float(loss) == pytest.approx(total, abs=1e-5)


def test_what_spills_out_of_a_cut_box_is_still_pushed_back() -> None:
    logits, box = disc_behind_an_edge()
    spilt = logits.clone()
    spilt[0, 0, 19] = 3.0  # a row below the box
    spilt.requires_grad_()
    cut = torch.tensor([[False, False, True, False]])
    projection_losses(spilt, box, torch.tensor([0]), cut).sum().backward()
    assert spilt.grad is not None
    assert spilt.grad[0, 0, 19].sum() > 0


@pytest.mark.parametrize("section", [Augmentation, Inference])
def test_an_overlap_of_half_a_tile_is_refused(section: type) -> None:
    with pytest.raises(ValidationError, match="less than half a tile"):
        section(tile=100, overlap=50)
    assert section(tile=100, overlap=49).tiling == Tiling(size=100, overlap=49)
    assert section().tiling is None


def test_a_run_learns_and_predicts_in_the_tiles_it_was_given(trainer, store: Store) -> None:
    chosen = [part for setting in TINY for part in ("--set", setting)]
    code, _, said = trainer(
        "fit", "scenes_tiny", "--train", store.path, "--val", store.path, "--tile", 64,
        "--overlap", 16, *chosen[:8], *chosen[10:], "--max-iterations", 2, "--out", "run",
    )  # fmt: skip
    assert code == 0, said
    config = load_config(Path("run/config.json"))
    assert config.data.augmentation.tiling == config.inference.tiling == Tiling(size=64, overlap=16)
    for more, count in (((), 1), (("--tile", 0), 1)):
        code, _, said = trainer(
            "predict", "run", "--store", store.path, "--boxes", "store", "--overwrite", *more
        )
        assert code == 0, said
        assert len(json.loads(Path("predictions.json").read_text())) == 4 * count


def test_depth_at_stride_4_is_the_mean_of_the_tiles_pixels(store: Store) -> None:
    settings = Data(
        augmentation=Augmentation(
            short_sides=(96,), max_size=96, flip=1, tile=TILE, overlap=OVERLAP
        )
    )
    pixels, cells = (
        TrainingSet(store, settings, seed=0, depth=form).load(1, epoch=0)
        for form in ("pixels", "cells")
    )
    means = pixels.inverse_depth.reshape(1, 24, 4, 24, 4).mean(dim=(2, 4))
    torch.testing.assert_close(cells.inverse_depth, means, atol=1e-3, rtol=0)
