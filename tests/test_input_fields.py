"""One table, three readers: the fields of docs/input-fields.md in depthgen, trainer, evaluate."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boxdepth.depthgen.datasets.coco_file import read_coco_file
from boxdepth.depthgen.datasets.records import OnBad
from boxdepth.depthgen.store import DataError as StoreDataError
from boxdepth.evaluate import DataError as EvaluateDataError
from boxdepth.evaluate import evaluate_coco
from boxdepth.trainer.data.box_file import read_box_file

FULL, HUGE = 2**53, 10**400
NAN, INFINITY = float("nan"), float("inf")
MISSING = object()
MENDING = re.compile("written as|null|no name|name missing|without a name")
ACCEPTED, MENDED, REFUSED = "accepted", "mended", "refused"

DOCUMENT: dict[str, list[dict[str, Any]]] = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "height": 40, "width": 60},
        {"id": 2, "file_name": "b.jpg", "height": 40, "width": 60},
    ],
    "annotations": [
        {"id": 10, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 10], "area": 200,
         "iscrowd": 0, "segmentation": [[5, 5, 25, 5, 25, 15, 5, 15]]},
        {"id": 11, "image_id": 2, "category_id": 2, "bbox": [10, 10, 30, 20], "area": 600,
         "iscrowd": 0, "segmentation": [[10, 10, 40, 10, 40, 30, 10, 30]]},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}  # fmt: skip

IDS = {
    ACCEPTED: [1.0],
    MENDED: ["1", "1.0", " 1 ", "1e0", "+1"],
    REFUSED: [MISSING, None, True, False, 1.5, "1.5", NAN, INFINITY, "one", "", "0x1", "1_0", "١",
              [1], {}, FULL + 1, -FULL - 1, str(FULL + 1), HUGE, "1e400"],
}  # fmt: skip
SIDES = {
    ACCEPTED: [40.0],
    MENDED: ["40", "40.0", " 4e1"],
    REFUSED: [MISSING, None, True, 0, -1, 40.5, 65_536, "tall", NAN, INFINITY, HUGE, [40]],
}
TABLE: dict[tuple[str, str], dict[str, list[Any]]] = {
    ("images", "id"): IDS,
    ("annotations", "image_id"): {**IDS, REFUSED: [*IDS[REFUSED], 99, 0]},
    ("annotations", "category_id"): {**IDS, REFUSED: [*IDS[REFUSED], 99, 0]},
    ("categories", "id"): IDS,
    ("annotations", "id"): {
        ACCEPTED: [0, -3, 7.0, FULL, -FULL, float(FULL)],
        MENDED: ["7", "7.0", str(FULL)],
        REFUSED: [*IDS[REFUSED], 11],
    },
    ("images", "height"): SIDES,
    ("images", "width"): {**SIDES, ACCEPTED: [60.0, 65_535], MENDED: ["60", "60.0"]},
    ("annotations", "bbox"): {
        ACCEPTED: [[5.0, 5, 20, 10.0], [5, 5, 0, 10], None, [], MISSING],
        MENDED: [["5", "5", "20", "1e1"]],
        REFUSED: [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, -3, 4], [1, 2, 3, -4], [NAN, 1, 2, 3],
                  [1, INFINITY, 2, 3], [1, 1, 2e9, 3], [1, 1, 3, HUGE], [True, 1, 2, 3],
                  [1, 1, 2, None], ["5", "5", "20", "ten"], "5,5,20,10", 5, {}],
    },
    ("annotations", "area"): {
        ACCEPTED: [0, 200.5, 1e15, None, MISSING],
        MENDED: ["200", "2e2"],
        REFUSED: [-1, 1e300, 1e16, "big", "", True, NAN, INFINITY, HUGE, [2]],
    },
    ("annotations", "iscrowd"): {
        ACCEPTED: [0, 1, 0.0, 1.0, True, False, MISSING],
        MENDED: [None, "0", "1", "0.0", "1.0", "true", "false"],
        REFUSED: [2, -1, 0.5, "maybe", "", NAN, [0]],
    },
    ("categories", "name"): {
        ACCEPTED: ["cat", "[red]猫", " cat "],
        MENDED: [MISSING, None, "", 7],
        REFUSED: [["cat"], {"a": 1}, True],
    },
}  # fmt: skip
CASES = [
    pytest.param(table, key, value, verdict, id=f"{table}.{key}-{verdict}-{number}")
    for (table, key), verdicts in TABLE.items()
    for verdict, values in verdicts.items()
    for number, value in enumerate(values)
]


def changed(table: str, key: str, value: Any) -> dict[str, list[dict[str, Any]]]:
    """The document with one field of its first record changed, or left out."""
    document = copy.deepcopy(DOCUMENT)
    if value is MISSING:
        del document[table][0][key]
    else:
        document[table][0][key] = value
    return document


def verdict_of(read: Callable[[], tuple[str, ...]], refusal: type[Exception], key: str) -> str:
    """What a reader did; a refusal must name the field."""
    try:
        notes = read()
    except refusal as error:
        return REFUSED if key in str(error) else f"refused, but not for {key}: {error}"
    return MENDED if any(MENDING.search(note) for note in notes) else ACCEPTED


@pytest.mark.parametrize(("table", "key", "value", "verdict"), CASES)
def test_three_readers_answer_alike(
    table: str, key: str, value: Any, verdict: str, tmp_path: Path
) -> None:
    document = changed(table, key, value)
    file = tmp_path / "a.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    results = [
        {"image_id": 2, "category_id": 2, "bbox": [10, 10, 30, 20], "score": 0.9,
         "segmentation": DOCUMENT["annotations"][1]["segmentation"]}
    ]  # fmt: skip

    def depthgen() -> tuple[str, ...]:
        data = read_coco_file(
            tmp_path, file, name="custom", split="train", masks=True, on_bad=OnBad.error
        )
        return data.report.notes

    def trainer() -> tuple[str, ...]:
        return read_box_file(file).notes

    def evaluate() -> tuple[str, ...]:
        return evaluate_coco(results, file).warnings

    said = {
        "depthgen": verdict_of(depthgen, StoreDataError, key),
        "trainer": verdict_of(trainer, StoreDataError, key),
        "evaluate": verdict_of(evaluate, EvaluateDataError, key),
    }
    assert said == dict.fromkeys(said, verdict)
