"""The figures' pipeline: sheets of panels, two runs side by side."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner


@pytest.fixture
def figures(repository: Path) -> Iterator[ModuleType]:
    sys.path.insert(0, str(repository / "pipelines"))
    yield importlib.import_module("figures")
    sys.path.pop(0)


def test_a_sheet_has_every_panel_under_its_title(figures: ModuleType) -> None:
    colors = [[(200, 0, 0), (0, 200, 0)], [(0, 0, 200), (9, 9, 9)]]
    shapes = [(30, 60, 3), (60, 60, 3)]
    rows = [
        [np.full(shape, color, np.uint8) for color in row]
        for row, shape in zip(colors, shapes, strict=True)
    ]
    page = figures.sheet(rows, ("left", "right"), width=120, gap=4)
    header = page.shape[0] - (60 + 4 + 120)
    assert page.shape[1] == 2 * 120 + 4
    assert (page[:header, :120] < 128).any()
    assert (page[:header, 124:] < 128).any()
    for row, (top, height) in enumerate([(header, 60), (header + 64, 120)]):
        for column in range(2):
            left = column * 124
            panel = page[top : top + height, left : left + 120]
            assert (panel == colors[row][column]).all()
    assert (page[header + 60 : header + 64] == 255).all()


def test_two_runs_stand_beside_each_other(figures: ModuleType, make_store, tmp_path: Path) -> None:
    store = make_store(sizes=[(60, 90), (90, 60)])
    mask = np.zeros((60, 90), np.uint8, order="F")
    mask[10:40, 20:70] = 1
    rle = coco_mask.encode(mask)
    entry = {
        "image_id": int(store.image_ids[0]),
        "category_id": 1,
        "bbox": [20, 10, 50, 30],
        "score": 0.9,
        "segmentation": {"size": [60, 90], "counts": rle["counts"].decode()},
    }
    for name, entries in (("none", []), ("one", [entry])):
        (tmp_path / f"{name}.json").write_text(json.dumps(entries))
    command = ["compare", str(tmp_path / "none.json"), str(tmp_path / "one.json")]
    options = [
        "--store",
        str(store.path),
        "--out",
        str(tmp_path),
        "--title",
        "before",
        "--title",
        "after",
    ]
    done = CliRunner().invoke(figures.app, [*command, *options])
    assert done.exit_code == 0, done.output
    page = np.asarray(Image.open(tmp_path / "compare.png")).astype(int)
    before, after = page[:, 2 * 426 : 2 * 426 + 420], page[:, 3 * 426 :]
    differ = np.abs(before - after).sum(axis=2) > 30
    top = page.shape[0] - (280 + 6 + 630)
    inside = differ[top + 10 * 280 // 60 : top + 40 * 280 // 60, 20 * 420 // 90 : 70 * 420 // 90]
    assert inside.mean() > 0.9
    assert not differ[top + 290 :].any()
