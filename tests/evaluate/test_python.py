"""The Python API: what it takes, what it gives back, and that it starts no process."""

import asyncio
import copy
import json
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_api

from boxdepth.evaluate import (
    DataError,
    RunningEvaluation,
    UsageError,
    check,
    compare,
    evaluate_coco,
)


class Tensor:
    """What a tensor can do, as far as it is asked: detach, cpu, and become an array."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def detach(self) -> "Tensor":
        return self

    def cpu(self) -> "Tensor":
        return self

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.values, dtype=dtype)


def pixels(record: dict, size: tuple[int, int]) -> np.ndarray:
    segmentation = record["segmentation"]
    if isinstance(segmentation, list):
        segmentation = mask_api.merge(mask_api.frPyObjects(segmentation, *size))
    return mask_api.decode(segmentation).astype(bool)


def arrays(records: list[dict], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Records of one image as torchvision has them: corners, labels, scores, masks."""
    boxes = np.array([r["bbox"] for r in records], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = [pixels(record, size) for record in records]
    found = {
        "boxes": boxes,
        "labels": np.array([r["category_id"] for r in records], dtype=np.int64),
        "masks": np.array(masks, dtype=bool).reshape(-1, *size),
    }
    if records and "score" in records[0]:
        found["scores"] = np.array([r["score"] for r in records])
    if records and "iscrowd" in records[0]:
        found["iscrowd"] = np.array([r["iscrowd"] for r in records])
        found["area"] = np.array([r["area"] for r in records])
    return found


def by_image(truth: dict, records: list[dict]) -> dict[int, dict[str, np.ndarray]]:
    return {
        image["id"]: arrays(
            [r for r in records if r["image_id"] == image["id"]], (image["height"], image["width"])
        )
        for image in truth["images"]
    }


def supervision(found: dict[str, np.ndarray]) -> SimpleNamespace:
    """The attributes of `supervision.Detections`."""
    return SimpleNamespace(
        xyxy=found["boxes"],
        mask=found["masks"],
        confidence=found.get("scores", np.zeros(0)),
        class_id=found["labels"],
        tracker_id=None,
        data={},
    )


KINDS: dict[str, Callable[[dict], Any]] = {
    "numpy": lambda found: found,
    "tensors": lambda found: {key: Tensor(value) for key, value in found.items()},
    "supervision": supervision,
    "object": lambda found: SimpleNamespace(**found),
}


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_score_as_the_same_files_do(kind: str, small_set: tuple) -> None:
    truth, results = small_set
    whole = evaluate_coco(results, truth)
    given = {image: KINDS[kind](found) for image, found in by_image(truth, results).items()}
    report = evaluate_coco(given, truth)
    assert report.segm.to_json() == whole.segm.to_json()
    assert report.bbox.to_json() == whole.bbox.to_json()


def test_real_tensors_are_taken(small_set: tuple) -> None:
    torch = pytest.importorskip("torch")
    truth, results = small_set
    given = {
        image: {key: torch.from_numpy(value) for key, value in found.items()}
        for image, found in by_image(truth, results).items()
    }
    assert evaluate_coco(given, truth).segm.ap == evaluate_coco(results, truth).segm.ap


def test_a_running_evaluation_ends_where_the_whole_does(small_set: tuple) -> None:
    truth, results = small_set
    names = {category["id"]: category["name"] for category in truth["categories"]}
    running = RunningEvaluation(names, iou_types=("segm", "bbox"))
    found, annotated = by_image(truth, results), by_image(truth, truth["annotations"])
    for image in truth["images"]:
        running.add(found[image["id"]], annotated[image["id"]], image_id=image["id"])
        running.compute()
    whole = evaluate_coco(results, truth)
    assert running.compute().segm.to_json() == whole.segm.to_json()
    assert running.compute().bbox.to_json() == whole.bbox.to_json()
    with pytest.raises(UsageError, match="was added before"):
        running.add(found[5], annotated[5], image_id=5)
    running.reset()
    assert len(running) == 0


def test_a_running_evaluation_of_boxes_alone_needs_no_sizes() -> None:
    running = RunningEvaluation()
    box = np.array([[1.0, 2.0, 30.0, 40.0]])
    for _ in range(3):
        running.add(
            {"boxes": box, "labels": np.array([1]), "scores": np.array([0.5])},
            {"boxes": box, "labels": np.array([1])},
        )
    running.add({"boxes": [], "labels": [], "scores": []}, {"boxes": [], "labels": []})
    report = running.compute()
    assert report.bbox.ap == pytest.approx(1.0)
    assert report.images == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([1, 1])}, "1 boxes for 2 labels"),
        ({"boxes": np.zeros((1, 5))}, r"boxes of shape \(1, 5\), expected \[1, 4\] xyxy"),
        ({"boxes": np.array([[9.0, 9, 1, 1]])}, "width or height is negative"),
        ({"masks": np.full((1, 8, 8), 0.7)}, "masks are fractions"),
        ({"masks": np.ones((8, 8), bool)}, "8 masks for 1 labels"),
        ({"scores": np.array([np.nan])}, "expected a finite number"),
        ({"labels": np.array([1.5])}, "category_id is 1.5"),
    ],
)
def test_arrays_that_mean_nothing_are_refused(change: dict, message: str) -> None:
    good = {"boxes": np.array([[1.0, 1, 9, 9]]), "labels": np.array([1]), "scores": np.ones(1)}
    truth = {
        "images": [{"id": 1, "height": 8, "width": 8}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
    }
    with pytest.raises(DataError, match=message):
        evaluate_coco({1: {**good, **change}}, truth)


def test_check_and_compare_take_documents_lists_and_arrays(small_set: tuple) -> None:
    truth, results = small_set
    before = copy.deepcopy((truth, results))
    for given in (results, by_image(truth, results)):
        assert check(given, truth).ap["segm"] == evaluate_coco(results, truth).segm.ap
        comparison = compare({"a": given, "b": results[:-3]}, truth, draws=20)
        assert [one.name for one in comparison.contenders] == ["a", "b"]
        assert comparison.contenders[0].ap.value == pytest.approx(
            evaluate_coco(results, truth).segm.ap
        )
    assert (truth, results) == before


def test_results_are_frozen_and_become_json_tables_and_figures(small_set: tuple) -> None:
    truth, results = small_set
    found = evaluate_coco(results, truth), check(results, truth), compare([results] * 2, truth)
    for report in found:
        with pytest.raises(AttributeError):
            report.version = "0"
        json.dumps(report.to_json(), allow_nan=False)
        lines = report.table().splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert report.figure().axes
    assert "| segm | class 1 |" in found[0].table(per_class=True)


# --- where it is called from ---------------------------------------------------------------------

CALL = "from boxdepth.evaluate import evaluate_coco\nprint(evaluate_coco({!r}, {!r}).segm.ap)\n"


@pytest.fixture
def files(small_set: tuple, tmp_path: Path) -> tuple[str, str]:
    truth, results = small_set
    paths = tmp_path / "predictions.json", tmp_path / "annotations.json"
    for path, document in zip(paths, (results, truth), strict=True):
        path.write_text(json.dumps(document))
    return str(paths[0]), str(paths[1])


def test_it_works_from_standard_input_and_in_a_script_without_guard(
    files: tuple[str, str], small_set: tuple, tmp_path: Path
) -> None:
    expected = evaluate_coco(small_set[1], small_set[0]).segm.ap
    script = tmp_path / "script.py"
    script.write_text(CALL.format(*files))
    for arguments, text in ((["-"], CALL.format(*files)), ([str(script)], None)):
        run = subprocess.run(
            [sys.executable, *arguments], input=text, capture_output=True, text=True, check=False
        )
        assert (run.returncode, run.stderr) == (0, "")
        assert float(run.stdout) == expected


def test_it_works_at_a_prompt(files: tuple[str, str], small_set: tuple) -> None:
    """Where functions of the session have no file to be imported from, as in a notebook."""
    lines = "def ap():\n    from boxdepth.evaluate import evaluate_coco\n"
    lines += "    return evaluate_coco({!r}, {!r}).segm.ap\n\nprint(ap())\n".format(*files)
    run = subprocess.run(
        [sys.executable, "-i", "-q"], input=lines, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0
    assert "Error" not in run.stderr
    assert float(run.stdout) == evaluate_coco(small_set[1], small_set[0]).segm.ap


def test_it_works_in_a_notebook(files: tuple[str, str], small_set: tuple) -> None:
    pytest.importorskip("ipykernel")
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    cells = [nbformat.v4.new_code_cell(CALL.format(*files))]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=250).execute()
    expected = evaluate_coco(small_set[1], small_set[0]).segm.ap
    assert float(notebook.cells[0].outputs[0].text) == expected


def test_it_works_beside_a_running_event_loop(files: tuple[str, str], small_set: tuple) -> None:
    async def cell() -> float:
        return evaluate_coco(*files).segm.ap

    assert asyncio.run(cell()) == evaluate_coco(small_set[1], small_set[0]).segm.ap


def test_it_works_in_a_cell_and_in_a_thread_and_starts_no_process(
    files: tuple[str, str], small_set: tuple, monkeypatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", refuse)
    monkeypatch.setattr("subprocess.Popen.__init__", refuse)
    monkeypatch.setattr("os.fork", refuse)
    values: list[float] = []
    exec(CALL.replace("print(", "values.append(").format(*files), {"values": values})
    thread = threading.Thread(target=lambda: values.append(evaluate_coco(*files).segm.ap))
    thread.start()
    thread.join()
    assert values == [evaluate_coco(small_set[1], small_set[0]).segm.ap] * 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_works_in_a_daemon_worker_also_after_the_parent_has_used_it(
    method: str, files: tuple[str, str]
) -> None:
    whole = evaluate_coco(*files)
    assert whole.backend == "hotcoco"
    with multiprocessing.get_context(method).Pool(1) as pool:  # its workers are daemons
        report = pool.apply_async(evaluate_coco, files).get(timeout=250)
    assert report.segm.ap == pytest.approx(whole.segm.ap, abs=1e-12)
    # Threads do not survive a fork: hotcoco would wait for its own for ever.
    assert report.backend == ("pycocotools" if method == "fork" else "hotcoco")


def test_nothing_is_printed_and_no_torch_comes_along(files: tuple[str, str], capsys) -> None:
    evaluate_coco(*files, backend="pycocotools")
    evaluate_coco(*files)
    assert capsys.readouterr() == ("", "")


# --- max_detections and cross_check ---------------------------------------------------------------


def dense_scene(objects: int) -> tuple[dict, list[dict]]:
    """One image of many small cells, all found, the wrong ones last."""
    truth: dict[str, Any] = {
        "images": [{"id": 1, "height": 400, "width": 400}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": n + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 36,
             "bbox": [8 * (n % 50), 8 * (n // 50), 6, 6]}
            for n in range(objects)
        ],
    }  # fmt: skip
    results = [
        {**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 1 - n / 10_000}
        for n, a in enumerate(truth["annotations"])
    ]
    return truth, results


def test_dense_scenes_are_scored_whole_when_that_is_asked_for() -> None:
    truth, results = dense_scene(500)
    plain = evaluate_coco(results, truth, iou_types=("bbox",)).bbox
    assert plain.ar_100 == pytest.approx(0.2)
    assert plain.ap < 0.21
    for backend in ("fast", "pycocotools"):
        limits = (1, 10, 100, 300, 1000)
        wide = evaluate_coco(
            results, truth, iou_types=("bbox",), max_detections=limits, backend=backend
        ).bbox
        assert wide.ap == pytest.approx(1.0)
        assert dict(wide.ar) == pytest.approx({1: 0.002, 10: 0.02, 100: 0.2, 300: 0.6, 1000: 1.0})
        assert {f"ar_{limit}" for limit in limits} <= wide.to_json().keys()


@pytest.mark.parametrize("limits", [(), (0, 10), (-1,)])
def test_limits_that_mean_nothing_are_refused(limits: tuple, small_set: tuple) -> None:
    with pytest.raises(UsageError, match="max_detections is"):
        evaluate_coco(small_set[1], small_set[0], max_detections=limits)


def test_a_cross_check_scores_some_images_by_both(small_set: tuple) -> None:
    truth, results = small_set
    report = evaluate_coco(results, truth, cross_check=4)
    assert report.cross_check.images == 4
    assert report.cross_check.largest_difference < 1e-12
    assert report.to_json()["cross_check"]["images"] == 4
    with pytest.raises(UsageError, match="checks nothing"):
        evaluate_coco(results, truth, cross_check=-1)
