"""`evaluate check`: each usual mistake is named and cured, and the AP after it is the true one."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from boxdepth.evaluate import evaluate_coco
from boxdepth.evaluate.check import check
from boxdepth.evaluate.results import rle

Spoil = Callable[[dict, dict], Any]


@pytest.fixture(scope="module")
def good_set(make_set: Callable[..., tuple]) -> tuple[dict, list[dict]]:
    truth, _ = make_set(12, images=8, classes=3)
    for image in truth["images"]:
        image["file_name"] = f"{1000 + image['id']:012d}.jpg"
    results = [
        {**{k: a[k] for k in ("image_id", "category_id", "bbox", "segmentation")},
         "score": round(0.99 - 0.01 * n, 2)}
        for n, a in enumerate(a for a in truth["annotations"] if not a["iscrowd"])
    ]  # fmt: skip
    return truth, results


def corners(record: dict) -> list[float]:
    x, y, w, h = record["bbox"]
    return [x, y, x + w, y + h]


def size_of(truth: dict, record: dict) -> tuple[int, int]:
    image = next(i for i in truth["images"] if i["id"] == record["image_id"])
    return image["height"], image["width"]


def yolo(truth: dict, record: dict) -> list[float]:
    (height, width), (x, y, w, h) = size_of(truth, record), record["bbox"]
    return [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]


def name_of(truth: dict, image_id: int) -> str:
    return next(i["file_name"] for i in truth["images"] if i["id"] == image_id)


def index_of(truth: dict, category_id: int) -> int:
    return [c["id"] for c in truth["categories"]].index(category_id)


MISTAKES: dict[str, tuple[Spoil, str]] = {
    "file names": (lambda t, r: r.update(image_id=name_of(t, r["image_id"])), "file names"),
    "numbers in file names": (lambda t, r: r.update(image_id=1000 + r["image_id"]), "file names"),
    "image order": (
        lambda t, r: r.update(image_id=[i["id"] for i in t["images"]].index(r["image_id"])),
        "image ids count 0, 1, 2",
    ),
    "one too small": (lambda t, r: r.update(category_id=r["category_id"] - 1), "one too small"),
    "one too large": (lambda t, r: r.update(category_id=r["category_id"] + 1), "one too large"),
    "from 0": (lambda t, r: r.update(category_id=index_of(t, r["category_id"])), "count from 0"),
    "from 1": (
        lambda t, r: r.update(category_id=index_of(t, r["category_id"]) + 1), "count from 1",
    ),
    "other ids, same names": (
        lambda t, r: r.update(
            category_name=t["categories"][index_of(t, r["category_id"])]["name"].upper(),
            category_id=t["categories"][-1 - index_of(t, r["category_id"])]["id"],
        ),
        "the names agree",
    ),
    "corners": (lambda t, r: r.update(bbox=corners(r)), r"corners [x1, y1, x2, y2]"),
    "yolo": (lambda t, r: r.update(bbox=yolo(t, r)), "YOLO"),
    "half size masks": (
        lambda t, r: r.update(segmentation=half_size(size_of(t, r), r["segmentation"])),
        "masks are not of their image's size",
    ),
}  # fmt: skip


def half_size(size: tuple[int, int], segmentation: Any) -> dict:
    from pycocotools import mask as mask_api

    coded = segmentation
    if isinstance(segmentation, list):
        coded = mask_api.merge(mask_api.frPyObjects(segmentation, *size))
    mask = mask_api.decode(coded)[::2, ::2].astype(bool)
    return {"size": list(mask.shape), "counts": rle.encode(rle.from_mask(mask)).decode()}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_and_cured(mistake: str, good_set: tuple) -> None:
    truth, results = copy.deepcopy(good_set)
    spoil, words = MISTAKES[mistake]
    for record in results:
        spoil(truth, record)
    report = check(results, truth)
    assert not report.is_sound
    assert words in report.findings[0].problem
    after = report.findings[-1].ap_after
    assert after["bbox"] == pytest.approx(1.0)
    assert after["segm"] > 0.5 if mistake == "half size masks" else after["segm"] == 1.0


def test_two_mistakes_at_once_are_both_found(good_set: tuple) -> None:
    truth, results = copy.deepcopy(good_set)
    for record in results:
        record.update(category_id=index_of(truth, record["category_id"]), bbox=corners(record))
        del record["segmentation"]
    report = check(results, truth)
    assert len(report.findings) == 2
    assert report.findings[-1].ap_after == {"bbox": pytest.approx(1.0)}


def test_sound_results_are_left_alone(good_set: tuple) -> None:
    truth, results = copy.deepcopy(good_set)
    report = check(results, truth)
    assert report.is_sound
    assert report.ap["segm"] == evaluate_coco(results, truth).segm.ap


def test_results_that_stand_twice_are_found(good_set: tuple) -> None:
    truth, results = copy.deepcopy(good_set)
    noise = [{**r, "category_id": truth["categories"][0]["id"]} for r in results]
    report = check([*results, *noise, *results, *noise], truth)
    assert any("several times" in finding.problem for finding in report.findings)


def test_wrong_classes_in_right_places_show_in_class_agnostic_ap(good_set: tuple) -> None:
    truth, results = copy.deepcopy(good_set)
    for record in results:
        record["category_id"] = truth["categories"][0]["id"]
    report = check(results, truth)
    assert report.class_agnostic_ap == pytest.approx(1.0)
    assert report.ap["bbox"] < 0.6


def test_partial_results_get_an_ap_of_their_own_images(good_set: tuple) -> None:
    truth, results = copy.deepcopy(good_set)
    kept = results[0]["image_id"]
    report = check([r for r in results if r["image_id"] == kept], truth)
    assert any("over the 1 images that have results: 100.0%" in note for note in report.notes)


def test_a_whole_coco_document_can_stand_for_results(good_set: tuple) -> None:
    truth, results = copy.deepcopy(good_set)
    shuffled = {c["id"]: (k + 1, c["name"]) for k, c in enumerate(reversed(truth["categories"]))}
    document = {
        "categories": [{"id": k, "name": name} for k, name in shuffled.values()],
        "annotations": [{**r, "category_id": shuffled[r["category_id"]][0]} for r in results],
    }
    from boxdepth.evaluate.check.case import with_names

    report = check(with_names(document), truth)
    assert report.findings[-1].ap_after["bbox"] == pytest.approx(1.0)
