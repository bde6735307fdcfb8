"""Pictures of what a store holds: image | boxes | depth.

Which pairs of neighbours the losses will trust is drawn by what trains on them: `trainer check-data
STORE --preview DIR`.
"""

import colorsys
from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from boxdepth.depthgen.store import Boxes, ConfigError, Store
from boxdepth.depthgen.words import counted

_PANEL_HEIGHT: Final = 400
_MARGIN: Final = 12
_CAPTION: Final = 30
_CAPTION_WIDTH: Final = 250
_PAPER: Final = (250, 250, 248)
_INK: Final = (40, 44, 52)

# Anchors of a perceptually rising map from far (dark violet) to near (pale yellow), tuned by eye.
_NEARNESS: Final = np.array(
    [[13, 8, 36], [62, 15, 102], [136, 34, 106], [203, 65, 73], [244, 121, 24], [250, 190, 60],
     [252, 253, 200]],
    dtype=np.float64,
)  # fmt: skip


def choose_images(store: Store, *, image_ids: Sequence[int], count: int) -> list[int]:
    """Rows to draw: the given ids, else ``count`` of them spread evenly over the store.

    Raises:
        ConfigError: An id is not in the store.
    """
    if not image_ids:
        return sorted({int(i) for i in np.linspace(0, len(store) - 1, min(count, len(store)))})
    rows = {int(number): row for row, number in enumerate(store.image_ids)}
    if unknown := [number for number in image_ids if number not in rows]:
        raise ConfigError(f"{store.path}: no image with id {', '.join(map(str, unknown[:10]))}")
    return [rows[number] for number in image_ids]


def draw_preview(store: Store, index: int) -> Image.Image:
    """Draw one image of a store: as it is, with its boxes, and its depth."""
    image, boxes = store.image(index), store.boxes(index)
    names = [category.name for category in store.attributes.categories]
    height, width = image.shape[:2]
    crowds = f", {int(boxes.crowd.sum())} crowd" if boxes.crowd.any() else ""
    title = "inverse depth, near is bright" if store.depth_valid[index] else "no usable depth"
    size = max(1, round(width * _PANEL_HEIGHT / height)), _PANEL_HEIGHT
    plain, boxed, depth = (
        Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
        for pixels in (image, image, colour_depth(store.inverse_depth(index)))
    )
    draw_boxes(boxed, boxes, names, scale=_PANEL_HEIGHT / height)
    return _join(
        [
            (f"image {int(store.image_ids[index])}  {height} x {width}", plain),
            (f"{counted(len(boxes.label), 'box', 'es')}{crowds}", boxed),
            (title, depth),
        ]
    )


def colour_depth(inverse_depth: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colour inverse depth in 0..255: far is dark, near is bright."""
    position = inverse_depth.astype(np.float64) / 255 * (len(_NEARNESS) - 1)
    anchors = np.arange(len(_NEARNESS))
    channels = [np.interp(position, anchors, _NEARNESS[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def draw_boxes(panel: Image.Image, boxes: Boxes, names: Sequence[str], *, scale: float) -> None:
    """Draw boxes with their class names onto a panel; crowds are dashed."""
    draw = ImageDraw.Draw(panel, "RGBA")
    font = ImageFont.load_default(size=12)
    largest_first = np.argsort(-np.prod(boxes.xyxy[:, 2:] - boxes.xyxy[:, :2], axis=1))
    for k in largest_first:
        left, top, right, bottom = (float(value) * scale for value in boxes.xyxy[k])
        right, bottom = min(right, panel.width - 1.0), min(bottom, panel.height - 1.0)
        colour = class_colour(int(boxes.label[k]))
        if boxes.crowd[k]:
            _dashed(draw, (left, top, right, bottom), colour)
        else:
            draw.rectangle((left, top, right, bottom), outline=colour, width=2)
        text = names[int(boxes.label[k])] + (" (crowd)" if boxes.crowd[k] else "")
        extent = draw.textbbox((0, 0), text, font=font)
        wide, high = extent[2] + 9, extent[3] + 4
        if right - left < 24 or bottom - top < 16:
            continue  # a label would hide the object
        x = min(left, panel.width - wide)
        draw.rectangle((x, top, x + wide, top + high), fill=(*colour, 215))
        draw.text((x + 3, top + 1), text, font=font, fill=(255, 255, 255))


def class_colour(label: int) -> tuple[int, int, int]:
    """A colour for a class: hues by the golden ratio, so that neighbours differ."""
    red, green, blue = colorsys.hsv_to_rgb((label * 0.61803398875 + 0.03) % 1, 0.78, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def _dashed(
    draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], colour: tuple[int, int, int]
) -> None:
    left, top, right, bottom = box
    for x in np.arange(left, right, 10):
        for y in (top, bottom):
            draw.line((x, y, min(x + 5, right), y), fill=colour, width=2)
    for y in np.arange(top, bottom, 10):
        for x in (left, right):
            draw.line((x, y, x, min(y + 5, bottom)), fill=colour, width=2)


def _join(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    wide, high = panels[0][1].size
    step = max(wide, _CAPTION_WIDTH) + _MARGIN
    size = (_MARGIN + step * len(panels), _MARGIN + _CAPTION + high + _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for number, (caption, panel) in enumerate(panels):
        x = _MARGIN + number * step
        draw.text((x, _MARGIN), caption, font=font, fill=_INK)
        sheet.paste(panel, (x, _MARGIN + _CAPTION))
    return sheet
