"""The report: one file, nothing from outside, and it draws in a real browser."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from boxdepth.evaluate.measures import ConfusionMatrix, calibrate
from boxdepth.evaluate.report import collect, confusion_svg, render
from boxdepth.evaluate.report.matrix import confusion_chart, reliability_chart
from boxdepth.evaluate.results import read_annotations, read_predictions


@pytest.fixture(scope="module")
def pages(
    make_set: Callable[..., tuple], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Reports of a usual set with images, of no results, and of boxes alone."""
    folder = tmp_path_factory.mktemp("report")
    truth, results = make_set(5, images=9)
    truth["categories"][0]["name"] = "<script>alert(1)</script> & co"
    truth["categories"][1]["name"] = "MWMWMWMWMWMW"
    truth["categories"][2]["name"] = "車両と歩行者と自転車と信号機"
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


def test_recall_is_named_by_the_detections_that_count(make_set: Callable[..., tuple]) -> None:
    truth, results = make_set(5, images=9)
    table = read_annotations(truth)
    found = read_predictions(results, table)
    text = render(collect(table, found, max_detections=(2, 300)))
    named = re.findall(r"<td>(AR \w+)</td>", text)
    assert named == ["AR 2", "AR 300", "AR small", "AR medium", "AR large"]
    assert "<th>AR300</th>" in text
    usual = render(collect(table, found))
    assert re.findall(r"<td>(AR \d+)</td>", usual) == ["AR 1", "AR 10", "AR 100"]


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


def test_a_chart_without_its_numbers_is_still_a_picture() -> None:
    """An empty matrix and an empty curve draw axes and no division by zero."""
    empty = calibrate(np.zeros(0), np.zeros(0, dtype=bool))
    ElementTree.fromstring(str(reliability_chart(empty)))
    matrix = ConfusionMatrix(
        labels=("a", "background"), counts=np.zeros((2, 2), dtype=np.int64), threshold=None
    )
    ElementTree.fromstring(str(confusion_chart(matrix)))


@pytest.mark.parametrize("classes", [1, 12, 13, 80])
def test_a_matrix_of_any_size_fits_a_phone(classes: int) -> None:
    rng = np.random.default_rng(classes)
    names = tuple(f"<class & {k}> with a long name" for k in range(classes))
    counts = rng.integers(0, 2000, (classes + 1, classes + 1))
    matrix = ConfusionMatrix(labels=(*names, "background"), counts=counts, threshold=0.5)
    root = ElementTree.fromstring(str(confusion_chart(matrix)))
    names = [text for text in root.iter("text") if text.get("class") is None]
    assert len(names) <= 2 * 14
    assert len(matrix.worst(12).labels) == (classes + 1 if classes <= 12 else 14)
    ElementTree.fromstring(confusion_svg(matrix))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["usual", "nothing", "boxes"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_draws_in_a_browser_without_reaching_out(
    width: int, name: str, pages: dict[str, Path], open_page: Callable
) -> None:
    window = open_page(pages[name], width)
    loaded = window.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    assert all(source.startswith("data:") for source in loaded)
    assert not [line for line in window.get_log("browser") if line["level"] == "SEVERE"]
    wide = window.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width  # nothing to scroll sideways
    cut = window.execute_script(
        """return [...document.querySelectorAll('svg')].map(svg => {
             const frame = svg.getBoundingClientRect();
             return [...svg.querySelectorAll('text')].filter(text => {
               const box = text.getBoundingClientRect();
               return box.left < frame.left - 1 || box.right > frame.right + 1 ||
                      box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
             }).map(text => text.textContent);
           }).flat()"""
    )
    assert cut == []  # no label leaves its chart
    small = window.execute_script(
        """return [...document.querySelectorAll('svg text')]
             .map(t => t.getBoundingClientRect()).filter(b => Math.min(b.width, b.height) > 0)
             .map(b => Math.min(b.width, b.height)).filter(h => h < 5).length"""
    )
    assert small == 0
    pixels = np.asarray(
        Image.open(io.BytesIO(window.get_screenshot_as_png())).convert("RGB")
    ).reshape(-1, 3)
    assert (pixels == 255).all(axis=1).mean() > 0.3  # a light page with room to breathe
    assert len(np.unique(pixels, axis=0)) > 20
