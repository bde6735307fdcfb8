"""The guarded input layer: every fault is named with its record, and nothing is guessed."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_api

from boxdepth.evaluate import evaluate_coco
from boxdepth.evaluate.results import (
    DataError,
    JsonLimits,
    json_document,
    load_json,
    read_annotations,
    read_predictions,
    rle,
)

Edit = Callable[[dict], Any]
TRUTH = {
    "images": [
        {"id": 1, "height": 40, "width": 60, "file_name": "a.jpg"},
        {"id": 2, "height": 40, "width": 60, "file_name": "b.jpg"},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 10, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 10], "area": 200,
         "iscrowd": 0, "segmentation": [[5, 5, 25, 5, 25, 15, 5, 15]]},
        {"id": 11, "image_id": 2, "category_id": 2, "bbox": [10, 10, 30, 20], "area": 600,
         "iscrowd": 0, "segmentation": [[10, 10, 40, 10, 40, 30, 10, 30]]},
    ],
}  # fmt: skip


def block(x: int, y: int, w: int, h: int) -> dict:
    mask = np.zeros((40, 60), dtype=bool)
    mask[y : y + h, x : x + w] = True
    return {"size": [40, 60], "counts": rle.encode(rle.from_mask(mask)).decode()}


RESULTS = [
    {"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [5, 5, 20, 10],
     "segmentation": block(5, 5, 20, 10)},
    {"image_id": 2, "category_id": 2, "score": 0.8, "bbox": [10, 10, 30, 20],
     "segmentation": block(10, 10, 30, 20)},
]  # fmt: skip


def truth_with(edit: Edit) -> dict:
    document = copy.deepcopy(TRUTH)
    edit(document)
    return document


def results_with(edit: Edit) -> list[dict]:
    results = copy.deepcopy(RESULTS)
    edit(results[0])
    return results


# --- E rows of the fault list: each is an error or a stated warning, never a silent AP ------------


def test_e1_an_annotation_id_of_zero_counts_like_any_other() -> None:
    report = evaluate_coco(RESULTS, truth_with(lambda d: d["annotations"][0].update(id=0)))
    assert report.segm.ap == pytest.approx(1.0)
    assert evaluate_coco(
        RESULTS, truth_with(lambda d: d["annotations"][0].update(id=0)), backend="pycocotools"
    ).segm.ap == pytest.approx(1.0)


def test_e1_an_annotation_id_that_stands_twice_is_refused() -> None:
    with pytest.raises(DataError, match="annotation id 11: stands 2 times"):
        read_annotations(truth_with(lambda d: d["annotations"][0].update(id=11)))


def test_e2_no_results_score_zero_and_say_so() -> None:
    for backend in ("fast", "pycocotools"):
        report = evaluate_coco([], TRUTH, backend=backend)
        assert report.segm.ap == 0.0
        assert report.bbox.ar_100 == 0.0
        assert "There are no predictions: every AP is 0." in report.warnings
        assert "Images without results: 2 of 2." in report.warnings


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.update(image_id=3), "image_id 3 not in the annotations' images"),
        (lambda r: r.update(category_id=0), "category_id 0 not in the annotations' categories"),
        (lambda r: r.update(image_id="one"), "image_id is 'one', expected a whole number"),
        (lambda r: r.update(category_id=1.5), "category_id is 1.5, expected a whole number"),
        (lambda r: r.pop("category_id"), "category_id is missing"),
    ],
    ids=["image", "category", "string", "fraction", "missing"],
)
def test_e3_unknown_ids_are_listed(edit: Edit, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_coco(results_with(edit), TRUTH)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "high", None, True, 10**400])
def test_e4_a_score_that_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(DataError, match=r"score is .*, expected a finite number"):
        evaluate_coco(results_with(lambda r: r.update(score=value)), TRUTH)


@pytest.mark.parametrize(
    "box", [[1, 2, 3], [1, 2, float("nan"), 4], [1, 2, -3, 4], "box", [1, 2, 3, "4 px"], [1e12] * 4]
)
def test_e4_a_box_that_is_none_is_refused(box: object) -> None:
    with pytest.raises(DataError, match="bbox is"):
        evaluate_coco(results_with(lambda r: r.update(bbox=box)), TRUTH)


def test_e5_boxes_that_look_like_corners_are_pointed_out() -> None:
    results = [
        {**r, "bbox": [r["bbox"][0], r["bbox"][1], 70, 50], "segmentation": None} for r in RESULTS
    ]
    warnings = evaluate_coco(results, TRUTH).warnings
    assert any("are they [x1, y1, x2, y2]" in warning for warning in warnings)


def test_e6_a_mask_of_another_size_is_refused_with_both_sizes() -> None:
    wrong = {"size": [60, 40], "counts": rle.encode([2400]).decode()}
    with pytest.raises(DataError, match=r"mask size is \[60, 40\], the image is \[40, 60\]"):
        evaluate_coco(results_with(lambda r: r.update(segmentation=wrong)), TRUTH)


def test_e7_a_wrong_width_in_images_is_refused() -> None:
    with pytest.raises(DataError, match=r"the image is \[40, 61\]"):
        evaluate_coco(RESULTS, truth_with(lambda d: d["images"][0].update(width=61)))


def test_e8_missing_crowd_flags_and_areas_are_filled_in_and_stated() -> None:
    def strip(document: dict) -> None:
        for annotation in document["annotations"]:
            del annotation["iscrowd"], annotation["area"]

    report = evaluate_coco(RESULTS, truth_with(strip))
    whole = evaluate_coco(RESULTS, TRUTH)
    assert report.segm.to_json() == whole.segm.to_json()
    assert "2 annotations have no iscrowd: taken as 0." in report.warnings
    assert any("2 annotations have no area" in warning for warning in report.warnings)


def test_e9_an_area_beyond_every_range_is_undefined() -> None:
    report = evaluate_coco(
        RESULTS, truth_with(lambda d: [a.update(area=2e10) for a in d["annotations"]])
    )
    assert report.segm.ap is None


def test_e10_ties_are_ordered_by_content_and_stated() -> None:
    near = {
        **copy.deepcopy(RESULTS[0]),
        "bbox": [30, 20, 9, 9],
        "segmentation": block(30, 20, 9, 9),
    }
    one = evaluate_coco([*RESULTS, near], TRUTH)
    other = evaluate_coco([near, *RESULTS], TRUTH)
    assert one.to_json() == other.to_json()
    assert any("2 detections share their score" in warning for warning in one.warnings)


def test_e11_images_without_results_are_counted() -> None:
    assert "Images without results: 1 of 2." in evaluate_coco(RESULTS[:1], TRUTH).warnings


def test_e12_two_evaluations_of_one_document_agree() -> None:
    truth = copy.deepcopy(TRUTH)
    assert evaluate_coco(RESULTS, truth).to_json() == evaluate_coco(RESULTS, truth).to_json()


def test_e13_boxes_are_never_scored_as_masks() -> None:
    boxes = [{k: v for k, v in r.items() if k != "segmentation"} for r in RESULTS]
    with pytest.raises(DataError, match="2 of 2 results have no segmentation"):
        evaluate_coco(boxes, TRUTH, iou_types=("segm",))
    report = evaluate_coco(boxes, TRUTH)
    assert report.segm is None
    assert report.bbox.ap == pytest.approx(1.0)
    assert any("there is no segm AP" in warning for warning in report.warnings)


def test_e13_annotations_without_masks_have_no_mask_ap() -> None:
    for spelling in ({}, {"segmentation": []}, {"segmentation": None}):
        truth = copy.deepcopy(TRUTH)
        for annotation in truth["annotations"]:
            del annotation["segmentation"]
            annotation.update(spelling)
        report = evaluate_coco(RESULTS, truth)
        assert report.segm is None
        assert report.bbox.ap == pytest.approx(1.0)


def test_e14_classes_without_annotations_are_said_to_cost_nothing() -> None:
    stray = {**RESULTS[0], "category_id": 2}
    truth = truth_with(lambda d: d["annotations"].pop())
    warnings = evaluate_coco([RESULTS[0], stray], truth).warnings
    assert any("have no annotation: 1 (dog)" in warning for warning in warnings)


# --- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("hello", "starts with b'hello'"),
        ("[1, 2", "not valid JSON"),
        ("[" * 100_000 + "]" * 100_000, "brackets nest hundreds deep"),
        ('[{"image_id": ' + "[" * 5000, "brackets nest hundreds deep"),
        ("[1,]", "not valid JSON"),
    ],
    ids=["empty", "text", "cut", "deep", "deep-inside", "comma"],
)
def test_json_that_would_be_misread_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_json(path)


def test_limits_hold_before_memory_is_spent(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("[" + "[]," * 1000 + "[]]")
    with pytest.raises(DataError, match="more bytes than the limit of 100"):
        load_json(path, limits=JsonLimits(max_bytes=100))
    with pytest.raises(DataError, match="GiB of memory"):
        load_json(path, limits=JsonLimits(max_memory=1000))


MANY = [
    {**RESULTS[n % 2], "score": ((7 * n) % 40) / 40, "note": "}, {", "parts": [{"a": 1}, {"b": 2}]}
    for n in range(40)
]


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_document, "_PIECE", 97)


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}, {"indent": 2}])
def test_a_file_read_in_pieces_says_what_its_list_says(style: dict, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(MANY, **style))
    with json_document.opened(path) as source:
        pieces = list(source.pieces())
    assert len(pieces) > 5
    truth = read_annotations(TRUTH)
    read, listed = read_predictions(path, truth), read_predictions(MANY, truth)
    for column in ("record", "image_index", "category_index", "scores", "boxes_xywh", "has_box"):
        np.testing.assert_array_equal(getattr(read, column), getattr(listed, column))
    assert read.notes == listed.notes
    order = sorted(range(40), key=lambda n: (n % 2, -MANY[n]["score"]))
    assert read.record.tolist() == order
    for row, record in enumerate(order):
        assert read.masks.rle(row) == MANY[record]["segmentation"]
    assert read.masks.areas.tolist() == [(200, 600)[record % 2] for record in order]


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize("with_mask", [{0}, {39}, {17, 18, 30}, set()])
def test_masks_stay_with_their_results_where_few_have_one(with_mask: set, tmp_path: Path) -> None:
    results = [
        {k: v for k, v in record.items() if k != "segmentation" or n in with_mask}
        for n, record in enumerate(MANY)
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    read = read_predictions(path, read_annotations(TRUTH))
    assert sorted(read.record.tolist()) == list(range(40))
    for row, record in enumerate(read.record.tolist()):
        assert read.masks.present[row] == (record in with_mask)
        text = MANY[record]["segmentation"]["counts"] if record in with_mask else ""
        assert read.masks.text(row) == text
        assert read.masks.areas[row] == ((200, 600)[record % 2] if text else 0)
        assert read.scores[row] == MANY[record]["score"]


@pytest.mark.usefixtures("short_pieces")
def test_a_file_in_pieces_names_every_fault_at_once(tmp_path: Path) -> None:
    results = [{**record, "image_id": str(record["image_id"])} for record in MANY]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    truth = read_annotations(TRUTH)
    assert "40 results: image_id written as text." in read_predictions(path, truth).notes
    results[3]["score"] = results[38]["score"] = "high"
    path.write_text(json.dumps(results))
    with pytest.raises(DataError, match=r"2 problems\n  result 3 .*\n  result 38 "):
        read_predictions(path, truth)
    for end, message in (("]", "not valid JSON"), (" x", "not valid JSON"), ("", "not valid JSON")):
        path.write_text(json.dumps(MANY)[: -1 if not end else None] + end)
        with pytest.raises(DataError, match=message):
            read_predictions(path, truth)


# --- annotations and masks ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["images"][0].update(height=0), r"images\[0\]: height is 0"),
        (lambda d: d["images"][0].update(id=2), "image id 2: stands 2 times"),
        (lambda d: d["categories"][0].update(id=2), "category id 2: stands 2 times"),
        (lambda d: d["annotations"][0].update(image_id=9), "image_id 9 is not in images"),
        (lambda d: d["annotations"][0].update(category_id=9), "category_id 9 is not in categories"),
        (lambda d: d["annotations"][0].update(iscrowd=2), "iscrowd is 2, expected 0 or 1"),
        (lambda d: d["annotations"][0].update(area=-1), "area is -1"),
        (lambda d: d["annotations"].append(5), r"annotations\[2\]: is 5, expected an object"),
        (lambda d: d.pop("images"), "images is missing, expected a list"),
        (lambda d: d["images"][0].update(height=65_536), "height is 65536, .* 1 to 65535"),
    ],
)
def test_faulty_annotations_are_named(edit: Edit, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_annotations(truth_with(edit))


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3, 4]], "polygon has 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "polygon has 7 numbers"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "more than 4 times the image"),
        ([[0, 0, float("nan"), 0, 5, 5]], "not finite"),
        ([["a"] * 6], "polygon is"),
        ([[-230, -150, 230, 150] * 99], "more than any outline"),
        ({"size": [40, 60], "counts": "zzz{}"}, "not COCO's compressed form"),
        ({"size": [40, 60], "counts": "5"}, "RLE runs sum to 5"),
        (
            {"size": [40, 60], "counts": [2300, 200, -100]},
            r"RLE runs sum to 2400 \(smallest -100\)",
        ),
        ({"size": [40, 60], "counts": [10, 10]}, "RLE runs sum to 20"),
        ({"size": [40, 60], "counts": None}, "RLE counts are None"),
        ({"size": [40, 60], "counts": []}, "or run lengths of at least 0"),
        ({"size": [40, 60], "counts": "é"}, "RLE counts are"),
        ({"counts": "5"}, "mask size is None"),
        ("mask", "segmentation is 'mask'"),
    ],
)
def test_faulty_masks_never_reach_compiled_code(segmentation: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_coco(results_with(lambda r: r.update(segmentation=segmentation)), TRUTH)
    with pytest.raises(DataError, match=message):
        read_annotations(
            truth_with(lambda d: d["annotations"][0].update(segmentation=segmentation))
        )


def test_polygons_become_pycocotools_masks(make_set: Callable[..., tuple]) -> None:
    compared = 0
    for seed in range(20):
        truth, _ = make_set(seed)
        table = read_annotations(truth)
        sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
        for row, annotation in enumerate(truth["annotations"]):
            if isinstance(annotation["segmentation"], list):
                pieces = mask_api.frPyObjects(
                    annotation["segmentation"], *sizes[annotation["image_id"]]
                )
                expected = mask_api.decode(mask_api.merge(pieces)).astype(bool)
                np.testing.assert_array_equal(table.masks.pixels(row), expected)
                compared += 1
    assert compared > 50


def test_plain_and_compressed_run_lengths_are_the_same_mask() -> None:
    plain = results_with(
        lambda r: r.update(segmentation={"size": [40, 60], "counts": [205, 10, 2185]})
    )
    data = rle.encode([205, 10, 2185]).decode()
    coded = results_with(lambda r: r.update(segmentation={"size": [40, 60], "counts": data}))
    truth = read_annotations(copy.deepcopy(TRUTH))
    masks = [read_predictions(results, truth).masks for results in (plain, coded)]
    assert masks[0].text(0) == masks[1].text(0)


def test_boxes_are_taken_from_masks_where_there_are_none() -> None:
    results = [{k: v for k, v in r.items() if k != "bbox"} for r in RESULTS]
    report = evaluate_coco(results, TRUTH)
    assert report.bbox.ap == pytest.approx(1.0)
    assert "2 detections have no bbox: computed from the mask." not in report.warnings


def test_all_problems_of_a_file_come_at_once_and_the_rest_is_counted() -> None:
    results = [{**RESULTS[0], "score": "high"} for _ in range(30)]
    with pytest.raises(DataError) as caught:
        evaluate_coco(results, TRUTH)
    lines = str(caught.value).splitlines()
    assert lines[0] == "predictions: 30 problems"
    assert lines[-1].strip() == "... and 10 more"
    assert len(lines) == 22


def test_messages_hold_no_control_characters() -> None:
    with pytest.raises(DataError) as caught:
        evaluate_coco(results_with(lambda r: r.update(image_id="\x1b[31m\u202eevil\n")), TRUTH)
    assert str(caught.value).isascii()
    assert "\x1b" not in str(caught.value)


def test_numpy_numbers_are_numbers() -> None:
    results = results_with(
        lambda r: r.update(
            image_id=np.int64(1), score=np.float32(0.9), bbox=[np.float64(v) for v in r["bbox"]]
        )
    )
    assert evaluate_coco(results, TRUTH).segm.ap == pytest.approx(1.0)
