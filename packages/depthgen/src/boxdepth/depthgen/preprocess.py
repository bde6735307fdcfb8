"""From a photograph to a model's input: sizes and numbers, all written down and recorded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from boxdepth.depthgen.store.errors import DataError

Aspect = Literal["keep", "square"]
_BICUBIC = 3
"""Pillow's number for bicubic resampling, the only spelling in processor files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Every setting of a depth model's input; nothing is left to a library's defaults.

    Attributes:
        height: Rows of the square (or nominal) input.
        width: Columns of it.
        multiple: Sides are multiples of this.
        aspect: ``square`` stretches to height x width; ``keep`` scales both sides alike, as little
            as possible.
        resample: Pillow's number of the filter.
        rescale: Factor from 8-bit values to the numbers that mean and std refer to.
        mean: Per channel, RGB.
        std: Per channel, RGB.
    """

    height: int
    width: int
    multiple: int
    aspect: Aspect
    resample: int
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """For provenance."""
        return asdict(self)


def read_preprocessing(
    processor: Mapping[str, Any], *, label: str, aspect: Aspect, multiple: int
) -> Preprocessing:
    """Read a model's ``preprocessor_config.json``.

    Args:
        multiple: What the sides must be a multiple of, if the file doesn't say.

    Raises:
        DataError: A setting is missing or of a wrong type.
    """
    try:
        size = processor["size"]
        if isinstance(size, Mapping):
            height, width = (
                (size["height"], size["width"])
                if "height" in size
                else ((size["shortest_edge"],) * 2)
            )
        else:
            height = width = size
        mean, std = (tuple(float(v) for v in processor[key]) for key in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or min(height, width) < 1:
            raise ValueError("three means, three positive stds and a positive size are expected")
        return Preprocessing(
            height=int(height),
            width=int(width),
            multiple=max(int(processor.get("ensure_multiple_of") or 1), multiple),
            aspect=aspect,
            resample=int(processor.get("resample", _BICUBIC)),
            rescale=float(processor.get("rescale_factor", 1 / 255)),
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"model {label}: preprocessor_config.json lacks a usable setting ({error!r})"
        ) from error


def input_size(height: int, width: int, settings: Preprocessing) -> tuple[int, int]:
    """(rows, columns) of the model's input for an image of height x width.

    With ``keep`` the side that needs the smaller change is fitted and the other follows, both
    rounded to the multiple: the rule of DPT's own preparation ("minimal").
    """
    if settings.aspect == "square":
        return settings.height, settings.width
    scale_rows, scale_columns = settings.height / height, settings.width / width
    scale = min((scale_rows, scale_columns), key=lambda value: abs(1 - value))

    def rounded(side: int) -> int:
        return max(1, round(scale * side / settings.multiple)) * settings.multiple

    return rounded(height), rounded(width)


def resize_image(
    image: UInt8[np.ndarray, "h w 3"], settings: Preprocessing
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Bring an image to the model's input size."""
    rows, columns = input_size(image.shape[0], image.shape[1], settings)
    if image.shape[:2] == (rows, columns):
        return image
    resized = Image.fromarray(image).resize((columns, rows), Image.Resampling(settings.resample))
    return np.array(resized, dtype=np.uint8)
