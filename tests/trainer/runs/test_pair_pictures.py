"""`trainer check-data --preview`: what is drawn is what the losses trust."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boxdepth.trainer.data.collate import collate
from boxdepth.trainer.runs.pair_pictures import PairPicture
from boxdepth.trainer.structures import Sample
from boxdepth.trainer.targets.mask_grid import mask_grid
from boxdepth.trainer.targets.pairs import trusted_pairs
from boxdepth.trainer.targets.rules import PairRule


def _sample(*, depth_valid: bool = True, boxes: int = 1) -> Sample:
    """64x96: red left half, green right half; the upper half is near."""
    image = torch.zeros(3, 64, 96, dtype=torch.uint8)
    image[0, :, :48], image[1, :, 48:] = 200, 200
    depth = torch.zeros(1, 64, 96)
    depth[:, :32] = 255
    box = torch.tensor([[16.0, 16.0, 80.0, 48.0]])[:boxes]
    return Sample(
        image=image,
        inverse_depth=depth,
        depth_valid=depth_valid,
        boxes_xyxy=box,
        labels=torch.zeros(boxes, dtype=torch.int64),
        masks=None,
        has_mask=torch.zeros(boxes, dtype=torch.bool),
        centers_xy=box[:, :2],
        bottom_rows_removed=0,
        image_id=7,
    )


def test_pairs_are_those_of_the_losses() -> None:
    picture = PairPicture(_sample())
    color, depth = trusted_pairs(mask_grid(collate([_sample()])), PairRule())
    assert torch.equal(picture.color, color.pairs[0])
    assert torch.equal(picture.depth, depth.pairs[0])


def test_shares_count_pairs_inside_boxes() -> None:
    """8 rows x 16 columns of cells; two columns on each side of the seam lose 3 of 8 neighbours."""
    picture = PairPicture(_sample())
    assert picture.share(picture.color) == pytest.approx(1 - (4 / 16) * (3 / 8))
    assert picture.share(picture.depth) == pytest.approx(1 - (4 / 8) * (3 / 8))


def test_without_boxes_or_depth_it_says_so() -> None:
    assert np.isnan(PairPicture(_sample(boxes=0)).share(torch.ones(8, 16, 24, dtype=torch.bool)))
    flat = PairPicture(_sample(depth_valid=False))
    assert flat.share(flat.depth) == 0
    assert flat.draw().height > 400


def test_the_picture_shows_where_colour_and_depth_agree() -> None:
    """White inside the box away from both seams, blue at the seam of colours, orange at depth's."""
    sheet = np.asarray(PairPicture(_sample()).draw()).astype(int)
    width, left = 600, 12 + 2 * (600 + 12)
    panel = sheet[42 : 42 + 400, left : left + width]
    scale = 400 / 64

    def at(x: float, y: float) -> np.ndarray:
        return panel[int(y * scale), int(x * scale)]

    assert at(26, 22).min() > 200
    red, _, blue = at(46, 22)
    assert blue > red
    red, _, blue = at(26, 30)
    assert red > blue
    assert at(4, 4).max() < 80  # outside of the box


def test_check_data_draws_them(trainer: Any, make_store: Any, tmp_path: Path) -> None:
    store = make_store("train").path
    code, out, said = trainer(
        "check-data", store, "--preview", tmp_path / "p", "--count", "2", "--json"
    )
    assert code == 0
    assert "2 pictures of trusted pairs" in said
    pictures = json.loads(out)["pictures"]
    assert len(pictures) == 2
    for picture in pictures:
        with Image.open(picture) as opened:
            assert opened.width > opened.height
