"""`check` and the faults of exporters: each is named, cured, and has its AP after the cure."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_api

from boxdepth.evaluate import check, evaluate_coco
from boxdepth.evaluate.check.cures import COCO_IDS

Document = dict[str, Any]
HEIGHT, WIDTH = 60, 100


def encoded(mask: np.ndarray) -> Document:
    coded = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": coded["counts"].decode()}


def ellipse(rng: np.random.Generator) -> np.ndarray:
    y, x = rng.uniform(20, HEIGHT - 20), rng.uniform(20, WIDTH - 20)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return ((rows - y) / rng.uniform(6, 16)) ** 2 + ((columns - x) / rng.uniform(6, 18)) ** 2 < 1


def a_set(classes: tuple[int, ...] = (1, 2, 3), *, polygons: bool = False) -> tuple[Document, list]:
    """Twelve images of three objects, all found exactly."""
    rng = np.random.default_rng(7)
    truth: Document = {
        "images": [
            {"id": 100 + n, "height": HEIGHT, "width": WIDTH, "file_name": f"photo {n}.jpg"}
            for n in range(12)
        ],
        "categories": [{"id": k, "name": f"class {k}"} for k in classes],
        "annotations": [],
    }
    for image in truth["images"]:
        for k in range(3):
            mask = ellipse(rng)
            shape: Any = encoded(mask)
            if polygons:
                corners = rng.uniform(0, 1, 2) * (WIDTH - 9, HEIGHT - 9)
                side = rng.uniform(6, 9, 2)
                (x, y), (w, h) = corners, side
                shape = [[x, y, x + w, y, x + w, y + h, x, y + h]]
                mask = mask_api.decode(mask_api.frPyObjects(shape, HEIGHT, WIDTH)[0]).astype(bool)
            coded = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "image_id": image["id"], "iscrowd": 0,
                "category_id": classes[(k * 5 + image["id"]) % len(classes)],
                "bbox": mask_api.toBbox(coded).tolist(), "area": float(mask_api.area(coded)),
                "segmentation": shape,
            })  # fmt: skip
    keys = ("image_id", "category_id", "bbox", "segmentation")
    results = [
        {**{k: a[k] for k in keys}, "score": 0.99 - 0.01 * n}
        for n, a in enumerate(truth["annotations"])
    ]
    return truth, copy.deepcopy(results)


def spoilt(records: list[Document], change: Callable[[Document], Document]) -> None:
    for record in records:
        record.update(change(record))


def shape_of(record: Document) -> np.ndarray:
    return mask_api.decode(record["segmentation"]).astype(bool)


def by_rows(record: Document) -> Document:
    flat = np.concatenate(([0], shape_of(record).reshape(-1), [0]))
    edges = np.flatnonzero(np.diff(flat))
    runs = np.diff(np.concatenate(([0], edges, [HEIGHT * WIDTH]))).tolist()
    return {"segmentation": {"size": [HEIGHT, WIDTH], "counts": runs}}


def literal(record: Document) -> Document:
    mask = record["segmentation"]
    return {"segmentation": {**mask, "counts": str(mask["counts"].encode())}}


def turned(record: Document, quarters: int) -> Document:
    """As a network sees a picture that a reader has turned by its EXIF tag."""
    mask = np.rot90(shape_of(record), -quarters)
    coded = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"segmentation": encoded(mask), "bbox": mask_api.toBbox(coded).tolist()}


FAULTS: dict[str, tuple[Callable[[Document], Document], str]] = {
    "images from 0": (lambda r: {"image_id": r["image_id"] - 100}, "count 0, 1, 2"),
    "images from 1": (lambda r: {"image_id": r["image_id"] - 99}, "count 1, 2, 3"),
    "images one less": (lambda r: {"image_id": r["image_id"] - 1}, "image ids are one too small"),
    "classes one less": (
        lambda r: {"category_id": r["category_id"] - 1}, "category ids are one too small",
    ),
    "normalised boxes": (
        lambda r: {"bbox": (np.array(r["bbox"]) / [WIDTH, HEIGHT, WIDTH, HEIGHT]).tolist()},
        "boxes are fractions",
    ),
    "bytes literal": (literal, "bytes literal"),
    "rows first": (by_rows, "go along rows"),
    "transposed": (lambda r: {"segmentation": encoded(shape_of(r).T)}, "transposed"),
    "network size": (
        lambda r: {"segmentation": encoded(shape_of(r).repeat(2, axis=0).repeat(2, axis=1))},
        "not of their image's size",
    ),
    "turned left": (lambda r: turned(r, 1), "counterclockwise"),
    "turned right": (lambda r: turned(r, 3), "quarter clockwise"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_results_is_named_and_cured(fault: str) -> None:
    truth, results = a_set()
    change, words = FAULTS[fault]
    spoilt(results, change)
    report = check(results, truth)
    assert not report.is_sound
    assert words in report.findings[0].problem
    assert report.findings[-1].ap_after["segm"] == pytest.approx(1.0)
    assert report.findings[-1].ap_after["bbox"] == pytest.approx(1.0)


ANNOTATION_FAULTS: dict[str, tuple[Callable[[Document], Document], str]] = {
    "all crowds": (lambda a: {"iscrowd": 1}, "every annotation is a crowd region"),
    "one id for all": (lambda a: {"id": 1 + a["id"] % 7}, "annotation ids stand more than once"),
    "bytes literal": (literal, "bytes literal"),
    "rows first": (by_rows, "go along rows"),
    "normalised boxes": (
        lambda a: {"bbox": (np.array(a["bbox"]) / [WIDTH, HEIGHT, WIDTH, HEIGHT]).tolist()},
        "boxes are fractions",
    ),
}


@pytest.mark.parametrize("fault", ANNOTATION_FAULTS)
def test_a_fault_of_annotations_is_named_and_cured(fault: str) -> None:
    truth, results = a_set()
    change, words = ANNOTATION_FAULTS[fault]
    spoilt(truth["annotations"], change)
    before = copy.deepcopy(truth)
    report = check(results, truth)
    assert truth == before
    assert not report.is_sound
    assert report.findings[0].problem.startswith("annotations: ")
    assert words in report.findings[0].problem
    assert report.findings[-1].ap_after["segm"] == pytest.approx(1.0)
    assert report.findings[-1].ap_after["bbox"] == pytest.approx(1.0)


def test_sizes_that_an_exif_tag_turned_are_exchanged_back() -> None:
    truth, results = a_set()
    for image in truth["images"]:
        image["height"], image["width"] = image["width"], image["height"]
    report = check(results, truth)
    assert report.error is not None
    assert "height and width of images are exchanged" in report.findings[0].problem
    assert report.findings[-1].ap_after["segm"] == pytest.approx(1.0)


@pytest.mark.parametrize("spelling", [str, lambda number: f"{number}.0"])
def test_ids_that_are_text_are_read_and_pointed_out(spelling: Callable[[int], str]) -> None:
    truth, results = a_set()
    spoilt(results, lambda r: {"image_id": spelling(r["image_id"])})
    report = check(results, truth)
    assert report.is_sound
    finding = report.findings[0]
    assert finding.is_mended
    assert "36 results: image_id written as text" in finding.problem
    assert finding.ap_after["segm"] == pytest.approx(1.0)


def test_a_root_class_that_the_results_leave_out_is_found() -> None:
    truth, results = a_set(classes=(1, 2, 3))
    truth["categories"].insert(0, {"id": 0, "name": "class 1"})  # Roboflow's project
    spoilt(results, lambda r: {"category_id": r["category_id"] - 1})
    report = check(results, truth)
    assert report.findings[0].ap_after["segm"] == pytest.approx(1.0)
    assert "one too small" in report.findings[0].problem
    truth["categories"].append({"id": 4, "name": "never annotated"})
    spoilt(truth["annotations"], lambda a: {"category_id": {1: 1, 2: 2, 3: 4}[a["category_id"]]})
    report = check(results, truth)
    assert "(Roboflow's root)" in report.findings[0].problem
    assert report.findings[0].ap_after["segm"] == pytest.approx(1.0)


def test_cocos_two_numberings_are_told_apart() -> None:
    ninety = dict(enumerate(COCO_IDS, start=1))
    eighty = {number: place for place, number in ninety.items()}
    truth, results = a_set(classes=COCO_IDS)
    spoilt(results, lambda r: {"category_id": eighty[r["category_id"]]})
    report = check(results, truth)
    assert "count from 1 without gaps" in report.findings[0].problem
    assert report.findings[0].ap_after["segm"] == pytest.approx(1.0)
    truth, results = a_set(classes=tuple(range(1, 81)))
    spoilt(results, lambda r: {"category_id": ninety[r["category_id"]]})
    report = check(results, truth)
    assert "gaps to 90" in report.findings[0].problem
    assert report.findings[0].ap_after["segm"] == pytest.approx(1.0)


def test_polygons_that_were_cut_are_fitted_to_their_boxes() -> None:
    truth, results = a_set(polygons=True)
    for record in results:
        corners = np.array(record["segmentation"][0]).reshape(-1, 2)
        low, high = corners.min(axis=0), corners.max(axis=0)
        record["bbox"] = [*low.tolist(), *(high - low).tolist()]
        record["segmentation"] = [corners.astype(int).reshape(-1).tolist()]
    report = check(results, truth)
    assert "cut to whole numbers" in report.findings[0].problem
    assert report.ap["segm"] < 0.7
    assert report.findings[0].ap_after["segm"] > 0.95
    for record in results:
        del record["bbox"]  # nothing is left to fit them to, but it is said
    report = check(results, truth)
    assert any("All polygons of the results are whole numbers" in note for note in report.notes)


def test_normalised_polygons_are_found() -> None:
    truth, results = a_set(polygons=True)
    for record in results:
        points = np.array(record["segmentation"][0]).reshape(-1, 2) / [WIDTH, HEIGHT]
        record["segmentation"] = [points.reshape(-1).tolist()]
    report = check(results, truth)
    assert "polygons are fractions" in report.findings[0].problem
    assert report.findings[0].ap_after["segm"] == pytest.approx(1.0)


def test_faults_of_both_files_are_cured_together() -> None:
    truth, results = a_set()
    spoilt(truth["annotations"], lambda a: {"iscrowd": 1})
    spoilt(results, lambda r: {"category_id": r["category_id"] - 1})
    report = check(results, truth)
    assert len(report.findings) == 2
    assert report.findings[-1].ap_after["segm"] == pytest.approx(1.0)


def test_good_files_have_no_findings() -> None:
    for polygons in (False, True):
        truth, results = a_set(polygons=polygons)
        report = check(results, truth)
        assert report.is_sound
        assert report.findings == ()
        assert report.ap["segm"] == evaluate_coco(results, truth).segm.ap
