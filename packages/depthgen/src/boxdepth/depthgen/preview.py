"""Pictures of what a store holds: image | boxes | depth | trusted pairs."""

import colorsys
from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from boxdepth.depthgen.datasets.sample.pairs import CELL, box_share, colour_pairs, depth_pairs
from boxdepth.depthgen.store import Boxes, ConfigError, Store

_PANEL_HEIGHT: Final = 400
_MARGIN: Final = 12
_CAPTION: Final = 30
_CAPTION_WIDTH: Final = 250
_Caption = list[tuple[str, tuple[int, int, int] | None]]
"""Texts, each with the colour of the square before it, if any."""

_PAPER: Final = (250, 250, 248)
_INK: Final = (40, 44, 52)
_COLOUR_TINT: Final = (240, 150, 40)
_DEPTH_TINT: Final = (40, 150, 235)
_BOTH_TINT: Final = (245, 245, 245)

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
    """Draw one image of a store: as it is, with its boxes, its depth, and its trusted pairs.

    The last panel shows what the losses can learn from inside the boxes: cells of 4x4 pixels whose
    neighbours agree with them in colour (orange), in depth (blue), or in both (white).
    """
    image, boxes = store.image(index), store.boxes(index)
    names = [category.name for category in store.attributes.categories]
    depth = store.inverse_depth(index)
    height, width = image.shape[:2]
    trusted, legend = _trusted_panel(image, depth, boxes)
    identity = f"{int(store.image_ids[index])}  {height} x {width}"
    crowds = f", {int(boxes.crowd.sum())} crowd" if boxes.crowd.any() else ""
    title = "inverse depth, near is bright" if store.depth_valid[index] else "no usable depth"
    panels: list[tuple[_Caption, Image.Image | None]] = [
        ([(f"image {identity}", None)], Image.fromarray(image)),
        ([(f"{_count(len(boxes.label))}{crowds}", None)], None),
        ([(title, None)], Image.fromarray(colour_depth(depth))),
        (legend, Image.fromarray(trusted)),
    ]
    size = max(1, round(width * _PANEL_HEIGHT / height)), _PANEL_HEIGHT
    drawn: list[tuple[_Caption, Image.Image]] = []
    for caption, picture in panels:
        smooth = Image.Resampling.NEAREST if picture is panels[3][1] else Image.Resampling.LANCZOS
        panel = (picture or Image.fromarray(image)).resize(size, smooth)
        if picture is None:
            draw_boxes(panel, boxes, names, scale=_PANEL_HEIGHT / height)
        drawn.append((caption, panel))
    return _join(drawn)


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


def _trusted_panel(
    image: UInt8[np.ndarray, "h w 3"], depth: Float32[np.ndarray, "rows columns"], boxes: Boxes
) -> tuple[UInt8[np.ndarray, "h2 w2 3"], _Caption]:
    height, width = image.shape[:2]
    at_image = Image.fromarray(depth).resize((width, height), Image.Resampling.BILINEAR)
    colour, near = colour_pairs(image), depth_pairs(np.array(at_image, dtype=np.float32))
    inside = _inside(boxes, colour.shape[1], colour.shape[2])
    grey = Image.fromarray(image).convert("L").resize((colour.shape[2], colour.shape[1]))
    ground = np.repeat(np.array(grey, dtype=np.float64)[..., None], 3, axis=-1) * 0.35
    by_colour, by_depth = colour.mean(axis=0), near.mean(axis=0)
    both = np.minimum(by_colour, by_depth)
    panel = ground
    for share, tint in (
        (by_colour - both, _COLOUR_TINT),
        (by_depth - both, _DEPTH_TINT),
        (both, _BOTH_TINT),
    ):
        panel = _tint(panel, share * inside, tint)
    legend: _Caption = [("no boxes, no pairs", None)]
    if len(boxes.label):
        legend = [
            (f"colour {_mean_share(colour, boxes):.2f}", _COLOUR_TINT),
            (f"depth {_mean_share(near, boxes):.2f}", _DEPTH_TINT),
            ("both", _BOTH_TINT),
        ]
    return panel.round().astype(np.uint8), legend


def _tint(
    panel: Float[np.ndarray, "h w 3"],
    share: Float[np.ndarray, "h w"],
    tint: tuple[int, int, int],
) -> Float[np.ndarray, "h w 3"]:
    weight = share[..., None]
    tinted: Float[np.ndarray, "h w 3"] = panel * (1 - weight) + np.array(tint) * weight
    return tinted


def _count(boxes: int) -> str:
    return "1 box" if boxes == 1 else f"{boxes} boxes"


def _mean_share(pairs: Bool[np.ndarray, "8 h w"], boxes: Boxes) -> float:
    shares = [box_share(pairs, (x1, y1, x2, y2)) for x1, y1, x2, y2 in boxes.xyxy.tolist()]
    return float(np.mean([share for share in shares if share == share] or [0.0]))


def _inside(boxes: Boxes, rows: int, columns: int) -> Bool[np.ndarray, "rows columns"]:
    inside = np.zeros((rows, columns), dtype=bool)
    for left, top, right, bottom in boxes.xyxy / CELL:
        inside[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
    return inside


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


def _join(panels: Sequence[tuple[_Caption, Image.Image]]) -> Image.Image:
    wide, high = panels[0][1].size
    step = max(wide, _CAPTION_WIDTH) + _MARGIN
    sheet = Image.new(
        "RGB", (_MARGIN + step * len(panels), _MARGIN + _CAPTION + high + _MARGIN), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for number, (caption, panel) in enumerate(panels):
        x = _MARGIN + number * step
        _write_caption(draw, caption, x)
        sheet.paste(panel, (x, _MARGIN + _CAPTION))
    return sheet


def _write_caption(draw: ImageDraw.ImageDraw, caption: _Caption, x: float) -> None:
    """Write the parts of a caption in a row, those with a tint after a square of it."""
    font = ImageFont.load_default(size=15)
    for text, tint in caption:
        if tint is not None:
            draw.rectangle((x, _MARGIN + 3, x + 12, _MARGIN + 15), fill=tint, outline=_INK)
            x += 18
        draw.text((x, _MARGIN), text, font=font, fill=_INK)
        x += draw.textlength(text, font=font) + 14
