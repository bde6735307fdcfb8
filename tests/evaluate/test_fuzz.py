"""Mutated files: a clear refusal, or the AP that an independent reading of the file gives."""

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CASES = int(os.environ.get("BOXDEPTH_FUZZ_CASES", "240"))
SECONDS = 5.0
STRANGE: list[Any] = [
    None, True, -1, 0, 1e999, float("nan"), 2**63, 10**400, -1e308, "", "1", "NaN", "é\x00", [], {},
    [[]], [None], {"size": [1, 1], "counts": "0"}, [1, 2, 3, 4], [1e9] * 8, "0" * 5000, [[0] * 6],
]  # fmt: skip


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Paths of every value in a document."""
    found = [path]
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        found.extend(places(item, (*path, key)))
    return found


def mutate(rng: np.random.Generator, document: Any) -> Any:
    """One to three random edits: strange values, lost and doubled items, scrambled strings."""
    document = copy.deepcopy(document)
    for _ in range(int(rng.integers(1, 4))):
        paths = [path for path in places(document) if path]
        if not paths:
            return document
        *above, last = paths[int(rng.integers(len(paths)))]
        holder = document
        for key in above:
            holder = holder[key]
        kind = rng.random()
        if kind < 0.55:
            holder[last] = copy.deepcopy(STRANGE[int(rng.integers(len(STRANGE)))])
        elif kind < 0.7:
            del holder[last]
        elif kind < 0.8 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        elif isinstance(holder[last], str) and holder[last]:
            letters = list(holder[last])
            letters[int(rng.integers(len(letters)))] = chr(int(rng.integers(32, 128)))
            holder[last] = "".join(letters)
        elif isinstance(holder[last], (int, float)):
            holder[last] = holder[last] + int(rng.integers(-3, 4))
    return document


def scramble(rng: np.random.Generator, text: bytes) -> bytes:
    """Bytes overwritten, cut off, repeated."""
    data = bytearray(text)
    place = int(rng.integers(len(data)))
    kind = rng.random()
    if kind < 0.5:
        data[place] = int(rng.integers(256))
    elif kind < 0.75:
        del data[place:]
    else:
        data[place:place] = data[place : place + int(rng.integers(1, 400))]
    return bytes(data)


RUNNER = r"""
import json, resource, sys, time
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (6 * 1024**3, 6 * 1024**3))
from boxdepth.evaluate import DataError, evaluate_coco
from boxdepth.evaluate.results import json_document
json_document._PIECE = 1500  # as a large file: in pieces
folder = Path(sys.argv[1])
for case in sorted(folder.glob("case-*"), key=lambda p: int(p.name.split("-")[1])):
    start = time.perf_counter()
    try:
        report = evaluate_coco(case / "predictions.json", case / "annotations.json")
        shapes = {"segm": report.segm, "bbox": report.bbox}
        outcome = {name: s and s.ap for name, s in shapes.items()} | {"warnings": report.warnings}
    except DataError as error:
        outcome = {"refused": str(error)}
    seconds = time.perf_counter() - start
    # ru_maxrss would also tell of the parent, before the exec
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0])
    print(json.dumps({"case": case.name, "seconds": seconds, "peak": peak, **outcome}), flush=True)
"""


def write_cases(folder: Path, document: tuple, count: int, first: int) -> None:
    truth, results = document
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        texts = [json.dumps(truth).encode(), json.dumps(results).encode()]
        chosen = int(rng.integers(2))
        if rng.random() < 0.75:
            texts[chosen] = json.dumps(mutate(rng, (truth, results)[chosen])).encode()
        else:
            texts[chosen] = scramble(rng, texts[chosen])
        case = folder / f"case-{number}"
        case.mkdir()
        (case / "annotations.json").write_bytes(texts[0])
        (case / "predictions.json").write_bytes(texts[1])


@pytest.mark.slow
def test_mutated_files_are_refused_or_scored_right(make_set: Any, tmp_path: Path) -> None:
    document = make_set(3)
    write_cases(tmp_path, document, CASES, first=int(os.environ.get("BOXDEPTH_FUZZ_SEED", "0")))
    run = subprocess.run(
        [sys.executable, "-c", RUNNER, str(tmp_path)], capture_output=True, text=True, check=False
    )
    outcomes = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, run.stderr[-2000:]
    assert len(outcomes) == CASES
    slow = [o for o in outcomes if o["seconds"] > SECONDS]
    assert not slow
    assert max(o["peak"] for o in outcomes) < 1024**2  # KiB
    for outcome in outcomes:
        if "refused" in outcome:
            assert outcome["refused"].isprintable() or "\n" in outcome["refused"]
            assert str(tmp_path) in outcome["refused"]
            continue
        case = tmp_path / outcome["case"]
        truth, results = (
            json.loads((case / f"{name}.json").read_bytes().decode(errors="replace"))
            for name in ("annotations", "predictions")
        )
        for shape in ("segm", "bbox"):
            if outcome[shape] is not None:
                expected = reference_ap(truth, results, shape)
                assert outcome[shape] == pytest.approx(expected, abs=1e-9), (case, shape)


NUMBERS = {"id", "image_id", "category_id", "height", "width", "area", "iscrowd", "score", "bbox"}


def as_documented(value: Any, key: str = "") -> Any:
    """A copy with numbers that are text read as numbers (docs/input-fields.md), and no nulls."""
    if isinstance(value, dict):
        return {k: as_documented(v, k) for k, v in value.items() if k != "iscrowd" or v is not None}
    if isinstance(value, list):
        return [as_documented(item, key) for item in value]
    return float(value) if isinstance(value, str) and key in NUMBERS else value


def reference_ap(truth: dict, results: list[dict], shape: str) -> float:
    """AP by pycocotools on accepted files, with what is documented filled in by hand."""
    import contextlib
    import io

    from pycocotools import mask as mask_api
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, results = as_documented(truth), as_documented(results)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}

    def rle(record: dict) -> dict | None:
        segmentation = record.get("segmentation")
        if segmentation in ([[]], {}, ""):
            return None
        if isinstance(segmentation, list) and segmentation:
            return mask_api.merge(mask_api.frPyObjects(segmentation, *sizes[record["image_id"]]))
        return segmentation if isinstance(segmentation, dict) else None

    for number, annotation in enumerate(truth["annotations"], start=1):
        mask = rle(annotation)
        annotation["id"] = number + 10**6
        annotation["iscrowd"] = int(annotation.get("iscrowd", 0))
        if not annotation.get("bbox"):
            annotation["bbox"] = mask_api.toBbox(mask).tolist()
        if annotation.get("area") is None:
            box = annotation["bbox"]
            annotation["area"] = float(mask_api.area(mask)) if mask else box[2] * box[3]
        annotation["segmentation"] = mask
    truth["annotations"].sort(key=lambda a: a["id"])
    for number, record in enumerate(results, start=1):
        mask = rle(record)
        if not record.get("bbox"):
            record["bbox"] = mask_api.toBbox(mask).tolist()
        box = record["bbox"]
        record.update(id=number, iscrowd=0, segmentation=mask)
        record["area"] = box[2] * box[3] if shape == "bbox" else float(mask_api.area(mask))
    results.sort(key=lambda r: (r["image_id"], -r["score"], *r["bbox"]))
    if not results:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        expected, found = COCO(), COCO()
        expected.dataset = truth
        expected.createIndex()
        found.dataset = {**truth, "annotations": results}
        found.createIndex()
        run = COCOeval(expected, found, shape)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0])


def test_a_polygon_bomb_does_not_hang(make_set: Any) -> None:
    from boxdepth.evaluate import DataError, evaluate_coco

    truth, results = make_set(3)
    far = [[float(v) for v in (-400, -400, 400, 400)] * 2000]
    results[0]["segmentation"] = far
    start = time.perf_counter()
    with pytest.raises(DataError):
        evaluate_coco(results, truth)
    assert time.perf_counter() - start < SECONDS
