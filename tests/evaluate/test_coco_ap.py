"""COCO AP: both backends equal plain pycocotools, and nothing depends on the order of files."""

import contextlib
import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxdepth.evaluate import CocoReport, DataError, evaluate_coco
from boxdepth.evaluate.results import read_annotations, read_predictions

SETS, SHUFFLES = 200, 100
BLOCKS = 10


def plain_pycocotools(truth: dict, results: list[dict], shape: str) -> list[float]:
    """The twelve numbers by pycocotools, as its own documentation says."""
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO()
        expected.dataset = copy.deepcopy(truth)
        expected.createIndex()
        keys = ("image_id", "category_id", "score", "bbox" if shape == "bbox" else "segmentation")
        found = expected.loadRes([{key: r[key] for key in keys} for r in copy.deepcopy(results)])
        run = COCOeval(expected, found, shape)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats.tolist()


def twelve(report: CocoReport, shape: str) -> list[float]:
    numbers = getattr(report, shape).to_json()
    numbers.pop("per_class")
    return [-1.0 if value is None else value for value in numbers.values()]


def in_canonical_order(truth: dict, results: list[dict]) -> list[dict]:
    """The results in the order that is documented: image, falling score, box, class, mask."""
    table = read_predictions(results, read_annotations(copy.deepcopy(truth)))
    return [results[row] for row in table.record]


@pytest.mark.parametrize("block", range(BLOCKS))
def test_two_hundred_random_sets_score_as_in_pycocotools(
    block: int, make_set: Callable[..., tuple]
) -> None:
    for seed in range(block * SETS // BLOCKS, (block + 1) * SETS // BLOCKS):
        truth, results = make_set(seed, images=2 + seed % 4)
        if not results or not truth["annotations"]:
            continue
        ordered = in_canonical_order(truth, results)
        backends = ("fast", "pycocotools") if seed % 4 == 0 else ("fast",)
        reports = {b: evaluate_coco(results, truth, backend=b) for b in backends}
        for shape in ("segm", "bbox"):
            plain = plain_pycocotools(truth, ordered, shape)
            for backend, report in reports.items():
                assert twelve(report, shape) == pytest.approx(plain, abs=1e-12), (seed, backend)


def test_nothing_depends_on_the_order_of_results_images_and_annotations(
    make_set: Callable[..., tuple],
) -> None:
    truth, results = make_set(8, images=3, classes=2)
    whole = evaluate_coco(results, truth).to_json()
    rng = np.random.default_rng(0)
    for _ in range(SHUFFLES):
        for items in (results, truth["images"], truth["annotations"], truth["categories"]):
            rng.shuffle(items)
        assert evaluate_coco(results, truth).to_json() == whole


def test_per_class_numbers_are_those_of_the_class_alone(small_set: tuple) -> None:
    truth, results = small_set
    report = evaluate_coco(results, truth)
    for category in truth["categories"]:
        chosen = [r for r in results if r["category_id"] == category["id"]]
        part = {
            **truth,
            "annotations": [a for a in truth["annotations"] if a["category_id"] == category["id"]],
        }
        if chosen and part["annotations"]:
            alone = evaluate_coco(chosen, part)
            assert report.segm.per_class[category["name"]].ap == pytest.approx(alone.segm.ap)


def test_perfect_results_score_one(small_set: tuple) -> None:
    truth, _ = small_set
    real = [a for a in truth["annotations"] if not a["iscrowd"]]
    results = [{**a, "score": 0.5} for a in real]
    report = evaluate_coco(results, truth)
    assert report.segm.ap == pytest.approx(1.0)
    assert report.bbox.ap == pytest.approx(1.0)


def test_sizes_without_annotations_are_undefined_not_minus_one() -> None:
    truth = {
        "images": [{"id": 1, "height": 50, "width": 50}],
        "categories": [{"id": 1, "name": "dot"}, {"id": 2, "name": "absent"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [1, 1, 9, 9],
                "area": 81,
                "iscrowd": 0,
            }
        ],
    }
    results = [{"image_id": 1, "category_id": 1, "score": 1.0, "bbox": [1, 1, 9, 9]}]
    report = evaluate_coco(results, truth, iou_types=("bbox",))
    assert report.bbox.ap_small == pytest.approx(1.0)
    assert report.bbox.ap_medium is None
    assert report.bbox.ap_large is None
    assert report.bbox.per_class["absent"].ap is None
    assert report.to_json()["bbox"]["ap_large"] is None


def test_an_area_of_exactly_1024_is_small_and_medium() -> None:
    truth = {
        "images": [{"id": 1, "height": 50, "width": 50}],
        "categories": [{"id": 1, "name": "tile"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 32, 32]}],
    }
    results = [{"image_id": 1, "category_id": 1, "score": 1.0, "bbox": [0, 0, 32, 32]}]
    report = evaluate_coco(results, truth, iou_types=("bbox",))
    assert report.bbox.ap_small == report.bbox.ap_medium == pytest.approx(1.0)


def test_the_given_documents_are_left_as_they_are(small_set: tuple) -> None:
    truth, results = small_set
    before = copy.deepcopy((truth, results))
    for backend in ("fast", "pycocotools"):
        evaluate_coco(results, truth, backend=backend)
        assert (truth, results) == before


def test_json_has_the_keys_of_the_contract(small_set: tuple) -> None:
    truth, results = small_set
    report = evaluate_coco(results, truth).to_json()
    assert list(report) == [
        "protocol", "backend", "backend_version", "version", "segm", "bbox", "images",
        "predictions", "warnings",
    ]  # fmt: skip
    numbers = {"ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_100", "per_class"}
    assert numbers <= report["segm"].keys()
    json.dumps(report, allow_nan=False)


def ultrafast(truth: dict, results: list[dict], shape: str) -> list[float]:
    """The twelve numbers by a third implementation, with masks' own areas as ours."""
    from ultrafast_pycocotools.coco import COCO as Other
    from ultrafast_pycocotools.cocoeval import COCOeval as OtherEval

    expected = Other(copy.deepcopy(truth), verbose=False)
    keys = ("image_id", "category_id", "score", "bbox" if shape == "bbox" else "segmentation")
    found = expected.loadRes([{key: r[key] for key in keys} for r in copy.deepcopy(results)])
    run = OtherEval(expected, found, shape, print_function=lambda *_: None)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return list(run.stats)


@pytest.mark.parametrize("shape", ["bbox", "segm", "boundary"])
def test_a_third_implementation_agrees(shape: str, make_set: Callable[..., tuple]) -> None:
    for seed in range(40):
        truth, results = make_set(seed, images=3)
        if not results or not truth["annotations"]:
            continue
        report = evaluate_coco(results, truth, iou_types=(shape,))
        theirs = ultrafast(truth, in_canonical_order(truth, results), shape)
        assert twelve(report, shape) == pytest.approx(theirs, abs=1e-12), seed


def renumbered(truth: dict, results: list[dict], spaces: dict[str, Any]) -> tuple:
    """A copy with other ids of images, annotations and categories: old id to new one."""
    truth, results = copy.deepcopy((truth, results))
    for table, new in spaces.items():
        for record in truth[table]:
            record["id"] = new(record["id"])
    for record in (*truth["annotations"], *results):
        record["image_id"] = spaces["images"](record["image_id"])
        record["category_id"] = spaces["categories"](record["category_id"])
    return truth, results


ID_SPACES: dict[str, dict[str, Any]] = {
    "about 2^31": dict.fromkeys(("images", "annotations", "categories"), lambda i: i + 2**31 - 20),
    "below 2^53": dict.fromkeys(("images", "annotations", "categories"), lambda i: i + 2**53 - 600),
    "LVIS": {
        "images": lambda i: 581_929 - 31 * i,
        "annotations": lambda i: 1_270_141 - i,
        "categories": lambda i: 1203 - 50 * i,
    },
}


@pytest.mark.parametrize("space", ID_SPACES)
def test_ids_of_any_size_score_as_in_pycocotools(
    space: str, make_set: Callable[..., tuple]
) -> None:
    for seed in (3, 5, 8):
        truth, results = renumbered(*make_set(seed, images=4), ID_SPACES[space])
        if space == "LVIS":  # among 1,203 classes
            known = {category["id"] for category in truth["categories"]}
            truth["categories"] += [
                {"id": k, "name": f"{k}"} for k in range(1, 1204) if k not in known
            ]
        ordered = in_canonical_order(truth, results)
        for backend in ("fast", "pycocotools"):
            report = evaluate_coco(results, truth, backend=backend)
            for shape in ("segm", "bbox"):
                plain = plain_pycocotools(truth, ordered, shape)
                assert twelve(report, shape) == pytest.approx(plain, abs=1e-12), (seed, backend)


def test_boundary_ap_is_at_most_mask_ap_for_shifted_masks(small_set: tuple) -> None:
    truth, results = small_set
    both = evaluate_coco(results, truth, iou_types=("segm", "boundary"))
    assert both.boundary.ap <= both.segm.ap


def test_precision_recall_data_averages_to_ap(small_set: tuple) -> None:
    truth, results = small_set
    summary = evaluate_coco(results, truth).segm
    curves = summary.precision_recall()
    assert np.shape(curves["all"]) == (10, 101)
    assert np.mean(curves["all"]) == pytest.approx(summary.ap)


def test_annotations_exchanged_with_results_are_recognised(
    small_set: tuple, tmp_path: Path
) -> None:
    truth, results = small_set
    paths = tmp_path / "predictions.json", tmp_path / "annotations.json"
    for path, document in zip(paths, (results, truth), strict=True):
        path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="these look like results"):
        evaluate_coco(paths[1], paths[0])
