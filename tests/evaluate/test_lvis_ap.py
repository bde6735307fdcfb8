"""LVIS' federated AP, against LVIS' own code."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxdepth.evaluate.lvis_ap import evaluate_lvis, read_federation
from boxdepth.evaluate.results import DataError, read_annotations, read_predictions

NUMBERS = {
    "AP": "ap", "AP50": "ap50", "AP75": "ap75", "APs": "ap_small", "APm": "ap_medium",
    "APl": "ap_large", "APr": "ap_rare", "APc": "ap_common", "APf": "ap_frequent",
    "AR@300": "ar_300", "ARs@300": "ar_small", "ARm@300": "ar_medium", "ARl@300": "ar_large",
}  # fmt: skip


def federated(make_set: Callable[..., tuple], seed: int, crowding: int = 1) -> tuple[Any, Any]:
    """A random set without crowds, with LVIS' keys and scores of which no two are equal."""
    document, results = make_set(seed, images=8, classes=6)
    rng = np.random.default_rng(seed)
    results = results * crowding
    scores = rng.permutation(len(results)) / max(len(results), 1)
    results = [{**r, "score": float(s)} for r, s in zip(results, scores, strict=True)]
    document["annotations"] = [a for a in document["annotations"] if not a["iscrowd"]]
    ids = [category["id"] for category in document["categories"]]
    for place, category in enumerate(document["categories"]):
        category["frequency"] = "rcf"[place % 3]
    for image in document["images"]:
        there = {a["category_id"] for a in document["annotations"] if a["image_id"] == image["id"]}
        rest = [k for k in ids if k not in there]
        image["neg_category_ids"] = [k for k in rest if rng.random() < 0.5]
        image["not_exhaustive_category_ids"] = [k for k in sorted(there) if rng.random() < 0.3]
    return document, results


def ours(document: Any, results: Any, shape: str):
    truth = read_annotations(document)
    federation = read_federation(document, truth)
    found = read_predictions(results, truth)
    return evaluate_lvis(truth, found, federation, iou_type=shape)


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")  # in LVIS' code
@pytest.mark.parametrize("shape", ["segm", "bbox"])
@pytest.mark.parametrize(("seed", "crowding"), [*((seed, 1) for seed in range(12)), (40, 30)])
def test_the_thirteen_numbers_are_lvis_own(
    shape: str,
    seed: int,
    crowding: int,
    make_set: Callable[..., tuple],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(np, "float", float, raising=False)  # LVIS' code is older than NumPy 1.24
    from lvis import LVIS, LVISEval

    logging.disable(logging.WARNING)
    document, results = federated(make_set, seed, crowding)
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(document))
    plain = [dict(r) for r in results]
    if shape == "segm":  # LVIS takes the box's area for a mask's where results have boxes
        for record in plain:
            del record["bbox"]
    official = LVISEval(LVIS(str(path)), plain, shape)
    official.run()
    logging.disable(logging.NOTSET)
    numbers = ours(document, results, shape).numbers
    for theirs, mine in NUMBERS.items():
        value = official.results[theirs]
        expected = None if value == -1 else pytest.approx(value, abs=1e-9)
        assert getattr(numbers, mine) == expected, theirs


def test_a_class_nobody_looked_for_costs_nothing(make_set: Callable[..., tuple]) -> None:
    document, results = federated(make_set, 5)
    for image in document["images"]:
        image["neg_category_ids"] = []
    before = ours(document, results, "segm")
    ids = [category["id"] for category in document["categories"]]
    there = {(a["image_id"], a["category_id"]) for a in document["annotations"]}
    extra = [
        {**results[0], "image_id": image["id"], "category_id": k, "score": 0.99,
         "segmentation": {"size": [image["height"], image["width"]],
                          "counts": [0, image["height"] * image["width"]]}}
        for image in document["images"] for k in ids if (image["id"], k) not in there
    ]  # fmt: skip
    after = ours(document, results + extra, "segm")
    assert after.numbers == before.numbers
    assert after.unjudged == before.unjudged + len(extra)


@pytest.mark.parametrize(
    ("table", "key", "value", "words"),
    [
        ("images", "neg_category_ids", None, "neg_category_ids is None, expected a list"),
        ("images", "neg_category_ids", [10**9], "names category 1000000000, which is not in"),
        ("images", "not_exhaustive_category_ids", "3", "expected a list of category ids"),
        ("images", "not_exhaustive_category_ids", [[1]], "which is not in categories"),
        ("categories", "frequency", "x", "frequency is 'x', expected LVIS' r, c or f"),
        ("categories", "frequency", ["r"], "expected LVIS' r, c or f"),
    ],
)
def test_files_that_are_not_lvis_are_refused_with_the_key(
    table: str, key: str, value: Any, words: str, make_set: Callable[..., tuple]
) -> None:
    document, results = federated(make_set, 5)
    document[table][1][key] = value
    with pytest.raises(DataError, match=words):
        ours(document, results, "segm")
