"""From a photograph to a model's input: sizes and pixels."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Fit = Literal["keep", "square", "native"]
Padding = Literal["none", "zeros", "reflect"]
Inside = tuple[float, float, float, float]
"""Top, left, bottom and right of a part, as shares of the whole."""

ANTIALIASED: Final = frozenset({"DPT", "GLPN"})
"""Processors that resize as Pillow does."""

INTERPOLATIONS: Final = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Of the processors that resize in torch, by Pillow's numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Every setting of a depth model's input.

    Attributes:
        height: Rows of the nominal input.
        width: Columns of it.
        multiple: Sides are multiples of this.
        aspect: ``square`` stretches to height x width; ``keep`` scales both sides alike, as little
            as possible; ``native`` leaves the size, but for the multiple.
        resample: Pillow's number of the filter.
        rescale: Factor from 8-bit values to the numbers that mean and std refer to.
        mean: Per channel, RGB.
        std: Per channel, RGB.
        processor: Whose order of steps.
        padding: ``zeros`` around the normalised input up to the next ``divisor``; ``reflect``
            mirrors a margin around the image before it is resized.
        divisor: Of the sides after padding.
    """

    height: int
    width: int
    multiple: float
    aspect: Fit
    resample: int
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    processor: str = "DPT"
    padding: Padding = "none"
    divisor: int = 1

    def to_json(self) -> dict[str, Any]:
        """For provenance."""
        return asdict(self)


def input_size(height: int, width: int, settings: Preprocessing) -> tuple[int, int]:
    """(rows, columns) of the resized image, before any padding with zeros.

    ``keep`` is the rule of DPT's own preparation: scaled as little as possible, then each side to
    the nearest multiple.
    """
    if settings.aspect == "native":
        step = int(settings.multiple)
        return max(step, height // step * step), max(step, width // step * step)
    if settings.padding == "reflect":
        height, width = height + 2 * _margin(height), width + 2 * _margin(width)
    scale_rows, scale_columns = settings.height / height, settings.width / width
    if settings.aspect == "keep":
        fits_width = abs(1 - scale_columns) < abs(1 - scale_rows)
        scale_rows = scale_columns = scale_columns if fits_width else scale_rows

    def rounded(side: float) -> int:
        multiple = settings.multiple
        return max(int(round(side / multiple) * multiple), int(multiple), 1)

    return rounded(scale_rows * height), rounded(scale_columns * width)


def inside_box(height: int, width: int, settings: Preprocessing) -> Inside:
    """Where in the model's input the image lies, without what is put around it."""
    if settings.padding == "none":
        return 0.0, 0.0, 1.0, 1.0
    if settings.padding == "reflect":
        top, left = (_margin(side) / (side + 2 * _margin(side)) for side in (height, width))
        return top, left, 1 - top, 1 - left
    rows, columns = input_size(height, width, settings)
    (top, bottom), (left, right) = zeros_around(rows, columns, settings)
    all_rows, all_columns = rows + top + bottom, columns + left + right
    return top / all_rows, left / all_columns, 1 - bottom / all_rows, 1 - right / all_columns


def zeros_around(
    rows: int, columns: int, settings: Preprocessing
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows above and below, columns left and right that fill the input up to the divisor."""
    if settings.padding != "zeros":
        return (0, 0), (0, 0)
    above, left = -rows % settings.divisor, -columns % settings.divisor
    return (above // 2, above - above // 2), (left // 2, left - left // 2)


def resize_image(
    image: UInt8[np.ndarray, "h w 3"], settings: Preprocessing
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Bring an image to the model's input size."""
    rows, columns = input_size(image.shape[0], image.shape[1], settings)
    if settings.padding == "reflect":
        image = _mirrored(image)
    if image.shape[:2] == (rows, columns):
        return image
    if settings.processor in ANTIALIASED:
        filter_ = Image.Resampling(settings.resample)
        return np.array(Image.fromarray(image).resize((columns, rows), filter_), dtype=np.uint8)
    return _interpolated(image, rows, columns, settings)


def pillow_resize(
    height: int, width: int, settings: Preprocessing
) -> Callable[[Image.Image], Image.Image] | None:
    """What `resize_image` does to an image of that size, before it is an array.

    ``None`` where it is not Pillow alone that resizes.
    """
    if settings.processor not in ANTIALIASED or settings.padding == "reflect":
        return None
    rows, columns = input_size(height, width, settings)
    filter_ = Image.Resampling(settings.resample)
    return lambda picture: picture.resize((columns, rows), filter_)


def _interpolated(
    image: UInt8[np.ndarray, "h w 3"], rows: int, columns: int, settings: Preprocessing
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Without antialiasing, as ZoeDepth's (corners on corners) and DepthPro's processors do it.

    They resize numbers of a float; resizing is linear, so that rescaling may come afterwards.
    """
    import torch  # here: planning needs the sizes above, and no torch

    mode = INTERPOLATIONS[settings.resample]
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float()
    corners = settings.processor == "ZoeDepth" if mode != "nearest" else None
    resized = torch.nn.functional.interpolate(
        planes, (rows, columns), mode=mode, align_corners=corners
    )
    pixels = resized[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    return np.ascontiguousarray(pixels.numpy())


def _mirrored(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "rows columns 3"]:
    rows, columns = (_margin(side) for side in image.shape[:2])
    # One pixel has nothing to mirror.
    mode: Any = "reflect" if min(image.shape[:2]) > 1 else "edge"
    return np.pad(image, ((rows, rows), (columns, columns), (0, 0)), mode=mode)


def _margin(side: int) -> int:
    """ZoeDepth's own margin: it hides what goes wrong at the border of its depth."""
    return int(np.sqrt(side / 2) * 3)
