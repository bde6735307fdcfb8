"""Tileable noise with three independent channels, made once a process and then only sliced."""

from functools import cache

import numpy as np
from jaxtyping import Float32, Int64

SIDE = 512
_BANK_SEED = 2403_01214


def _filtered(rng: np.random.Generator, response: Float32[np.ndarray, "s r"]) -> np.ndarray:
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE, SIDE)))
    field = np.fft.irfft2(spectrum * response, s=(SIDE, SIDE))
    return ((field - field.mean()) / field.std()).astype(np.float32)


@cache
def bank(finest: float, coarsest: float) -> Float32[np.ndarray, "512 512 3"]:
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
    field = np.stack([_filtered(rng, response) for _ in range(3)], axis=-1)
    field.setflags(write=False)
    return field


@cache
def grain() -> Float32[np.ndarray, "512 512 3"]:
    """White noise of unit deviation: what a sensor adds."""
    field = np.random.default_rng(_BANK_SEED).standard_normal((SIDE, SIDE, 3), dtype=np.float32)
    field.setflags(write=False)
    return field


def window(
    noise: Float32[np.ndarray, "512 512 3"], *, top: int, left: int, height: int, width: int
) -> Float32[np.ndarray, "{height} {width} 3"]:
    """A rectangle of the endlessly repeated noise; a view where it needs no wrapping."""
    top, left = top % SIDE, left % SIDE
    if top + height <= SIDE and left + width <= SIDE:
        return noise[top : top + height, left : left + width]
    rows = np.arange(top, top + height) % SIDE
    columns = np.arange(left, left + width) % SIDE
    return noise[rows[:, None], columns[None, :]]


def lookup(
    noise: Float32[np.ndarray, "512 512 3"],
    rows: Int64[np.ndarray, "h w"],
    columns: Int64[np.ndarray, "h w"],
) -> Float32[np.ndarray, "h w 3"]:
    """The endlessly repeated noise at integer places."""
    flat = (rows & (SIDE - 1)) * SIDE + (columns & (SIDE - 1))
    return noise.reshape(-1, 3).take(flat, axis=0)
