"""Which neighbour pairs are trusted."""

import math

import pytest
import torch
from torch import Tensor

from boxdepth.trainer.geometry.lab import rgb_to_lab
from boxdepth.trainer.geometry.resize import pooled, subsampled
from boxdepth.trainer.structures import MaskGrid
from boxdepth.trainer.targets import pairs as pairs_module
from boxdepth.trainer.targets.mask_grid import lab_of_cells
from boxdepth.trainer.targets.pairs import similarity
from boxdepth.trainer.targets.rules import PairRule

DEPTH = torch.tensor([[10, 10, 11, 14, 200], [10, 12, 11, 14, 200], [9, 10, 11, 20, 200.0]])
EVERYWHERE = torch.ones(1, 3, 5, dtype=torch.bool)


def grid_of(
    *,
    valid: Tensor,
    images: Tensor | None = None,
    depth: Tensor | None = None,
    depth_valid: list[bool] | None = None,
) -> MaskGrid:
    """What the pairs need to know of a batch without boxes."""
    count, height, width = valid.shape
    if images is None:
        images = torch.zeros(count, 3, height, width, dtype=torch.uint8)
    if depth is None:
        depth = torch.zeros(count, 1, height, width)
    return MaskGrid(
        box_bitmaps=torch.zeros(0, height // 4, width // 4, dtype=torch.bool),
        valid=subsampled(valid, 4),
        inverse_depth=pooled(depth, 4),
        depth_valid=torch.tensor(depth_valid or [True] * count),
        lab=lab_of_cells(images),
    )


def color_pairs(images: Tensor, valid: Tensor, **rule: float) -> Tensor:
    grid = grid_of(images=images, valid=valid)
    return pairs_module.color_pairs(grid, PairRule(**rule)).pairs  # type: ignore[arg-type]


def depth_pairs(
    depth: Tensor, valid: Tensor, depth_valid: list[bool] | None = None, **rule: float
) -> Tensor:
    grid = grid_of(depth=depth, valid=valid, depth_valid=depth_valid)
    return pairs_module.depth_pairs(grid, PairRule(**rule)).pairs  # type: ignore[arg-type]


def enlarged(maps: Tensor, times: int = 4) -> Tensor:
    """Each cell as a block, so that pooling gives the cells back."""
    return maps.repeat_interleave(times, -2).repeat_interleave(times, -1)


def test_similarity_halves_the_difference() -> None:
    """method.md, golden vector 1."""
    row = torch.tensor([0.0, 0, 1, 3, 6, 10, 15, 21]).reshape(1, 1, 1, 8)
    valid = torch.ones(1, 1, 8, dtype=torch.bool)
    right = similarity(row, valid, PairRule(dilation=1))[0, 4, 0, :7]
    expected = [1, 0.606531, 0.367879, 0.223130, 0.135335, 0.082085, 0.049787]
    assert right.tolist() == pytest.approx(expected, abs=1e-6)


def test_similarity_of_the_worked_example() -> None:
    """method.md, golden vector 2."""
    near = similarity(DEPTH[None, None], EVERYWHERE, PairRule(dilation=1))[0]
    inside = [0.606531, 1, 0.223130, 0.606531, 0.223130, 0.606531, 1, 0.011109]
    assert near[:, 1, 2].tolist() == pytest.approx(inside, abs=1e-6)
    corner = [0, 0, 0, 0, 1, 0, 1, 0.367879]
    assert near[:, 0, 0].tolist() == pytest.approx(corner, abs=1e-6)
    far = similarity(DEPTH[None, None], EVERYWHERE, PairRule(dilation=2))[0]
    corner = [0, 0, 0, 0, 0.606531, 0, 0.606531, 0.606531]
    assert far[:, 0, 0].tolist() == pytest.approx(corner, abs=1e-6)
    assert far[4, 0].tolist() == pytest.approx([0.606531, 0.135335, 0, 0, 0], abs=1e-6)


def test_only_the_neighbours_validity_counts() -> None:
    valid = EVERYWHERE.clone()
    valid[0, 1, 2] = False
    values = similarity(torch.zeros(1, 1, 3, 5), valid, PairRule(dilation=1))[0]
    assert values[:, 1, 2].tolist() == [1] * 8
    assert values[4, 1, 1] == 0
    assert values[3, 1, 3] == 0


@pytest.mark.parametrize(("threshold", "largest"), [(0.3, 2.408), (0.5, 1.386), (0.7, 0.713)])
def test_depth_threshold_admits_the_tabled_difference(threshold: float, largest: float) -> None:
    assert -2 * math.log(threshold) == pytest.approx(largest, abs=5e-4)
    for difference, trusted in ((largest - 0.01, True), (largest + 0.01, False)):
        cells = torch.tensor([[100.0, 0, 100 + difference]]).repeat(3, 1)
        maps = enlarged(cells)[None, None]
        pairs = depth_pairs(maps, torch.ones(1, 12, 12).bool(), depth_threshold=threshold)
        assert bool(pairs[0, 4, 1, 0]) is trusted


def test_a_plane_is_trusted_along_its_contour_lines_only() -> None:
    plane = torch.linspace(0, 255, 800)[:, None].expand(800, 64)
    pairs = depth_pairs(plane[None, None], torch.ones(1, 800, 64).bool())
    inner = pairs[0, :, 10:-10, 4:-4]
    assert inner[3].all()
    assert inner[4].all()
    assert not inner[1].any()
    assert not inner[6].any()


def test_an_image_without_depth_has_no_depth_pairs() -> None:
    maps = torch.zeros(2, 1, 32, 32)
    valid = torch.ones(2, 32, 32, dtype=torch.bool)
    pairs = depth_pairs(maps, valid, depth_valid=[True, False])
    assert pairs[0].any()
    assert not pairs[1].any()


def test_no_pair_points_out_of_the_image_or_into_removed_rows() -> None:
    images = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
    valid = torch.ones(1, 32, 32, dtype=torch.bool)
    valid[:, 22:] = False
    pairs = color_pairs(images, valid, color_threshold=0.0)
    assert not pairs[0, 6, 3:].any()
    assert not pairs[0, 1, :2].any()
    assert pairs[0, 4, 7, 0].item() is False
    assert pairs[0, 1, 6, 0].item() is True


def test_padding_changes_no_pair_inside() -> None:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (1, 3, 8, 12), dtype=torch.uint8)
    image = enlarged(image)
    valid = torch.ones(1, 32, 48, dtype=torch.bool)
    padded = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    padded[..., :32, :48] = image
    padded_valid = torch.zeros(1, 64, 64, dtype=torch.bool)
    padded_valid[..., :32, :48] = True
    alone = color_pairs(image, valid)
    together = color_pairs(padded, padded_valid)
    assert torch.equal(together[..., :8, :12], alone)


def test_flipped_images_have_flipped_pairs() -> None:
    torch.manual_seed(1)
    image = enlarged(torch.randint(0, 60, (1, 3, 8, 8), dtype=torch.uint8))
    valid = torch.ones(1, 32, 32, dtype=torch.bool)
    mirrored = [2, 1, 0, 4, 3, 7, 6, 5]
    flipped = color_pairs(image.flip(-1), valid, color_threshold=0.05)
    assert torch.equal(
        flipped, color_pairs(image, valid, color_threshold=0.05).flip(-1)[:, mirrored]
    )


def test_lab_knows_white_black_and_grey() -> None:
    grey = torch.tensor([255.0, 0, 119]).reshape(1, 1, 1, 3).expand(1, 3, 1, 3)
    lab = rgb_to_lab(grey)[0, :, 0]
    assert lab[0].tolist() == pytest.approx([100, 0, 50.03], abs=0.05)
    assert lab[1:].abs().max() < 0.02


def test_pairs_carry_no_gradient() -> None:
    maps = torch.rand(1, 1, 16, 16).requires_grad_()
    assert not depth_pairs(maps, torch.ones(1, 16, 16).bool()).requires_grad
