"""The student's strong views: how often, how much, and always the same for the same sample."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from boxdepth.trainer.data.color import gaussian_kernel, recolored


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def test_the_same_sample_looks_the_same_again(image: np.ndarray) -> None:
    first, again = (recolored(image, "strong", seed=1, epoch=2, index=3) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == image.shape
    assert first.dtype == np.uint8


def test_epochs_samples_and_seeds_differ(image: np.ndarray) -> None:
    keys = [(0, 0, 5), (0, 1, 5), (0, 0, 6), (7, 0, 5)]
    views = [recolored(image, "strong", seed=s, epoch=e, index=i) for s, e, i in keys]
    assert len({view.tobytes() for view in views}) == len(views)


def test_shares_are_the_published_ones(image: np.ndarray) -> None:
    views = [recolored(image, "strong", seed=0, epoch=0, index=i) for i in range(1000)]
    grey = np.mean([(view == view[..., :1]).all() for view in views])
    unchanged = np.mean([np.array_equal(view, image) for view in views])
    assert abs(grey - 0.2) < 0.04
    assert abs(unchanged - (1 - 0.8) * (1 - 0.2)) < 0.04


def test_brightness_stays_within_its_bounds() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)  # contrast, saturation and hue leave it alone
    levels = [int(recolored(grey, "strong", seed=0, epoch=0, index=i)[0, 0, 0]) for i in range(300)]
    assert 60 <= min(levels) < 65
    assert 135 < max(levels) <= 140


@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_blur_is_torchvisions_but_for_the_outermost_pixels(image: np.ndarray, sigma: float) -> None:
    ours = np.asarray(Image.fromarray(image).filter(gaussian_kernel(sigma)))
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    theirs = (
        F.gaussian_blur(tensor, kernel_size=[3, 3], sigma=[sigma, sigma]).permute(1, 2, 0).numpy()
    )
    difference = np.abs(ours.astype(int) - theirs)[1:-1, 1:-1]
    assert difference.max() <= 1


def test_half_of_the_views_are_blurred(image: np.ndarray) -> None:
    pairs = [
        [recolored(image, c, seed=0, epoch=0, index=i) for c in ("strong", "strong_blur")]
        for i in range(400)
    ]
    blurred = np.mean([not np.array_equal(plain, blurry) for plain, blurry in pairs])
    assert abs(blurred - 0.5) < 0.1


def test_none_changes_nothing(image: np.ndarray) -> None:
    assert recolored(image, "none", seed=0, epoch=0, index=0) is image
