"""Measures beside AP, against slow loops written from their definitions and public libraries."""

import csv
import io
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api
from scipy import ndimage
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve

from boxdepth.evaluate import evaluate_coco
from boxdepth.evaluate.coco_ap.matching import match
from boxdepth.evaluate.measures import Measures, best_point, calibrate, measure
from boxdepth.evaluate.measures.slices import by_depth, by_overlap, by_size, measure_slices
from boxdepth.evaluate.results import GroundTruth, Predictions, read_annotations, read_predictions

SEEDS = range(12)


def tables(document: dict[str, Any], results: list[dict[str, Any]]) -> tuple:
    truth = read_annotations(document)
    return truth, read_predictions(results, truth)


def rle(mask: np.ndarray) -> dict[str, Any]:
    coded = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(coded["size"]), "counts": coded["counts"].decode()}


def scene(objects: list[tuple[np.ndarray, int]], found: list[tuple[np.ndarray, int, float]]):
    """One image: annotated masks with class, predicted masks with class and score."""
    height, width = (objects[0][0] if objects else found[0][0]).shape
    document = {
        "images": [{"id": 1, "height": height, "width": width, "file_name": "a.png"}],
        "categories": [{"id": k, "name": f"c{k}"} for k in (1, 2, 3)],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": k, "segmentation": rle(mask), "iscrowd": 0,
             "area": int(mask.sum())}
            for n, (mask, k) in enumerate(objects, start=1)
        ],
    }  # fmt: skip
    results = [
        {"image_id": 1, "category_id": k, "segmentation": rle(mask), "score": score}
        for mask, k, score in found
    ]
    return tables(document, results)


def block(rows: slice, columns: slice, size: int = 40) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[rows, columns] = True
    return mask


# --- F1 ------------------------------------------------------------------------------------------


def points_by_definition(truth: GroundTruth, found: Predictions, category: int | None):
    """Every threshold tried, TP, FP and FN counted one by one."""
    matches = match(truth, found, "segm")
    best = (0.0, None)
    wanted = sum(
        not truth.crowd[g] and category in (None, truth.category_index[g])
        for g in range(len(truth))
    )
    for threshold in sorted(set(found.scores.tolist()), reverse=True):
        tp = fp = 0
        for d in range(len(found)):
            if category not in (None, found.category_index[d]) or matches.ignored[0, d]:
                continue
            if found.scores[d] >= threshold:
                tp += matches.annotation[0, d] >= 0
                fp += matches.annotation[0, d] < 0
        f1 = 2 * tp / (2 * tp + fp + (wanted - tp)) if wanted else 0.0
        if f1 > best[0] + 1e-12:
            best = (f1, (threshold, tp, fp, wanted - tp))
    return best


@pytest.mark.parametrize("seed", SEEDS)
def test_best_points_are_those_of_the_definition(seed: int, make_set: Callable[..., tuple]) -> None:
    truth, found = tables(*make_set(seed))
    points = measure(found, truth).points
    for name, category in ((None, None), *((n, k) for k, n in enumerate(truth.category_names))):
        f1, best = points_by_definition(truth, found, category)
        point = points.overall if name is None else points.per_class.get(name)
        if best is None:
            assert point is None or point.threshold is None
            continue
        assert point.f1 == pytest.approx(f1, abs=1e-12)
        assert (point.threshold, point.tp, point.fp, point.fn) == best


@pytest.mark.parametrize("seed", SEEDS)
def test_f1_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.random(200).round(2))[::-1].copy()
    right = rng.random(200) < scores
    missed = int(rng.integers(1, 80))
    point = best_point(scores, right, int(right.sum()) + missed)
    # an object that nobody found is a positive below every threshold
    labels = np.concatenate((right, np.ones(missed, dtype=bool)))
    precision, recall, thresholds = precision_recall_curve(
        labels, np.concatenate((scores, np.full(missed, -1.0)))
    )
    keep = np.flatnonzero(thresholds >= 0)
    f1 = 2 * precision[keep] * recall[keep] / (precision[keep] + recall[keep])
    place = keep[np.argmax(f1)]
    assert point.f1 == pytest.approx(f1.max(), abs=1e-12)
    assert point.precision == pytest.approx(precision[place], abs=1e-12)
    assert point.recall == pytest.approx(recall[place], abs=1e-12)


def test_a_threshold_never_parts_equal_scores() -> None:
    """Right ones first among equals would give F1 1 at a threshold that keeps all four."""
    point = best_point(np.full(4, 0.5), np.array([True, True, False, False]), 2)
    assert (point.threshold, point.tp, point.fp, point.fn) == (0.5, 2, 2, 0)
    assert point.f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize(("wanted", "recall"), [(0, None), (3, 0.0)])
def test_without_detections_nothing_is_precise(wanted: int, recall: float | None) -> None:
    point = best_point(np.zeros(0), np.zeros(0, dtype=bool), wanted)
    assert (point.threshold, point.precision, point.recall, point.f1) == (
        None, None, recall, recall,
    )  # fmt: skip
    assert point.fn == wanted


# --- confusion -----------------------------------------------------------------------------------


def confusion_by_definition(truth: GroundTruth, found: Predictions, threshold: float) -> np.ndarray:
    matches, classes = match(truth, found, "segm"), len(truth.category_ids)
    counts = np.zeros((classes + 1, classes + 1), dtype=int)
    kept = [d for d in range(len(found)) if found.scores[d] >= threshold]
    kept = [d for d in kept if not matches.ignored[0, d]]
    free = [g for g in range(len(truth)) if not truth.crowd[g]]
    left = []
    for d in kept:
        g = int(matches.annotation[0, d])
        if g >= 0:
            counts[truth.category_index[g], found.category_index[d]] += 1
            free.remove(g)
        else:
            left.append(d)
    for d in left:  # predictions stand by image and falling score
        best, taken = 0.5 - 1e-12, None
        for g in free:
            if truth.image_index[g] == found.image_index[d] and (
                truth.category_index[g] != found.category_index[d]
            ):
                a, b = found.masks.pixels(d), truth.masks.pixels(g)
                iou = (a & b).sum() / max((a | b).sum(), 1)
                if iou > best:
                    best, taken = iou, g
        if taken is None:
            counts[classes, found.category_index[d]] += 1
        else:
            free.remove(taken)
            counts[truth.category_index[taken], found.category_index[d]] += 1
    for g in free:
        counts[truth.category_index[g], classes] += 1
    return counts


@pytest.mark.parametrize("seed", SEEDS)
def test_confusion_is_that_of_the_definition(seed: int, make_set: Callable[..., tuple]) -> None:
    truth, found = tables(*make_set(seed))
    matrix = measure(found, truth).confusion
    if matrix.threshold is None:
        return
    expected = confusion_by_definition(truth, found, matrix.threshold)
    assert matrix.counts.tolist() == expected.tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_are_annotations_and_columns_detections(
    seed: int, make_set: Callable[..., tuple]
) -> None:
    truth, found = tables(*make_set(seed))
    measures = measure(found, truth)
    matrix, point = measures.confusion.counts, measures.points.overall
    real = np.bincount(truth.category_index[~truth.crowd], minlength=len(truth.category_ids))
    assert matrix[:-1].sum(axis=1).tolist() == real.tolist()
    assert matrix[:, :-1].sum() == point.tp + point.fp
    assert np.trace(matrix) == point.tp


def test_classes_beyond_those_shown_become_one(make_set: Callable[..., tuple]) -> None:
    truth, found = tables(*make_set(3, classes=5))
    matrix = measure(found, truth).confusion
    part = matrix.only(np.array([0, 3]))
    assert part.labels == ("class 0", "class 3", "other classes", "background")
    assert part.counts.sum() == matrix.counts.sum()
    assert part.counts[0, 1] == matrix.counts[0, 3]
    assert part.counts[2, 2] == matrix.counts[np.ix_([1, 2, 4], [1, 2, 4])].sum()
    assert part.counts[3, 0] == matrix.counts[5, 0]


def test_confused_pairs_are_named_most_frequent_first() -> None:
    left, right = block(slice(0, 20), slice(0, 20)), block(slice(0, 20), slice(20, 40))
    low = block(slice(20, 40), slice(0, 20))
    truth, found = scene(
        [(left, 1), (right, 1), (low, 3)], [(left, 2, 0.9), (right, 2, 0.8), (low, 3, 0.95)]
    )
    matrix = measure(found, truth).confusion
    assert matrix.threshold == 0.95  # F1 is highest with the right one alone
    assert matrix.counts[:3, 3].tolist() == [2, 0, 0]
    truth, found = scene(
        [(left, 1), (right, 1), (low, 3)], [(left, 2, 0.9), (right, 2, 0.8), (low, 3, 0.5)]
    )
    assert measure(found, truth).confusion.confused(5) == [("c1", "c2", 2)]


# --- calibration ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reliability_curve_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.concatenate((rng.random(300) ** 2, [0.0, 1.0, 0.2, 1 / 15]))
    right = rng.random(len(scores)) < 0.7 * scores
    ours = calibrate(scores, right)
    precision, confidence = calibration_curve(right, scores, n_bins=15, strategy="uniform")
    full = ours.count > 0
    np.testing.assert_allclose(ours.precision[full], precision, atol=1e-12)
    np.testing.assert_allclose(ours.confidence[full], confidence, atol=1e-12)
    ece = 0.0
    for low, high in itertools.pairwise(np.linspace(0, 1, 16).tolist()):
        inside = (scores > low) & (scores <= high) | ((low == 0) & (scores == 0))
        if inside.any():
            ece += abs(right[inside].mean() - scores[inside].mean()) * inside.sum() / len(scores)
    assert ours.ece == pytest.approx(ece, abs=1e-12)


def test_perfect_scores_have_no_error_and_others_outside_the_unit_none_defined() -> None:
    assert calibrate(np.array([1.0, 0.0]), np.array([True, False])).ece == 0.0
    assert calibrate(np.array([0.9]), np.array([False])).ece == pytest.approx(0.9)
    for scores in (np.array([3.0, 0.5]), np.zeros(0)):
        result = calibrate(scores, np.zeros(len(scores), dtype=bool))
        assert (result.ece, result.largest) == (None, None)
        assert result.to_json()["confidence"] == [None] * 15


# --- fragmentation -------------------------------------------------------------------------------


def test_an_object_in_two_detections_is_split_unless_one_finds_it() -> None:
    whole = block(slice(5, 35), slice(5, 35))
    left, right = block(slice(5, 35), slice(5, 18)), block(slice(5, 35), slice(19, 33))
    for found, split in (
        ([(left, 1, 0.9), (right, 1, 0.8)], 1),
        ([(left, 1, 0.9), (right, 2, 0.8)], 1),
        ([(left, 1, 0.9), (left, 1, 0.8)], 0),  # a copy is no second piece
        ([(left, 1, 0.9)], 0),
        ([(left, 1, 0.9), (right, 1, 0.8), (whole, 1, 0.7)], 0),
    ):
        # the second object makes every detection worth keeping: F1 rises with it
        corner = block(slice(0, 3), slice(0, 3))
        truth, predictions = scene([(whole, 1), (corner, 3)], [*found, (corner, 3, 0.1)])
        pieces = measure(predictions, truth).fragmentation
        assert (pieces.split, pieces.merged) == (split, 0), found


def test_two_objects_in_one_detection_are_merged() -> None:
    left, right = block(slice(5, 35), slice(5, 18)), block(slice(5, 35), slice(19, 35))
    corner = block(slice(0, 3), slice(0, 3))
    detections = [(block(slice(5, 35), slice(5, 35)), 1, 0.9), (corner, 3, 0.5)]
    truth, found = scene([(left, 1), (right, 2), (corner, 3)], detections)
    pieces = measure(found, truth).fragmentation
    iou = left.sum() / 900, right.sum() / 900
    assert max(iou) >= 0.5  # half of it and a little more: found, so not merged
    assert pieces.merged == 0
    third = block(slice(5, 15), slice(5, 35)), block(slice(15, 25), slice(5, 35))
    truth, found = scene([(third[0], 1), (third[1], 2), (corner, 3)], detections)
    pieces = measure(found, truth).fragmentation
    assert (pieces.split, pieces.merged) == (0, 1)


def test_parts_are_counted_over_eight_neighbours() -> None:
    diagonal = np.eye(40, dtype=bool)
    two = block(slice(0, 5), slice(0, 5)) | block(slice(10, 20), slice(10, 20))
    truth, found = scene([(diagonal, 1), (two, 2)], [(diagonal, 1, 0.9), (two, 2, 0.9)])
    pieces = measure(found, truth).fragmentation
    assert (pieces.parts, pieces.in_parts) == (1.5, 0.5)
    assert (pieces.truth_parts, pieces.truth_in_parts) == (1.5, 0.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_of_random_masks_are_scipys_on_the_whole_image(
    seed: int, make_set: Callable[..., tuple]
) -> None:
    truth, found = tables(*make_set(seed))
    counts = [
        ndimage.label(truth.masks.pixels(g), np.ones((3, 3)))[1]
        for g in range(len(truth))
        if not truth.crowd[g] and truth.masks.areas[g]
    ]
    pieces = measure(found, truth).fragmentation
    assert pieces.truth_parts == pytest.approx(np.mean(counts))


def test_boxes_have_no_fragmentation(make_set: Callable[..., tuple]) -> None:
    truth, found = tables(*make_set(3))
    assert measure(found, truth, iou_type="bbox").fragmentation is None


# --- slices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_slices_are_those_of_the_definition(seed: int, make_set: Callable[..., tuple]) -> None:
    truth, found = tables(*make_set(seed))
    measures = measure(found, truth)
    matches = match(truth, found, "segm")
    areas = truth.areas[~truth.crowd]
    low, high = np.quantile(areas, [1 / 3, 2 / 3])
    inside = [truth.areas <= low, (truth.areas > low) & (truth.areas <= high), truth.areas > high]
    for part, rows in zip(measures.slices[:3], inside, strict=True):
        chosen = {g for g in range(len(truth)) if rows[g] and not truth.crowd[g]}
        assert (part.by, part.objects) == ("size", len(chosen))
        recalls = []
        for threshold in range(10):
            hits = [
                int(matches.annotation[threshold, d])
                for d in range(len(found))
                if not matches.ignored[threshold, d]
            ]
            recalls.append(len(chosen & set(hits)) / len(chosen))
        assert part.average_recall == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("seed", SEEDS)
def test_overlap_is_the_largest_share_of_the_box(seed: int, make_set: Callable[..., tuple]) -> None:
    truth, _ = tables(*make_set(seed))
    names = Counter()
    for g in range(len(truth)):
        share = 0.0
        x, y, w, h = truth.boxes_xywh[g]
        for other in range(len(truth)):
            if other == g or truth.crowd[other] or truth.image_index[other] != truth.image_index[g]:
                continue
            a, b, c, d = truth.boxes_xywh[other]
            across = max(0.0, min(x + w, a + c) - max(x, a))
            share = max(share, across * max(0.0, min(y + h, b + d) - max(y, b)) / (w * h or 1.0))
        expected = 0 if share < 0.1 else 1 if share < 0.5 else 2
        assert by_overlap(truth).of_object[g] == expected
        names[expected] += 1
    assert sum(names.values()) == len(truth)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_slice_of_everything_has_the_backends_ap(
    seed: int, make_set: Callable[..., tuple]
) -> None:
    document, results = make_set(seed)
    truth, found = tables(document, results)
    everything = by_size(truth)
    whole = type(everything)(
        by="all", names=("all",), ranges=("",), of_object=np.zeros(len(truth), dtype=np.int64)
    )
    part = measure_slices(
        truth, found, match(truth, found, "segm"), threshold=0.5, parts=[whole]
    )[0]  # fmt: skip
    summary = evaluate_coco(results, document).segm
    assert part.ap == pytest.approx(summary.ap, abs=1e-9)
    assert part.ap50 == pytest.approx(summary.ap50, abs=1e-9)


@pytest.mark.parametrize("sign", ["inverse", "distance"])
@pytest.mark.parametrize("form", ["npy", "png16"])
def test_depth_says_who_is_near(sign: str, form: str, tmp_path: Path) -> None:
    masks = [block(slice(0, 40), slice(13 * k, 13 * k + 13)) for k in range(3)]
    truth, found = scene([(mask, 1) for mask in masks], [(mask, 1, 0.9) for mask in masks[:2]])
    inverse = np.repeat(np.arange(40)[None], 20, axis=0)  # at half the height; right is near
    values = inverse if sign == "inverse" else 500 - inverse
    if form == "npy":
        np.save(tmp_path / "a.npy", values.astype(np.float32))
    else:
        Image.fromarray(values.astype(np.uint16)).save(tmp_path / "a.png")
    parts = by_depth(truth, tmp_path, sign)
    assert parts.of_object.tolist() == [0, 1, 2]
    measures = measure(found, truth, depth=tmp_path, depth_sign=sign)
    by_name = {part.name: part for part in measures.slices if part.by == "depth"}
    assert [by_name[f"{n} third"].recall for n in ("far", "middle", "near")] == [1.0, 1.0, 0.0]


def test_images_without_a_depth_map_belong_to_no_third(
    make_set: Callable[..., tuple], tmp_path: Path
) -> None:
    truth, _ = tables(*make_set(3))
    np.save(tmp_path / "other.npy", np.ones((4, 4)))
    assert (by_depth(truth, tmp_path).of_object == -1).all()


# --- per image -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_row_for_each_image_adds_up(seed: int, make_set: Callable[..., tuple]) -> None:
    document, results = make_set(seed)
    truth, found = tables(document, results)
    measures = measure(found, truth)
    rows, point = measures.per_image, measures.points.overall
    assert (rows.tp.sum(), rows.fp.sum(), rows.fn.sum()) == (point.tp, point.fp, point.fn)
    for place, image_id in enumerate(truth.image_ids.tolist()):
        alone = {
            **document,
            "images": [i for i in document["images"] if i["id"] == image_id],
            "annotations": [a for a in document["annotations"] if a["image_id"] == image_id],
        }
        own = [r for r in results if r["image_id"] == image_id]
        ap50 = evaluate_coco(own, alone).segm.ap50
        if ap50 is None:
            assert np.isnan(rows.ap50[place])
        else:
            assert rows.ap50[place] == pytest.approx(ap50, abs=1e-9)


def test_csv_and_parquet_hold_the_same_rows(make_set: Callable[..., tuple]) -> None:
    document, results = make_set(4)
    document["images"][0]["file_name"] = 'odd, "name" [x].jpg'
    truth, found = tables(document, results)
    rows = measure(found, truth).per_image
    read = list(csv.DictReader(io.StringIO(rows.to_csv())))
    parquet = pytest.importorskip("pyarrow.parquet")
    again = parquet.read_table(io.BytesIO(rows.to_parquet())).to_pylist()
    assert len(read) == len(again) == len(truth.image_ids)
    for text, values in zip(read, again, strict=True):
        assert text["file_name"] == values["file_name"]
        for key in ("image_id", "annotations", "tp", "fp", "fn"):
            assert int(text[key]) == values[key]
        assert (text["ap50"] == "") == (values["ap50"] is None)
        assert values["ap50"] is None or float(text["ap50"]) == values["ap50"]


# --- edges ---------------------------------------------------------------------------------------


def test_nothing_predicted_and_nothing_annotated_can_be_measured(
    make_set: Callable[..., tuple],
) -> None:
    document, results = make_set(3)
    truth, found = tables(document, [])
    check_finite(measure(found, truth))
    document["annotations"] = []
    truth, found = tables(document, results)
    measures = measure(found, truth)
    check_finite(measures)
    assert measures.points.overall.f1 is None
    truth, found = tables(document, [])
    check_finite(measure(found, truth))


def check_finite(measures: Measures) -> None:
    import json

    json.dumps(measures.to_json(), allow_nan=False)
