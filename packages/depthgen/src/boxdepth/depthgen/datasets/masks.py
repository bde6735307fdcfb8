"""COCO segmentations to run-length masks, behind checks: the mask library trusts what it is
given."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as mask_api

from boxdepth.depthgen.datasets.fields import shown

_MAX_OVERSHOOT: Final = 4.0
"""Polygons may reach this many image sizes out of the image; further out the library misbehaves."""


def run_length_mask(segmentation: object, *, height: int, width: int) -> dict[str, Any] | None:
    """Turn polygons or run lengths into one compressed run-length mask.

    Returns:
        ``{"size": [height, width], "counts": str}``; ``None`` where there is no mask, which COCO
        files spell in many ways: no key, ``null``, ``[]``, ``[[]]``, ``{}``, an empty text, and run
        lengths of nothing.

    Raises:
        ValueError: The segmentation is malformed; nothing malformed reaches the library.
    """
    if segmentation is None or segmentation in ([], {}, [[]], ""):
        return None
    if isinstance(segmentation, Mapping):
        mask = _from_runs(segmentation, height=height, width=width)
        return mask if mask_api.area(mask) else None
    if isinstance(segmentation, Sequence) and not isinstance(segmentation, str):
        polygons = [_polygon(points, height=height, width=width) for points in segmentation]
        parts = mask_api.frPyObjects(polygons, height, width)
        return _plain(mask_api.merge(parts))
    raise ValueError(f"segmentation of type {type(segmentation).__name__}")


def encode_mask(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """Encode a binary mask."""
    return _plain(mask_api.encode(np.asfortranarray(mask.astype(np.uint8))))


def mask_area(mask: Mapping[str, Any]) -> float:
    """Pixels of a mask that ``run_length_mask`` made."""
    return float(mask_api.area(mask))


def mask_box(mask: Mapping[str, Any]) -> list[float]:
    """[x, y, width, height] around the pixels of a mask that ``run_length_mask`` made."""
    return [float(value) for value in mask_api.toBbox(mask)]


def _plain(encoded: Mapping[str, Any]) -> dict[str, Any]:
    height, width = encoded["size"]
    return {"size": [int(height), int(width)], "counts": encoded["counts"].decode("ascii")}


def _polygon(points: object, *, height: int, width: int) -> list[float]:
    if not isinstance(points, Sequence) or len(points) < 6 or len(points) % 2:
        raise ValueError("segmentation: a polygon needs three or more x, y pairs")
    limit = _MAX_OVERSHOOT * max(height, width)
    for value in points:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) <= limit:  # so written, NaN is refused too
            raise ValueError(
                f"segmentation: polygon coordinate {shown(value)} is far outside of the image"
            )
    return [float(value) for value in points]


def _from_runs(mask: Mapping[str, Any], *, height: int, width: int) -> dict[str, Any]:
    counts, size = mask.get("counts"), mask.get("size")
    if size != [height, width]:
        raise ValueError(f"segmentation: size {shown(size)}, the image is [{height}, {width}]")
    runs = decode_counts(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise ValueError("segmentation: counts must be run lengths >= 0")
    if sum(runs) != height * width:
        raise ValueError(
            f"segmentation: runs add up to {shown(sum(runs))}, the image has {height * width} "
            "pixels"
        )
    return _plain(mask_api.frPyObjects({"size": [height, width], "counts": runs}, height, width))


def decode_counts(text: str) -> list[int]:
    """Run lengths from COCO's compressed text: 5 bits a character, deltas to the run before last.

    Raises:
        ValueError: The text is cut short, or holds other characters.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("segmentation: counts hold characters that do not belong there")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise ValueError("segmentation: counts are cut short")
    return runs
