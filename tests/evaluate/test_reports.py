"""Frozen results as JSON, Markdown tables and figures; convert and review as functions."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxdepth.evaluate import (
    DataError,
    UsageError,
    compare,
    convert,
    evaluate_cityscapes,
    evaluate_coco,
    measure,
    review,
)
from boxdepth.evaluate.cityscapes_ap import CityscapesReport
from boxdepth.evaluate.measures import ConfusionMatrix, Measures
from boxdepth.evaluate.results import read_annotations
from boxdepth.evaluate.results.tables import markdown

NAMES = ["car [parked]", "a $x_{$ b|c", "x[/y]", "two\nlines"]


@pytest.fixture
def named_set(small_set: tuple) -> tuple[dict, list[dict]]:
    """A set whose class names are whatever people write."""
    truth, results = small_set
    for category, name in zip(truth["categories"], NAMES, strict=True):
        category["name"] = name
    return truth, results


def cells(table: str) -> list[list[str]]:
    """A Markdown table as a reader of Markdown takes it apart."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
    return [[cell.strip().replace("\\|", "|") for cell in row] for row in rows]


def test_names_stay_in_their_cells() -> None:
    table = markdown(("a", "b"), [(name, 1) for name in NAMES])
    rows = cells(table)
    assert {len(row) for row in rows} == {2}
    assert [row[0] for row in rows[2:]] == [" ".join(name.split()) for name in NAMES]


def test_measures_take_files_and_become_json_tables_and_figures(named_set: tuple) -> None:
    truth, results = named_set
    measures = measure(results, truth)
    json.dumps(measures.to_json(), allow_nan=False)
    json.dumps(measures.per_image.to_json(), allow_nan=False)
    for part in (measures.points, measures.confusion, measures.calibration):
        json.dumps(part.to_json(), allow_nan=False)
        assert len({len(row) for row in cells(part.table())}) == 1
        drawn(part.figure())
    drawn(measures.figure())
    points, slices = measures.table().split("\n\n")
    assert cells(points)[2][0] == "all, one threshold"
    assert len(cells(slices)) - 2 == len(measures.slices)
    assert measure(results, truth, iou_type="bbox").fragmentation is None


def test_the_tables_hold_the_numbers(named_set: tuple) -> None:
    truth, results = named_set
    measures = measure(results, truth)
    matrix = cells(measures.confusion.table())
    assert [list(map(int, row[1:])) for row in matrix[2:]] == measures.confusion.counts.tolist()
    assert matrix[0][-1] == matrix[-1][0] == "background"
    overall = cells(measures.points.table())[2]
    assert float(overall[4]) == pytest.approx(measures.points.overall.f1, abs=5e-4)
    counted = sum(int(row[1]) for row in cells(measures.calibration.table())[2:])
    assert counted == measures.calibration.count.sum()


def drawn(figure: Any) -> None:
    """It draws, names and all, and no name leaves the picture."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)
    picture = np.asarray(Image.open(file).convert("L"))
    assert len(np.unique(picture)) > 2
    edge = np.concatenate((picture[0], picture[-1], picture[:, 0], picture[:, -1]))
    assert (edge == 255).all()


def test_figures_of_other_results_draw_whatever_their_names(named_set: tuple) -> None:
    truth, results = named_set
    drawn(evaluate_coco(results, truth).figure())
    drawn(compare({"a $x_{$ [/b]": results, "b": results[:-3]}, truth, draws=20).figure())


def test_many_classes_are_drawn_as_those_with_most_errors() -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"class {k}" for k in range(80))
    counts = rng.integers(0, 50, (81, 81))
    counts[7, 9] = counts[9, 7] = 5000
    matrix = ConfusionMatrix(labels=(*names, "background"), counts=counts, threshold=0.5)
    kept = matrix.worst(30)
    assert {"class 7", "class 9", "other classes", "background"} <= set(kept.labels)
    assert kept.counts.sum() == counts.sum()
    drawn(matrix.figure())


def test_nothing_predicted_draws_as_well(small_set: tuple) -> None:
    measures: Measures = measure([], small_set[0])
    drawn(measures.figure())
    assert "| all, one threshold | - |" in measures.table()


def test_cityscapes_numbers_become_a_table() -> None:
    report = CityscapesReport(
        ap=0.25, ap50=0.5, per_class={"car": (0.25, 0.5), "bus": (None, None)}, images=1,
        predictions=2, warnings=(),
    )  # fmt: skip
    assert cells(report.table())[2:] == [
        ["all", "25.0", "50.0"],
        ["car", "25.0", "50.0"],
        ["bus", "-", "-"],
    ]
    assert callable(evaluate_cityscapes)


@pytest.fixture
def masks(make_set: Callable[..., tuple], tmp_path: Path) -> Path:
    """`masks.json` and its images."""
    truth, _ = make_set(3)
    for image in truth["images"]:
        noise = np.zeros((image["height"], image["width"], 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / image["file_name"])
    (tmp_path / "masks.json").write_text(json.dumps(truth))
    return tmp_path / "masks.json"


def test_convert_writes_what_the_command_writes(masks: Path, tmp_path: Path) -> None:
    report = convert(masks, "coco", tmp_path / "out", split="val")
    written = json.loads((tmp_path / "out" / "val" / "_annotations.coco.json").read_text())
    before, after = read_annotations(masks), read_annotations(written)
    assert sorted(report.written) == before.ids.tolist() == after.ids.tolist()
    assert (before.masks.areas == after.masks.areas).all()
    with pytest.raises(UsageError, match="expected one of coco, yolo-seg"):
        convert(masks, "voc", tmp_path / "other")


def test_review_returns_the_page_and_writes_nothing(masks: Path) -> None:
    before = sorted(masks.parent.iterdir())
    page = review(str(masks), masks.parent, top=3)
    assert page.shown == 3
    assert "Review of masks.json" in page.html
    assert sorted(masks.parent.iterdir()) == before
    boxes = [{"image_id": 5, "category_id": 3, "score": 0.5, "bbox": [0, 0, 4, 4]}]
    masks.with_name("boxes.json").write_text(json.dumps(boxes))
    with pytest.raises(DataError):
        review(masks.with_name("boxes.json"), masks.parent, annotations=masks.with_name("none"))


def test_what_draws_is_imported_when_it_is_used() -> None:
    code = (
        "import sys, boxdepth.evaluate as e; late = {'jinja2', 'matplotlib', "
        "'boxdepth.evaluate.export', 'boxdepth.evaluate.review'}; "
        "assert not late & set(sys.modules); assert {'convert', 'review'} <= set(dir(e)); "
        "assert callable(e.convert) and callable(e.review) and callable(e.check); "
        "import boxdepth.evaluate.check, boxdepth.evaluate.review.page; "
        "assert callable(e.check) and callable(e.review)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
