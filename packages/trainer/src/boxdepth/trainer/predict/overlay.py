"""Pictures of predictions: masks with outlines, boxes, class names and scores."""

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask
from scipy.ndimage import binary_dilation, binary_erosion

from boxdepth.trainer.predict.results import Instances, Rle

MIN_SIDE = 480
"""Smaller images are enlarged, so that text and outlines stay thin against what they mark."""
FILL = 0.42
"""Opacity of a mask."""
SAME_THING = 0.5
"""Two masks of a larger IoU show one thing."""
MARGIN = 4
"""Pixels around a mask that enlarging it and its outline reach into."""
GOLDEN_ANGLE = 0.381966
"""Successive hues this far apart stay distinct however many there are."""


def draw_overlay(
    rgb: UInt8[np.ndarray, "h w 3"],
    instances: Instances,
    category_names: Sequence[str],
    *,
    min_score: float = 0.3,
) -> UInt8[np.ndarray, "ho wo 3"]:
    """The image with its instances of at least ``min_score``, the small ones on top.

    Of several names for one thing only the best is drawn. Small images are enlarged by a whole
    factor, until the shorter side has 480 pixels.
    """
    factor = max(1, -(-MIN_SIDE // min(rgb.shape[:2])))
    width, height = rgb.shape[1] * factor, rgb.shape[0] * factor
    canvas = Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS)
    shown = distinct_instances(instances, min_score=min_score)
    parts = {i: _part(instances.masks[i], factor) for i in shown}
    shown.sort(key=lambda i: -int(parts[i][0].sum()))
    pixels = np.asarray(canvas).astype(np.float32)
    thickness = max(1, round(min(width, height) / 300))
    for i in shown:
        mask, place = parts[i]
        _paint(pixels[place], mask, _color(i), thickness=thickness)
    canvas = Image.fromarray(pixels.round().astype(np.uint8))
    draw = ImageDraw.Draw(canvas, "RGBA")
    for i in shown:
        box = tuple(float(side) * factor for side in instances.boxes_xyxy[i])
        text = f"{category_names[int(instances.labels[i])]} {instances.scores[i]:.2f}"
        _frame(draw, (box[0], box[1], box[2], box[3]), text, _color(i), canvas.size)
    return np.asarray(canvas)


def distinct_instances(instances: Instances, *, min_score: float) -> list[int]:
    """Instances of at least ``min_score``, best first, without what a better one covers already."""
    chosen: list[int] = []
    low, extent = np.split(coco_mask.toBbox(list(instances.masks)).reshape(-1, 4), 2, axis=1)
    high = low + extent
    for i in np.argsort(-instances.scores, kind="stable").tolist():
        if instances.scores[i] < min_score:
            break
        meets = (np.minimum(high[chosen], high[i]) > np.maximum(low[chosen], low[i])).all(axis=1)
        others = [instances.masks[chosen[k]] for k in np.flatnonzero(meets)]
        overlaps = coco_mask.iou([instances.masks[i]], others, [0] * len(others)) if others else ()
        if np.max(overlaps, initial=0.0) <= SAME_THING:
            chosen.append(i)
    return chosen


def _part(mask: Rle, factor: int) -> tuple[Bool[np.ndarray, "hp wp"], tuple[slice, slice]]:
    """The part of a mask that is not empty, with a margin, and where it lies; both enlarged."""
    x, y, width, height = (int(value) for value in coco_mask.toBbox(mask).tolist())
    rows, columns = (
        (max(start - MARGIN, 0), min(start + length + MARGIN, side))
        for start, length, side in zip((y, x), (height, width), mask["size"], strict=True)
    )
    part = coco_mask.decode(mask)[slice(*rows), slice(*columns)].astype(bool)
    place = tuple(slice(factor * start, factor * end) for start, end in (rows, columns))
    return _enlarged(part, factor), (place[0], place[1])


def _enlarged(mask: Bool[np.ndarray, "h w"], factor: int) -> Bool[np.ndarray, "ho wo"]:
    """Smooth outlines instead of steps: enlarged as a grey image, then cut at half."""
    if factor == 1:
        return mask
    size = (mask.shape[1] * factor, mask.shape[0] * factor)
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(grey) > 127


def _paint(
    pixels: np.ndarray,
    mask: Bool[np.ndarray, "h w"],
    color: tuple[int, int, int],
    *,
    thickness: int,
) -> None:
    tint = np.array(color, np.float32)
    inner = binary_erosion(mask, iterations=thickness)
    outer = binary_dilation(mask, iterations=1) & ~mask
    pixels[inner] += FILL * (tint - pixels[inner])
    pixels[mask & ~inner] = tint
    pixels[outer] *= 0.45


def _frame(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    text: str,
    color: tuple[int, int, int],
    size: tuple[int, int],
) -> None:
    left, top, right, bottom = box
    draw.rectangle((left, top, right, bottom), outline=(*color, 150), width=1)
    font = ImageFont.load_default(size=max(11, round(min(size) / 36)))
    pad = 3
    _, _, text_width, text_height = draw.textbbox((0, 0), text, font=font)
    x = min(max(left, 0), max(size[0] - text_width - 2 * pad, 0))
    y = top - text_height - 2 * pad
    y = y if y >= 0 else min(max(top, 0), size[1] - text_height - 2 * pad)
    label = (x, y, x + text_width + 2 * pad, y + text_height + 2 * pad)
    draw.rounded_rectangle(label, radius=3, fill=(*(c // 3 for c in color), 215))
    draw.text((x + pad, y + pad), text, font=font, fill=(255, 255, 255, 255))


def _color(index: int) -> tuple[int, int, int]:
    hue = (0.58 + index * GOLDEN_ANGLE) % 1
    lightness = (0.56, 0.48, 0.63)[index % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)
