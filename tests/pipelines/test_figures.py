"""The figures' pipeline: sheets of panels, two runs side by side."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

import figures
from boxdepth.depthgen.store import Category, ImageRecord, open_store, write_store


def test_a_sheet_has_every_panel_under_its_title() -> None:
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


def noise(index: int, height: int, width: int) -> tuple[ImageRecord, bytes]:
    """An image of noise without boxes."""
    pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    record = ImageRecord(
        id=index + 1,
        name=f"{index}.png",
        path=None,
        height=height,
        width=width,
        boxes_xyxy=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        box_ids=np.zeros(0, np.int64),
        crowd=np.zeros(0, bool),
        areas=np.zeros(0, np.float32),
        masks=(),
    )
    return record, buffer.getvalue()


def test_two_runs_stand_beside_each_other(tmp_path: Path) -> None:
    records, images = zip(noise(0, 60, 90), noise(1, 90, 60), strict=True)
    ramp = np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    store = open_store(
        write_store(
            tmp_path / "store.zarr",
            records,
            images=images,
            depth=[ramp, ramp],
            categories=[Category(id=1, name="cup")],
        )
    )
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
