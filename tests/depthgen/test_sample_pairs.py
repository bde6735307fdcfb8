"""Counting pairs, and that what is counted, drawn and trained are the same pairs."""

from math import exp, isnan
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.color import rgb2lab

from boxdepth.depthgen.datasets.sample.pairs import box_share, count_pairs
from study import scene_pairs


def _loop(cells: np.ndarray, threshold: float) -> np.ndarray:
    """Eq. 5 of arXiv:2012.02310 by hand: eight neighbours two cells away, row by row."""
    rows, columns = cells.shape[:2]
    offsets = [(dy, dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2) if (dy, dx) != (0, 0)]
    passed = np.zeros((8, rows, columns), bool)
    for index, (dy, dx) in enumerate(offsets):
        for row in range(max(0, -dy), rows - max(0, dy)):
            for column in range(max(0, -dx), columns - max(0, dx)):
                gap = np.linalg.norm(cells[row, column] - cells[row + dy, column + dx])
                passed[index, row, column] = exp(-0.5 * gap) >= threshold
    return passed


def _cells(values: np.ndarray) -> np.ndarray:
    rows, columns = (side // 4 for side in values.shape[:2])
    cut = values[: rows * 4, : columns * 4].astype(np.float64)
    return cut.reshape(rows, 4, columns, 4, -1).mean(axis=(1, 3))


def test_pairs_of_photographs_equal_the_equations(shared_data: Path) -> None:
    """LAB of the 4x4 means, and inverse depth, against scikit-image and a loop: all but ties."""
    folder = shared_data / "coco-dev" / "val2017"
    for file in sorted(folder.glob("*.jpg"))[:3]:
        with Image.open(file) as opened:
            image = np.array(opened.convert("RGB"))[:200, :240]
        expected = _loop(rgb2lab(np.trunc(_cells(image)).astype(np.uint8)), 0.3)
        assert (scene_pairs.alike_in_colour(image) == expected).mean() > 0.9999
        depth = image.mean(axis=2).astype(np.float32)
        low, high = depth.min(), depth.max()
        expected = _loop(_cells((depth - low) * (255 / (high - low)))[..., :1], 0.5)
        assert (scene_pairs.alike_in_depth(depth) == expected).mean() > 0.9999


def test_no_package_but_the_trainer_decides_which_pairs_are_alike(repository: Path) -> None:
    """A second LAB, pooling or threshold would show people what is not trained."""
    names = ("rgb_to_lab", "rgb2lab", "0.212671", "def colour_pairs", "def depth_pairs")
    found = {
        path.relative_to(repository).as_posix()
        for folder in ("packages/depthgen", "packages/evaluate", "pipelines")
        for path in (repository / folder).rglob("*.py")
        if any(name in path.read_text() for name in names)
    }
    assert found == set()


def test_a_ramp_of_800_rows_passes_across_and_not_down() -> None:
    """A plane from 0 to 255 over 800 rows: 2.55 units to the vertical neighbour fail, 0 pass."""
    ramp = np.repeat(np.linspace(0, 1, 800, dtype=np.float32)[:, None], 40, axis=1)
    passed = scene_pairs.alike_in_depth(ramp)
    assert not passed[1].any()
    assert passed[3, :, 2:].all()


def test_counts_tell_within_from_across() -> None:
    masks = np.zeros((2, 16, 32), bool)
    masks[0, :, 8:16] = True  # cell columns 2 and 3
    masks[1, :, 16:24] = True  # cell columns 4 and 5
    counts = count_pairs(np.ones((8, 4, 8), bool), masks, offsets=scene_pairs.RULE.offsets)
    # Each column of 4 cells: sideways neighbours leave the shape; of the vertical ones 2 + 2 of
    # 4 + 4 lie in the map. Diagonals: 2 + 2 on each side.
    assert counts.within == 4 * 4
    assert counts.across == 4 * (4 + 4 + 4 + 4)
    assert counts.within_share == counts.across_share == 1.0


def test_nothing_to_count_is_nan() -> None:
    nothing = np.zeros((0, 16, 32), bool)
    counts = count_pairs(np.ones((8, 4, 8), bool), nothing, offsets=scene_pairs.RULE.offsets)
    assert isnan(counts.within_share)
    assert isnan(box_share(np.ones((8, 4, 8), bool), (3.0, 3.0, 4.0, 4.0)))
    assert box_share(np.ones((8, 4, 8), bool), (0.0, 0.0, 32.0, 16.0)) == 1.0
