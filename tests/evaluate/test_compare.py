"""Matches, comparisons, kinds of error: their AP is the backends', and copies don't differ."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from boxdepth.evaluate import UsageError, evaluate_coco
from boxdepth.evaluate.coco_ap.matching import average_precisions, greedy, match
from boxdepth.evaluate.compare import compare
from boxdepth.evaluate.error_kinds import KINDS, find_errors
from boxdepth.evaluate.measures import calibrate, drawn_ece, drawn_f1, outcomes_of
from boxdepth.evaluate.results import read_annotations, read_predictions


@pytest.fixture
def files(make_set: Callable[..., tuple], tmp_path: Path) -> tuple[Path, Path, Path]:
    """Annotations, results, and the same results with a third of them lost."""
    truth, results = make_set(21, images=30)
    paths = tuple(tmp_path / f"{name}.json" for name in ("annotations", "whole", "part"))
    for path, document in zip(paths, (truth, results, results[::3] + results[1::3]), strict=True):
        path.write_text(json.dumps(document))
    return paths


@pytest.mark.parametrize("shape", ["segm", "bbox"])
def test_ap_of_every_class_is_the_backends(shape: str, files: tuple[Path, Path, Path]) -> None:
    annotations, whole, part = files
    first, second = compare([whole, part], annotations, iou_type=shape, draws=20).contenders
    for contender, path in ((first, whole), (second, part)):
        summary = getattr(evaluate_coco(path, annotations), shape)
        assert contender.ap.value == pytest.approx(summary.ap, abs=1e-9)
        assert contender.ap50.value == pytest.approx(summary.ap50, abs=1e-9)
        for name, (estimate, _) in contender.per_class.items():
            assert estimate.value == pytest.approx(summary.per_class[name].ap, abs=1e-9)


@pytest.mark.parametrize("limits", [(1,), (2, 1, 3), (1000,)])
def test_as_many_detections_count_as_in_evaluate_coco(
    limits: tuple[int, ...], files: tuple[Path, Path, Path]
) -> None:
    annotations, whole, part = files
    compared = compare([whole, part], annotations, iou_type="bbox", draws=20, max_detections=limits)
    for contender, path in zip(compared.contenders, (whole, part), strict=True):
        summary = evaluate_coco(path, annotations, max_detections=limits).bbox
        assert contender.ap.value == pytest.approx(summary.ap, abs=1e-9)
    assert compared.to_json()["max_detections"] == max(limits)
    with pytest.raises(UsageError, match="max_detections"):
        compare([whole, part], annotations, draws=20, max_detections=())


def test_losing_results_is_worse_beyond_chance(files: tuple[Path, Path, Path]) -> None:
    annotations, whole, part = files
    baseline, worse = compare([whole, part], annotations, draws=200).contenders
    assert not baseline.is_worse
    assert worse.is_worse
    assert worse.p_worse > 0.95
    better = compare([part, whole], annotations, draws=200).contenders[1]
    assert not better.is_worse
    assert better.difference.value == pytest.approx(-worse.difference.value)


def test_a_file_does_not_differ_from_itself(files: tuple[Path, Path, Path]) -> None:
    annotations, whole, _ = files
    same = compare([whole, whole], annotations, draws=50).contenders[1]
    assert (same.difference.value, same.difference.low, same.difference.high) == (0.0, 0.0, 0.0)
    assert not same.is_worse


def test_equal_seeds_give_equal_intervals(files: tuple[Path, Path, Path]) -> None:
    annotations, whole, part = files
    one, two, other = (
        compare([whole, part], annotations, draws=50, seed=seed).contenders[1].ap
        for seed in (1, 1, 2)
    )
    assert one == two != other


def test_one_file_cannot_be_compared(files: tuple[Path, Path, Path]) -> None:
    with pytest.raises(UsageError, match="two results files"):
        compare([files[1]], files[0])


def test_a_detection_takes_the_best_free_object_and_crowds_last() -> None:
    iou = np.array([[0.6, 0.9, 0.95], [0.7, 0.8, 0.95], [0.2, 0.2, 0.95]])
    found = greedy(iou, np.array([False, False, True]))
    assert found[0].tolist() == [1, 0, 2]  # at 0.5
    assert found[5].tolist() == [1, 2, 2]  # at 0.75: object 0 is out of reach of the second
    assert found[9].tolist() == [2, 2, 2]  # at 0.95: only the crowd is left


def test_drawing_an_image_twice_is_doubling_its_detections() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        right = rng.random(12) < 0.6
        weights = rng.integers(0, 4, 12)
        wanted = float((right * weights).sum() + 3)
        ap = average_precisions(right, weights[None].astype(float), np.array([wanted]))
        doubled = np.repeat(right, weights)
        ones = np.ones((1, len(doubled)))
        assert ap == pytest.approx(average_precisions(doubled, ones, np.array([wanted])))


def test_every_wrong_detection_has_one_kind_and_mending_never_hurts(
    make_set: Callable[..., tuple],
) -> None:
    for seed in range(6):
        truth, results = make_set(seed + 40, images=10)
        table = read_annotations(truth)
        found = read_predictions(results, table)
        for shape in ("segm", "bbox"):
            matches = match(table, found, shape)
            errors = find_errors(table, found, matches, shape)
            summary = getattr(evaluate_coco(results, truth), shape)
            assert errors.ap50 == pytest.approx(summary.ap50, abs=1e-9)
            wrong = (matches.annotation[0] < 0) & ~matches.ignored[0]
            assert sum(errors.counts[kind] for kind in KINDS[:-1]) == wrong.sum()
            for kind in ("classification", "localisation", "both", "duplicate", "background"):
                assert errors.gains[kind] >= -1e-12, (seed, kind)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"category_id": 2}, "classification"),
        ({"bbox": [5, 0, 10, 10]}, "localisation"),
        ({"bbox": [5, 0, 10, 10], "category_id": 2}, "both"),
        ({"bbox": [40, 40, 10, 10]}, "background"),
    ],
)
def test_each_kind_is_recognised(change: dict, kind: str) -> None:
    truth = {
        "images": [{"id": 1, "height": 60, "width": 60}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}],
    }
    result = {"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [0, 0, 10, 10], **change}
    table = read_annotations(truth)
    found = read_predictions([result], table)
    errors = find_errors(table, found, match(table, found, "bbox"), "bbox")
    assert {k: n for k, n in errors.counts.items() if n} in (
        {kind: 1}, {kind: 1, "missed": 1},
    )  # fmt: skip
    assert errors.counts["missed"] == (kind in ("both", "background"))


def test_a_second_detection_of_a_found_object_is_a_duplicate() -> None:
    truth = {
        "images": [{"id": 1, "height": 60, "width": 60}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}],
    }
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}
    table = read_annotations(truth)
    found = read_predictions([{**box, "score": 0.9}, {**box, "score": 0.8}], table)
    errors = find_errors(table, found, match(table, found, "bbox"), "bbox")
    assert errors.counts["duplicate"] == 1
    assert errors.kind.tolist() == [-1, KINDS.index("duplicate")]


def test_f1_and_calibration_of_draws_are_those_of_repeated_images(
    make_set: Callable[..., tuple],
) -> None:
    """Weights are how often an image was drawn: the same as a set that holds it so often."""
    document, results = make_set(8, images=5)
    truth = read_annotations(document)
    found = read_predictions(results, truth)
    outcomes = outcomes_of(truth, found, match(truth, found, "segm"))
    weights = np.random.default_rng(0).integers(0, 4, (20, 5)).astype(np.float64)
    f1, ece = drawn_f1(outcomes, weights, 0.4), drawn_ece(outcomes, weights)
    for line, times in enumerate(weights.astype(int).tolist()):
        rows = np.repeat(np.arange(len(outcomes.row)), np.array(times)[outcomes.image])
        wanted = int(np.array(times)[outcomes.wanted_image].sum())
        right, scores = outcomes.right[rows], outcomes.score[rows]
        kept = scores >= 0.4
        expected = 2 * (right & kept).sum() / (kept.sum() + wanted) if wanted else np.nan
        assert f1[line] == pytest.approx(expected, nan_ok=True)
        error = calibrate(scores, right).ece
        assert ece[line] == pytest.approx(np.nan if error is None else error, nan_ok=True)
