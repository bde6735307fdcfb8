"""Random colours for the student's eyes (the strong views of BoxTeacher, arXiv 2210.05174)."""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter
from torchvision.transforms.v2 import functional as F

from boxdepth.trainer.data.rules import ColorChange

COLOR_STREAM = 3
"""Keeps these random numbers apart from those of the geometry."""

JITTER_PROBABILITY = 0.8
BRIGHTNESS = CONTRAST = SATURATION = 0.4
"""Factors are uniform in 1 -+ this."""
HUE = 0.1
"""Shifts are uniform in -+ this, in turns of the colour circle."""
GRAYSCALE_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
BLUR_SIGMAS = (0.1, 2.0)
"""Pixels; the kernel is 3x3 whatever is drawn."""


def recolored(
    image: UInt8[np.ndarray, "h w 3"], change: ColorChange, *, seed: int, epoch: int, index: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Jitter of brightness, contrast, saturation and hue in random order, greyscale, blur.

    Each with its probability: the views of BoxTeacher's 1x (``strong``) and 3x (``strong_blur``)
    schedules (condinst.md, section 9).  What is drawn depends on nothing but seed, epoch and index.
    Works on Pillow images, so that loader threads never start torch's own thread pools.
    """
    if change == "none":
        return image
    random = np.random.default_rng([seed, COLOR_STREAM, epoch, index])
    picture = Image.fromarray(image)
    if random.random() < JITTER_PROBABILITY:
        picture = _jittered(picture, random)
    if random.random() < GRAYSCALE_PROBABILITY:
        picture = F.rgb_to_grayscale(picture, num_output_channels=3)
    if change == "strong_blur" and random.random() < BLUR_PROBABILITY:
        picture = picture.filter(gaussian_kernel(random.uniform(*BLUR_SIGMAS)))
    return np.asarray(picture)


def gaussian_kernel(sigma: float) -> ImageFilter.Kernel:
    """The 3x3 Gaussian; Pillow leaves the outermost pixels as they are."""
    side = float(np.exp(-0.5 / sigma**2))
    line = np.array([side, 1.0, side]) / (1 + 2 * side)
    return ImageFilter.Kernel((3, 3), np.outer(line, line).ravel().tolist(), scale=1)


def _jittered(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    changes: list[tuple[Callable[[Image.Image, float], Image.Image], float]] = [
        (F.adjust_brightness, random.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS)),
        (F.adjust_contrast, random.uniform(1 - CONTRAST, 1 + CONTRAST)),
        (F.adjust_saturation, random.uniform(1 - SATURATION, 1 + SATURATION)),
        (F.adjust_hue, random.uniform(-HUE, HUE)),
    ]
    for change in random.permutation(len(changes)):
        adjust, amount = changes[change]
        picture = adjust(picture, amount)
    return picture
