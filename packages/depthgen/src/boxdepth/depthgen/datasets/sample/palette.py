"""Colours: of grounds and backdrops, of shapes, and the noise that keeps them from being flat."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

Colour = Float32[np.ndarray, "3 1 1"]
Mix = Float32[np.ndarray, "3 3"]

CAMOUFLAGED_SHARE = 0.4

# Grounds and walls as (first, second) colours in sRGB bytes.
_GROUNDS = (
    ((96, 120, 62), (132, 140, 78)),  # meadow
    ((204, 178, 132), (184, 150, 104)),  # sand
    ((122, 122, 126), (104, 106, 112)),  # asphalt
    ((150, 110, 78), (122, 84, 58)),  # boards
    ((178, 172, 160), (150, 146, 138)),  # paving
    ((128, 92, 74), (104, 78, 62)),  # soil
    ((198, 206, 214), (174, 186, 200)),  # snow
    ((108, 132, 128), (92, 112, 116)),  # carpet
)
_WALLS = (
    ((176, 104, 82), (150, 86, 70)),  # brick
    ((214, 204, 186), (196, 184, 164)),  # plaster
    ((112, 136, 148), (96, 118, 132)),  # blue plaster
    ((138, 146, 112), (120, 130, 100)),  # green plaster
    ((160, 130, 100), (134, 104, 78)),  # wood
    ((96, 92, 100), (82, 80, 90)),  # slate
)
_HILLS = (
    ((84, 112, 84), (98, 124, 80)),
    ((104, 110, 104), (122, 120, 106)),
    ((130, 112, 92), (146, 124, 100)),
    ((88, 104, 124), (104, 116, 130)),
)
_SKIES = (
    ((92, 148, 212), (206, 224, 236)),
    ((124, 156, 190), (232, 226, 214)),
    ((150, 164, 180), (216, 218, 220)),
    ((104, 120, 172), (244, 200, 166)),
    ((72, 112, 176), (250, 216, 180)),
)
_SHAPES = (
    (206, 58, 48), (232, 128, 44), (240, 190, 62), (120, 170, 62), (44, 132, 96), (40, 140, 160),
    (50, 96, 176), (94, 72, 156), (178, 66, 132), (222, 122, 138), (128, 78, 52), (228, 220, 204),
    (60, 62, 72), (160, 166, 172), (176, 148, 92), (86, 100, 70),
)  # fmt: skip
# Two directions in RGB that change the colour and hardly the brightness.
_WARM = np.array([0.9, -0.1, -0.8], np.float32)
_GREEN = np.array([-0.7, 0.45, -0.6], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paint:
    """What a surface is painted with.

    Attributes:
        first: Main colour, sRGB in [0, 1].
        second: Colour of the pattern and of accents.
        mix: Turns three channels of unit noise into an RGB deviation.
    """

    first: Colour
    second: Colour
    mix: Mix


def _shift(rng: np.random.Generator, most: float) -> Colour:
    return rng.uniform(-most, most, (3, 1, 1)).astype(np.float32)


def _pair(rng: np.random.Generator, pairs: tuple) -> tuple[Colour, Colour]:
    chosen = np.array(pairs[int(rng.integers(len(pairs)))], np.float32) / np.float32(255)
    first, second = chosen[..., None, None]
    shift = _shift(rng, 0.05)
    gain = np.float32(rng.uniform(0.8, 1.12))
    contrast = np.float32(rng.uniform(0.15, 1.0))
    return first * gain + shift, (first + (second - first) * contrast) * gain + shift


def noise_mix(rng: np.random.Generator, *, median: float, spread: float) -> Mix:
    """Amplitudes of a surface's texture.

    Args:
        rng: Source of every choice.
        median: Median deviation of the brightness, in [0, 1].
        spread: Deviation of its logarithm from surface to surface.

    Returns:
        Rows: brightness, warm-cool, green-magenta.
    """
    bright = np.float32(min(median * np.exp(spread * rng.standard_normal()), 0.1))
    tint = np.float32(rng.uniform(0.1, 0.45))
    grey = np.full(3, bright, np.float32)
    return np.stack([grey, _WARM * (bright * tint), _GREEN * (bright * tint * np.float32(0.7))])


def ground_paint(rng: np.random.Generator) -> Paint:
    """A ground: meadow, sand, asphalt, boards, paving, soil, snow or carpet."""
    first, second = _pair(rng, _GROUNDS)
    return Paint(first=first, second=second, mix=noise_mix(rng, median=0.012, spread=1.7))


def wall_paint(rng: np.random.Generator) -> Paint:
    """A wall."""
    first, second = _pair(rng, _WALLS)
    return Paint(first=first, second=second, mix=noise_mix(rng, median=0.010, spread=1.5))


def hill_paint(rng: np.random.Generator) -> Paint:
    """Hills or woods."""
    first, second = _pair(rng, _HILLS)
    return Paint(first=first, second=second, mix=noise_mix(rng, median=0.02, spread=0.7))


def sky_colours(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Colours of the zenith and of the horizon (which is also the haze's)."""
    return _pair(rng, _SKIES)


def shape_paint(rng: np.random.Generator) -> Paint:
    """Colours of an ordinary shape: a saturated one, and another of any kind for its pattern."""
    chosen = rng.choice(len(_SHAPES), 2, replace=False)
    first, second = np.array(_SHAPES, np.float32)[chosen, :, None, None] / np.float32(255)
    shift = _shift(rng, 0.06)
    second = first + (second - first) * np.float32(rng.uniform(0.35, 1.0))
    return Paint(first=first + shift, second=second, mix=noise_mix(rng, median=0.006, spread=2.2))


def camouflaged_paint(rng: np.random.Generator, behind: Paint) -> Paint:
    """Colours and texture of a shape that wears what is behind it."""
    shift = _shift(rng, 0.02)
    gain = np.float32(rng.uniform(0.95, 1.08))
    return Paint(
        first=behind.first * gain + shift, second=behind.second * gain + shift, mix=behind.mix
    )
