"""What a store can teach, as pictures: the pairs that the losses trust, computed as in training."""

from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from boxdepth.trainer.data.collate import collate
from boxdepth.trainer.structures import MASK_STRIDE, Sample
from boxdepth.trainer.targets.mask_grid import mask_grid
from boxdepth.trainer.targets.pairs import color_pairs, depth_pairs
from boxdepth.trainer.targets.rules import PairRule

_COLOR_TINT: Final = (240, 150, 40)
_DEPTH_TINT: Final = (40, 150, 235)
_BOTH_TINT: Final = (245, 245, 245)
_INK: Final = (40, 44, 52)
_PAPER: Final = (250, 250, 248)
_HEIGHT: Final = 400
_MARGIN: Final = 12
_CAPTION: Final = 30
_CAPTION_WIDTH: Final = 260
_DIMMED: Final = 0.35
_Caption = list[tuple[str, tuple[int, int, int] | None]]
"""Texts, each with the colour of the square before it, if any."""


class PairPicture:
    """The trusted pairs of one sample.

    Attributes:
        sample: The image at the size that the network sees.
        color: Pairs that agree in colour.
        depth: Pairs that agree in depth; none without a usable depth.
        boxed: Cells inside a box.
    """

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        grid, rule = mask_grid(collate([sample])), PairRule()
        self.color: Bool[Tensor, "k hm wm"] = color_pairs(grid, rule).pairs[0]
        self.depth: Bool[Tensor, "k hm wm"] = depth_pairs(grid, rule).pairs[0]
        self.boxed: Bool[Tensor, "hm wm"] = grid.box_bitmaps.any(dim=0)

    def share(self, pairs: Bool[Tensor, "k hm wm"]) -> float:
        """Share of the pairs inside boxes that agree, as the monitors count it; NaN without."""
        total = int(self.boxed.sum()) * len(pairs)
        return float((pairs & self.boxed).sum()) / total if total else float("nan")

    def draw(self) -> Image.Image:
        """Image with its boxes | inverse depth | pairs inside boxes: colour, depth, both."""
        title = "inverse depth, near is bright" if self.sample.depth_valid else "no usable depth"
        height, width = self.sample.image.shape[-2:]
        legend: _Caption = [
            (f"colour {self.share(self.color):.2f}", _COLOR_TINT),
            (f"depth {self.share(self.depth):.2f}", _DEPTH_TINT),
            ("both", _BOTH_TINT),
        ]
        depth = self.sample.inverse_depth[0].nan_to_num(0.0).round().clamp(0, 255).to(torch.uint8)
        size = (max(1, round(width * _HEIGHT / height)), _HEIGHT)
        return _join(
            [
                ([(f"image {self.sample.image_id}", None)], self._boxes().resize(size)),
                ([(title, None)], Image.fromarray(depth.numpy()).convert("RGB").resize(size)),
                (legend, self._pairs().resize(size, Image.Resampling.NEAREST)),
            ]
        )

    def _boxes(self) -> Image.Image:
        picture = _rgb(self.sample)
        draw = ImageDraw.Draw(picture)
        thickness = max(1, round(picture.height / _HEIGHT * 2))
        for left, top, right, bottom in self.sample.boxes_xyxy.tolist():
            draw.rectangle((left, top, right, bottom), outline=_COLOR_TINT, width=thickness)
        return picture

    def _pairs(self) -> Image.Image:
        rows, columns = (side // MASK_STRIDE for side in self.sample.image.shape[-2:])
        color, depth, boxed = (
            maps.float().numpy()[..., :rows, :columns]
            for maps in (self.color, self.depth, self.boxed)
        )
        by_color, by_depth = color.mean(axis=0) * boxed, depth.mean(axis=0) * boxed
        both = np.minimum(by_color, by_depth)
        grey = _rgb(self.sample).convert("L").resize((columns, rows))
        panel = np.repeat(np.array(grey, dtype=np.float32)[..., None], 3, axis=-1) * _DIMMED
        for share, tint in (
            (by_color - both, _COLOR_TINT),
            (by_depth - both, _DEPTH_TINT),
            (both, _BOTH_TINT),
        ):
            panel = _tinted(panel, share, tint)
        return Image.fromarray(panel.round().astype(np.uint8))


def _rgb(sample: Sample) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()))


def _tinted(
    panel: Float[np.ndarray, "h w 3"],
    share: Float[np.ndarray, "h w"],
    tint: tuple[int, int, int],
) -> Float[np.ndarray, "h w 3"]:
    weight = share[..., None]
    mixed: Float[np.ndarray, "h w 3"] = panel * (1 - weight) + np.array(tint, np.float32) * weight
    return mixed


def _join(panels: list[tuple[_Caption, Image.Image]]) -> Image.Image:
    width, height = panels[0][1].size
    step = max(width, _CAPTION_WIDTH) + _MARGIN
    size = (_MARGIN + step * len(panels), 2 * _MARGIN + _CAPTION + height)
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for number, (caption, panel) in enumerate(panels):
        x = float(_MARGIN + number * step)
        sheet.paste(panel, (round(x), _MARGIN + _CAPTION))
        for text, tint in caption:
            if tint is not None:
                draw.rectangle((x, _MARGIN + 3, x + 12, _MARGIN + 15), fill=tint, outline=_INK)
                x += 18
            draw.text((x, _MARGIN), text, font=font, fill=_INK)
            x += draw.textlength(text, font=font) + 14
    return sheet
