"""Tileable noise with three independent channels, made once a process and then only sliced."""

from functools import cache

import numpy as np
from jaxtyping import Float32, Int64

SIDE = 512
_BANK_SEED = 2403_01214


def _filtered(rng: np.random.Generator, response: Float32[np.ndarray, "s r"]) -> np.ndarray:
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE, SIDE)))
    field = np.fft.irfft2(spectrum * response, s=(SIDE, SIDE))
    scaled: np.ndarray = ((field - field.mean()) / field.std()).astype(np.float32)
    return scaled


@cache
def bank(finest: float, coarsest: float) -> Float32[np.ndarray, "3 512 512"]:
    """Noise of zero mean and unit deviation whose detail lies between two wavelengths.

    Amplitude falls as 1/frequency between them, as it does in photographs.

    Args:
        finest: Shortest wavelength kept, in pixels.
        coarsest: Longest wavelength kept, in pixels.
    """
    rng = np.random.default_rng([_BANK_SEED, round(finest * 100), round(coarsest * 100)])
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :])
    low, high = 1 / coarsest, 1 / finest
    response = np.exp(-((frequency / high) ** 2)) / np.hypot(frequency, low)
    response[0, 0] = 0
    response = response.astype(np.float32)
    field = np.stack([_filtered(rng, response) for _ in range(3)])
    field.setflags(write=False)
    return field


@cache
def grain() -> Float32[np.ndarray, "3 512 512"]:
    """White noise of unit deviation: what a sensor adds."""
    field = np.random.default_rng(_BANK_SEED).standard_normal((3, SIDE, SIDE), dtype=np.float32)
    field.setflags(write=False)
    return field


def window(
    noise: Float32[np.ndarray, "3 512 512"], rng: np.random.Generator, height: int, width: int
) -> Float32[np.ndarray, "3 {height} {width}"]:
    """A rectangle of the noise from a random place: a view, or repeated where it is too small."""
    top = int(rng.integers(max(SIDE - height, 0) + 1))
    left = int(rng.integers(max(SIDE - width, 0) + 1))
    if height <= SIDE and width <= SIDE:
        return noise[:, top : top + height, left : left + width]
    rows, columns = np.arange(height) % SIDE, np.arange(width) % SIDE
    return noise[:, rows[:, None], columns[None, :]]


def lookup(
    noise: Float32[np.ndarray, "3 512 512"],
    rows: Int64[np.ndarray, "h w"],
    columns: Int64[np.ndarray, "h w"],
) -> Float32[np.ndarray, "3 h w"]:
    """The endlessly repeated noise at integer places."""
    flat = (rows & (SIDE - 1)) * SIDE + (columns & (SIDE - 1))
    return noise.reshape(3, -1).take(flat, axis=1)


def mixed(
    field: Float32[np.ndarray, "3 h w"], mix: Float32[np.ndarray, "3 3"]
) -> Float32[np.ndarray, "3 h w"]:
    """Noise channels to colour deviations, by the rows of ``mix``."""
    colours: np.ndarray = (mix.T @ field.reshape(3, -1)).reshape(field.shape)
    return colours
