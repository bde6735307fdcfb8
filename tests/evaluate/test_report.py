"""The report: one file, nothing from outside, and it draws in a real browser."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxdepth.evaluate.report import collect, render
from boxdepth.evaluate.results import read_annotations, read_predictions

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def pages(
    make_set: Callable[..., tuple], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Reports of a usual set with images, of no results, and of boxes alone."""
    folder = tmp_path_factory.mktemp("report")
    truth, results = make_set(5, images=9)
    truth["categories"][0]["name"] = "<script>alert(1)</script> & co"
    rng = np.random.default_rng(0)
    for image in truth["images"]:
        noise = rng.integers(0, 255, (image["height"], image["width"], 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / image["file_name"])
    boxes = [{k: v for k, v in r.items() if k != "segmentation"} for r in results]
    kinds = {"usual": results, "nothing": [], "boxes": boxes}
    written = {}
    for name, found in kinds.items():
        table = read_annotations(json.loads(json.dumps(truth)))
        content = collect(table, read_predictions(found, table), images=folder, title=f"Set {name}")
        written[name] = folder / f"{name}.html"
        written[name].write_text(render(content), encoding="utf-8")
    return written


@pytest.mark.parametrize("name", ["usual", "nothing", "boxes"])
def test_a_report_needs_nothing_but_itself(name: str, pages: dict[str, Path]) -> None:
    text = pages[name].read_text("utf-8")
    sources = re.findall(r"""(?:src|href)=["']([^"']*)""", text)
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "<script" not in text


def test_names_from_files_are_text_never_markup(pages: dict[str, Path]) -> None:
    text = pages["usual"].read_text("utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in text


def test_the_report_says_what_was_scored_and_how(pages: dict[str, Path]) -> None:
    text = pages["usual"].read_text("utf-8")
    for words in (
        "Set usual", "COCO protocol", "mask AP (COCO)", "Precision and recall", "What goes wrong",
        "By class", "Most instructive", "AP small", "At the best threshold", "confusion matrix",
        "calibration error", "Which objects", "small third", "In pieces",
    ):  # fmt: skip
        assert words in text
    assert text.count("<svg") == 4
    assert text.count("data:image/jpeg") >= 3


def test_boxes_alone_get_a_report_about_boxes(pages: dict[str, Path]) -> None:
    text = pages["boxes"].read_text("utf-8")
    assert "mask AP" not in text
    assert "there is no segm AP" in text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium from the system's packages")
@pytest.mark.parametrize(("width", "height"), [(1280, 1600), (500, 1600)])
def test_it_draws_in_a_browser_without_reaching_out(
    width: int, height: int, pages: dict[str, Path], tmp_path: Path
) -> None:
    picture = tmp_path / "page.png"
    run = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},{height}",
            f"--screenshot={picture}", pages["usual"].as_uri(),
        ],
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert picture.is_file(), run.stderr[-1000:]
    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    bar, right = np.array([0x00, 0x72, 0xB2]), np.array([0x00, 0x9E, 0x73])
    for colour in (bar, right):
        assert (np.abs(pixels.astype(int) - colour).max(axis=1) <= 2).sum() > 200
    assert (pixels == 255).all(axis=1).mean() > 0.3  # a light page with room to breathe
