"""Large images in tiles: every object once, each given box its mask, no pixel unseen."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from boxdepth.trainer.geometry.tiles import Tiling, Window
from boxdepth.trainer.predict.quality import CUES
from boxdepth.trainer.predict.results import Instances, encode_rle
from boxdepth.trainer.predict.tiles import merged, placed

SIZE = (120, 200)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 100, 119, 120, 121, 1000])
@pytest.mark.parametrize("overlap", [0, 1, 8, 31])
def test_tiles_cover_everything_and_overlap_enough(length: int, overlap: int) -> None:
    windows = Tiling(size=64, overlap=overlap).windows(length, 70)
    rows = sorted({(top, bottom) for _, top, _, bottom in windows})
    assert rows[0][0] == 0
    assert rows[-1][1] == length
    assert all(bottom - top == min(64, length) for top, bottom in rows)
    for (_, end), (start, _) in itertools.pairwise(rows):
        assert end - start >= overlap
    assert len(windows) == len(rows) * len(Tiling(size=64, overlap=overlap).windows(1, 70))


@pytest.mark.parametrize("overlap", [-1, 32, 64])
def test_an_overlap_of_half_a_tile_is_refused(overlap: int) -> None:
    with pytest.raises(ValueError, match="less than half a tile"):
        Tiling(size=64, overlap=overlap)


def seen(window: Window, objects: list[tuple[np.ndarray, int, float]]) -> Instances:
    """What a perfect network sees of objects (mask, class, score) through a window."""
    left, top, right, bottom = window
    parts = [
        (mask[top:bottom, left:right], label, score)
        for mask, label, score in objects
        if mask[top:bottom, left:right].any()
    ]
    boxes = []
    for mask, _, _ in parts:
        y, x = np.nonzero(mask)
        boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
    return Instances(
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([score for _, _, score in parts], np.float32),
        labels=np.array([label for _, label, _ in parts], np.int64),
        masks=tuple(
            encode_rle(mask, offset=(0, 0), size=(bottom - top, right - left))
            for mask, _, _ in parts
        ),
        size=(bottom - top, right - left),
        cues=np.zeros((len(parts), len(CUES)), np.float32),
    )


def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    inside: np.ndarray = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1
    return inside


def through_tiles(objects, *, size: int = 64, overlap: int = 16) -> Instances:
    tiles = Tiling(size=size, overlap=overlap).windows(*SIZE)
    return merged([(w, placed(seen(w, objects), w, size=SIZE)) for w in tiles], size=SIZE)


def test_every_object_comes_out_once_and_whole() -> None:
    """Small ones in the middle, on borders, in corners where four tiles see them; a large one."""
    objects = [
        (ellipse(20, 20, 6, 5), 0, 0.9),
        (ellipse(56, 30, 7, 7), 0, 0.8),
        (ellipse(55, 58, 6, 6), 1, 0.7),
        (ellipse(190, 110, 9, 9), 0, 0.6),
        (ellipse(110, 80, 70, 25), 2, 0.5),  # longer than two tiles
    ]
    found = through_tiles(objects)
    assert found.labels.tolist() == [label for _, label, _ in objects]  # by falling score
    for mine, (truth, _, _score) in zip(found.bitmaps(), objects, strict=True):
        np.testing.assert_array_equal(mine, truth)
    np.testing.assert_allclose(found.scores, [score for _, _, score in objects])
    x1, y1, x2, y2 = found.boxes_xyxy[4].tolist()
    y, x = np.nonzero(objects[4][0])
    assert [x1, y1, x2, y2] == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    assert found.cues is not None
    assert found.cues.shape == (5, len(CUES))


def test_neighbours_and_other_classes_stay_apart() -> None:
    touching = [
        (ellipse(50, 30, 5, 5), 0, 0.9),
        (ellipse(60, 30, 5, 5), 0, 0.8),
        (ellipse(55, 60, 5, 5), 0, 0.7),
        (ellipse(55, 60, 5, 5), 1, 0.6),
    ]
    found = through_tiles(touching)
    assert len(found) == 4
    assert sorted(found.labels.tolist()) == [0, 0, 0, 1]


def test_nothing_found_is_no_error() -> None:
    found = through_tiles([])
    assert len(found) == 0
    assert found.size == SIZE


def test_a_box_is_looked_for_where_it_is_whole() -> None:
    tiling = Tiling(size=64, overlap=16)
    for box in ([50.0, 50, 60, 60], [0, 0, 10, 10], [196, 116, 200, 120], [40, 3, 62, 20]):
        left, top, right, bottom = tiling.window_of_box(box, height=120, width=200)
        assert left <= box[0]
        assert top <= box[1]
        assert right >= box[2]
        assert bottom >= box[3]
        assert (left, top, right, bottom) in tiling.windows(120, 200)
    own = tiling.window_of_box([30, 30, 150, 60], height=120, width=200)
    assert own == (14, 14, 166, 76)


def test_the_command_looks_in_tiles(trainer, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Given boxes keep their order and ids; a tile as large as the picture changes nothing."""
    pixels = np.random.default_rng(3).integers(0, 255, (90, 130, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    boxes = [[100, 60, 20, 20], [5, 5, 20, 20], [10, 10, 110, 70], [60, 40, 15, 12]]
    (tmp_path / "b.json").write_text(
        json.dumps(
            [{"image_id": 4, "file_name": "a.png", "bbox": b, "category_id": 3} for b in boxes]
        )
    )

    def masks(*arguments: object) -> list[dict[str, object]]:
        code, _, said = trainer(
            "predict", tiny_checkpoint, tmp_path / "a.png", *arguments, "--out", "m.json",
            "--overwrite",
        )  # fmt: skip
        assert code == 0, said
        found: list[dict[str, object]] = json.loads(Path("m.json").read_text())
        return found

    in_tiles = masks("--boxes", tmp_path / "b.json", "--tile", 64, "--overlap", 16)
    for result, wanted in zip(in_tiles, boxes, strict=True):
        assert result["bbox"] == pytest.approx(wanted, abs=1e-3)
        assert result["segmentation"]["size"] == [90, 130]  # type: ignore[index]
        if not coco_mask.area(result["segmentation"]):
            continue
        x, y, w, h = coco_mask.toBbox(result["segmentation"]).tolist()
        assert x >= wanted[0] - 1
        assert y >= wanted[1] - 1
        assert x + w <= wanted[0] + wanted[2] + 1
        assert y + h <= wanted[1] + wanted[3] + 1
    whole = masks("--boxes", tmp_path / "b.json")
    assert masks("--boxes", tmp_path / "b.json", "--tile", 300) == whole
    assert all(
        "quality" in result
        for result in masks("--tile", 64, "--overlap", 16, "--score-threshold", 0.3)
    )
    code, _, said = trainer("predict", tiny_checkpoint, tmp_path / "a.png", "--tile", 64)
    assert code == 2
    assert "less than half a tile" in said
