"""Every field of COCO files as docs/input-fields.md has it: accepted, mended, or refused."""

import copy
import gzip
import io
import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boxdepth.evaluate import DataError, evaluate_coco

TRUTH: dict[str, Any] = {
    "images": [{"id": 1, "height": 40, "width": 60}, {"id": 2, "height": 40, "width": 60}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 10, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 10], "area": 200,
         "iscrowd": 0, "segmentation": [[5, 5, 25, 5, 25, 15, 5, 15]]},
        {"id": 11, "image_id": 2, "category_id": 2, "bbox": [10, 10, 30, 20], "area": 600,
         "iscrowd": 0, "segmentation": [[10, 10, 40, 10, 40, 30, 10, 30]]},
    ],
}  # fmt: skip
RESULTS = [
    {**{k: a[k] for k in ("image_id", "category_id", "bbox", "segmentation")}, "score": 0.9}
    for a in TRUTH["annotations"]
]
TABLES = ("images", "annotations", "categories")


def files(folder: Path, truth: object, results: object) -> tuple[Path, Path]:
    paths = folder / "predictions.json", folder / "annotations.json"
    for path, document in zip(paths, (results, truth), strict=True):
        path.write_text(document if isinstance(document, str) else json.dumps(document))
    return paths


def changed(table: str, key: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(TRUTH)
    document[table][0][key] = value
    return document


MENDED = [
    ("images", "id", "1", "id written as text"),
    ("images", "height", "40", "height written as text"),
    ("images", "width", " 60.0 ", "width written as text"),
    ("annotations", "image_id", "1.0", "image_id written as text"),
    ("annotations", "category_id", "1e0", "category_id written as text"),
    ("annotations", "bbox", ["5", "5", "20", "10"], "bbox written as text"),
    ("annotations", "area", "200", "area written as text"),
    ("annotations", "iscrowd", "0", "iscrowd written as text"),
    ("annotations", "iscrowd", "0.0", "iscrowd written as text"),
    ("annotations", "iscrowd", "false", "iscrowd written as text"),
    ("annotations", "iscrowd", None, "iscrowd is null"),
]
REFUSED = [
    *(("images", "id", value) for value in (None, True, 1.5, "one", "1 2", "", 2**53 + 1, 10**400)),
    *(("annotations", "id", value) for value in (None, False, 0.5, "x", 2**64 + 1, -(2**53) - 1)),
    *(("images", "height", value) for value in (0, -1, 65_536, 1.5, "tall", None, True, [40])),
    *(("annotations", "area", value) for value in (-1, 1e300, 1e16, "big", True, [2])),
    *(("annotations", "iscrowd", value) for value in (2, -1, "maybe", "", 0.5, [0])),
    *(("annotations", "bbox", value) for value in (
        [1, 2, 3], [1, 2, -3, 4], [1, 2, 3, "4 px"], [1e10, 0, 1, 1], [True, 1, 1, 1], "box", 5)),
    *(("categories", "name", value) for value in (["cat"], {"a": 1}, True)),
    *(("annotations", "segmentation", value) for value in ("mask", 5, True, [[1, 2, 3, 4]])),
]  # fmt: skip
ACCEPTED = [
    ("images", "id", 1.0), ("images", "height", 40.0), ("images", "width", 60.0),
    ("annotations", "id", 10.0), ("annotations", "id", 0), ("annotations", "id", 2**53),
    ("annotations", "id", -(2**53)), ("annotations", "image_id", 1.0),
    ("annotations", "iscrowd", False), ("annotations", "iscrowd", 0.0),
    ("annotations", "area", 1e15), ("annotations", "bbox", [5.0, 5, 20, 10.0]),
    ("annotations", "bbox", None), ("annotations", "bbox", []), ("annotations", "area", None),
]  # fmt: skip


@pytest.mark.parametrize("in_memory", [True, False], ids=["document", "file"])
@pytest.mark.parametrize(("table", "key", "value"), ACCEPTED)
def test_what_is_accepted_changes_nothing(table, key, value, in_memory, tmp_path) -> None:
    document = changed(table, key, value)
    given = (RESULTS, document) if in_memory else files(tmp_path, document, RESULTS)
    report = evaluate_coco(*given)
    assert report.segm is not None
    assert report.segm.ap == report.bbox.ap == pytest.approx(1.0)
    assert not [w for w in report.warnings if "written" in w or "null" in w]


@pytest.mark.parametrize("in_memory", [True, False], ids=["document", "file"])
@pytest.mark.parametrize(("table", "key", "value", "note"), MENDED)
def test_what_is_mended_is_counted(table, key, value, note, in_memory, tmp_path) -> None:
    document = changed(table, key, value)
    given = (RESULTS, document) if in_memory else files(tmp_path, document, RESULTS)
    report = evaluate_coco(*given)
    assert report.segm.ap == report.bbox.ap == pytest.approx(1.0)
    assert any(w.startswith(f"1 {table}: {note}") for w in report.warnings)


@pytest.mark.parametrize("in_memory", [True, False], ids=["document", "file"])
@pytest.mark.parametrize(("table", "key", "value"), REFUSED)
def test_what_is_refused_names_record_and_value(table, key, value, in_memory, tmp_path) -> None:
    document = changed(table, key, value)
    given = (RESULTS, document) if in_memory else files(tmp_path, document, RESULTS)
    with pytest.raises(DataError, match=f"(?s){table[:-1]}.*expected|{table[:-1]}.*negative"):
        evaluate_coco(*given)


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_results_keep_the_same_rule(key: str, tmp_path: Path) -> None:
    for value, note in ((1.0, None), ("1", f"1 results: {key} written as text.")):
        results = [{**RESULTS[0], key: value}, RESULTS[1]]
        report = evaluate_coco(*files(tmp_path, TRUTH, results))
        assert report.segm.ap == pytest.approx(1.0)
        assert note is None or note in report.warnings
    for value in (None, True, 1.5, "x", 2**60):
        with pytest.raises(DataError, match=f"result 0 .*: {key} is"):
            evaluate_coco(*files(tmp_path, TRUTH, [{**RESULTS[0], key: value}]))
    assert evaluate_coco(
        [{**RESULTS[0], "score": "0.9"}, RESULTS[1]], TRUTH
    ).segm.ap == pytest.approx(1)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "9" * 5000])
def test_numbers_that_are_none_are_refused_by_record_and_ignored_elsewhere(
    number: str, tmp_path: Path
) -> None:
    text = json.dumps(RESULTS).replace("0.9", number, 1)
    with pytest.raises(DataError, match=r"result 0 .*score is .*, expected a finite number"):
        evaluate_coco(*files(tmp_path, TRUTH, text))
    unread = json.dumps([{**r, "note": "?"} for r in RESULTS]).replace('"?"', number)
    assert evaluate_coco(*files(tmp_path, TRUTH, unread)).segm.ap == pytest.approx(1.0)


def test_ids_beyond_what_floats_hold_are_refused_with_the_range(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"18446744073709551617, .* -2\^53 to 2\^53"):
        evaluate_coco(*files(tmp_path, changed("annotations", "id", 2**64 + 1), RESULTS))


@pytest.mark.parametrize("nothing", [None, [], [[]], {}, "", "absent"])
def test_no_mask_in_any_spelling_leaves_box_ap(nothing: object, tmp_path: Path) -> None:
    truth = copy.deepcopy(TRUTH)
    for annotation in truth["annotations"]:
        annotation["segmentation"] = nothing
        if nothing == "absent":
            del annotation["segmentation"]
    report = evaluate_coco(*files(tmp_path, truth, RESULTS))
    assert report.segm is None
    assert report.bbox.ap == pytest.approx(1.0)
    assert any("2 of 2 annotations have no segmentation" in w for w in report.warnings)


@pytest.mark.parametrize(
    ("value", "name"),
    [(None, "category 1"), ("", "category 1"), (7, "7"), ("ab|[red]", "ab|[red]")],
)
def test_names_of_classes_are_mended(value: object, name: str) -> None:
    report = evaluate_coco(RESULTS, changed("categories", "name", value))
    assert list(report.segm.per_class) == [name, "dog"]


def test_a_root_class_of_the_same_name_is_told_apart_by_its_id() -> None:
    truth = copy.deepcopy(TRUTH)
    truth["categories"].append({"id": 0, "name": "cat"})
    report = evaluate_coco(RESULTS, truth)
    assert report.segm.ap == pytest.approx(1.0)
    assert list(report.segm.per_class) == ["cat (id 0)", "cat", "dog"]
    assert report.segm.per_class["cat (id 0)"].ap is None
    truth["categories"][1]["name"] = "cat"  # both annotated: ids decide
    assert set(evaluate_coco(RESULTS, truth).segm.per_class) == {
        "cat (id 0)", "cat (id 1)", "cat (id 2)",
    }  # fmt: skip


def test_annotations_that_are_all_crowds_or_none_have_no_ap_and_it_is_said() -> None:
    truth = copy.deepcopy(TRUTH)
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = 1
    report = evaluate_coco(RESULTS, truth)
    assert report.segm.ap is None
    assert any("Every annotation is a crowd region" in w for w in report.warnings)
    report = evaluate_coco(RESULTS, {**TRUTH, "annotations": []})
    assert report.bbox.ap is None
    assert any("There are no annotations" in w for w in report.warnings)


# --- where a file may come from ------------------------------------------------------------------


def test_a_pipe_standard_input_and_gzip_are_read(tmp_path: Path, monkeypatch) -> None:
    predictions, annotations = files(tmp_path, TRUTH, RESULTS)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(predictions.read_bytes()))
    writer.start()
    assert evaluate_coco(pipe, annotations).segm.ap == pytest.approx(1.0)
    writer.join()
    stdin = SimpleNamespace(buffer=io.BytesIO(predictions.read_bytes()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert evaluate_coco("-", annotations).segm.ap == pytest.approx(1.0)
    packed = tmp_path / "predictions.json.gz"
    packed.write_bytes(gzip.compress(predictions.read_bytes()))
    assert evaluate_coco(packed, annotations).segm.ap == pytest.approx(1.0)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(DataError, match="broken gzip file"):
        evaluate_coco(packed, annotations)


def test_a_folder_is_called_a_folder_and_home_is_home(tmp_path: Path, monkeypatch) -> None:
    predictions, annotations = files(tmp_path, TRUTH, RESULTS)
    with pytest.raises(DataError, match=r"is a folder\. Name the JSON file in it"):
        evaluate_coco(tmp_path, annotations)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert evaluate_coco("~/predictions.json", "~/annotations.json").segm.ap == pytest.approx(1)
    with pytest.raises(DataError, match="no such file"):
        evaluate_coco(predictions / "below.json", annotations)
