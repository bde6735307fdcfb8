"""What a person decided on the review page is what a second run learns from."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from selenium.webdriver.common.by import By
from tests.e2e.test_line import line

from boxdepth.depthgen.store import open_store
from boxdepth.trainer.data.rules import Augmentation, Data
from boxdepth.trainer.data.store_dataset import TrainingSet

WORST_FIRST = {51: 0.1, 52: 0.2, 53: 0.3, 54: 0.9}
"""Annotation id and quality: 51 will be accepted, 52 redone, 53 dropped, 54 not looked at."""


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Four ellipses in four boxes on two photos, each with a quality."""
    random, annotations = np.random.default_rng(0), []
    (tmp_path / "photos").mkdir()
    for image in (1, 2):
        noise = random.integers(0, 255, (80, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{image}.png")
    for number, (place, quality) in enumerate(WORST_FIRST.items()):
        y, x = np.mgrid[0:80, 0:96]
        left, top = 8 + 44 * (number % 2), 10
        mask = ((x - left - 18) / 18) ** 2 + ((y - top - 25) / 25) ** 2 <= 1
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        annotations.append(
            {
                "id": place, "image_id": 1 + number // 2, "category_id": 4, "iscrowd": 0,
                "bbox": coco_mask.toBbox(rle).tolist(), "area": float(coco_mask.area(rle)),
                "segmentation": {"size": [80, 96], "counts": rle["counts"].decode()},
                "quality": quality,
            }
        )  # fmt: skip
    document = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 80, "width": 96} for i in (1, 2)],
        "categories": [{"id": 4, "name": "pear"}],
        "annotations": annotations,
    }
    (tmp_path / "masks.json").write_text(json.dumps(document))
    return tmp_path


@pytest.mark.slow
def test_accepted_masks_teach_redone_ones_become_boxes_and_dropped_ones_are_gone(
    masks: Path, open_page: Callable
) -> None:
    line(
        "evaluate", "review", "masks.json", "--images", "photos", "--html", "review.html",
        "--json", cwd=masks,
    )  # fmt: skip
    window = open_page(masks / "review.html", 1280, 800)
    window.execute_script("localStorage.clear()")
    window.refresh()
    window.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(masks)}
    )
    for key in ("a", "r", "d", "s"):
        window.find_element(By.TAG_NAME, "body").send_keys(key)
    until = time.monotonic() + 120
    while not (masks / "reviewed.json").is_file() and time.monotonic() < until:
        time.sleep(0.1)
    fitted = line(
        "trainer", "fit", "auto", "--train", "reviewed.json", "--images", "photos", "--out", "run",
        "--set", "data.batch_size=2", "--set", "data.workers=0", "--set", "checkpoints.log_every=1",
        "--set", "model.backbone.weights=null", "--set", "model.backbone.frozen_stages=0",
        "--set", "model.backbone.frozen_norm=false", "--max-iterations", 2, "--json", cwd=masks,
    )  # fmt: skip
    assert fitted["losses"]["mask"] > 0  # dice with the accepted masks
    assert fitted["losses"]["projection"] > 0  # and boxes where there is no mask
    config = json.loads((masks / "run" / "config.json").read_text())
    assert config["data"]["supervision"] == "mixed"
    store = open_store(masks / config["data"]["train"])
    before = {a["id"]: a for a in json.loads((masks / "masks.json").read_text())["annotations"]}
    dataset = TrainingSet(
        store,
        Data(supervision="mixed", augmentation=Augmentation(short_sides=(80,), flip=0)),
        seed=0,
    )
    learnt = {
        int(place): bool(has_mask)
        for row in range(2)
        for place, has_mask in zip(
            store.boxes(row).id, dataset.load(row, epoch=0).has_mask, strict=True
        )
    }
    assert learnt == {51: True, 52: False, 54: True}
    stored = dict(zip(store.boxes(0).id.tolist(), store.masks(0), strict=True))
    assert stored[52] is None
    assert stored[51] is not None
    kept = coco_mask.decode(stored[51])
    np.testing.assert_array_equal(kept, coco_mask.decode(before[51]["segmentation"]))
