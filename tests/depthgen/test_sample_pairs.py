"""Pair counts equal slow loops written from the definition."""

from math import exp, isnan

import numpy as np
from skimage.color import rgb2lab

from boxdepth.depthgen.datasets.sample.pairs import (
    NEIGHBOURS,
    box_share,
    colour_pairs,
    count_pairs,
    depth_pairs,
    lab,
)


def test_lab_equals_scikit_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_allclose(lab(image), rgb2lab(image), atol=2e-4)


def test_colour_pairs_equal_a_loop() -> None:
    rng = np.random.default_rng(1)
    image = (120 + rng.integers(0, 12, (24, 32, 3))).astype(np.uint8)
    cells = image.reshape(6, 4, 8, 4, 3).mean(axis=(1, 3)).astype(np.uint8)
    colour = rgb2lab(cells)
    passed = colour_pairs(image)
    for index, (dy, dx) in enumerate(NEIGHBOURS):
        for row in range(6):
            for column in range(8):
                y, x = row + dy, column + dx
                inside = 0 <= y < 6 and 0 <= x < 8
                alike = inside and (
                    exp(-0.5 * np.linalg.norm(colour[row, column] - colour[y, x])) >= 0.3
                )
                assert passed[index, row, column] == alike


def test_a_ramp_of_800_rows_passes_across_and_not_down() -> None:
    """A plane from 0 to 255 over 800 rows: 2.55 units to the vertical neighbour fail, 0 pass."""
    ramp = np.repeat(np.linspace(0, 1, 800, dtype=np.float32)[:, None], 40, axis=1)
    passed = depth_pairs(ramp)
    assert not passed[1].any()
    assert passed[3, :, 2:].all()


def test_counts_tell_within_from_across() -> None:
    masks = np.zeros((2, 16, 32), bool)
    masks[0, :, 8:16] = True  # cell columns 2 and 3
    masks[1, :, 16:24] = True  # cell columns 4 and 5
    counts = count_pairs(np.ones((8, 4, 8), bool), masks)
    # Each column of 4 cells: sideways neighbours leave the shape; of the vertical ones 2 + 2 of
    # 4 + 4 lie in the map. Diagonals: 2 + 2 on each side.
    assert counts.within == 4 * 4
    assert counts.across == 4 * (4 + 4 + 4 + 4)
    assert counts.within_share == counts.across_share == 1.0


def test_nothing_to_count_is_nan() -> None:
    counts = count_pairs(np.ones((8, 4, 8), bool), np.zeros((0, 16, 32), bool))
    assert isnan(counts.within_share)
    assert isnan(box_share(np.ones((8, 4, 8), bool), (3.0, 3.0, 4.0, 4.0)))
    assert box_share(np.ones((8, 4, 8), bool), (0.0, 0.0, 32.0, 16.0)) == 1.0
