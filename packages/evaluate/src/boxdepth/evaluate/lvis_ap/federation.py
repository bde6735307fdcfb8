"""What LVIS annotations say beside objects: which classes were looked for in which image."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from boxdepth.evaluate.results import GroundTruth, Problems
from boxdepth.evaluate.results.arrays import Bool
from boxdepth.evaluate.results.problems import quoted

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """Places are those of the annotations' lists of images and categories.

    Attributes:
        absent: [image, category]: known not to be there; detections of it are wrong.
        not_exhaustive: not all objects of the class are annotated; detections that find none are
            ignored.
        frequency: "r", "c" or "f" for each category: in how many training images it occurs.
    """

    absent: Bool[np.ndarray, "i k"]
    not_exhaustive: Bool[np.ndarray, "i k"]
    frequency: tuple[str, ...]


def read_federation(document: object, truth: GroundTruth) -> Federation:
    """Read LVIS' own keys of an annotation document whose objects are read already.

    Raises:
        DataError: names each image and category that lacks them or holds something else.
    """
    problems = Problems(source=truth.source)
    tables = cast("dict[str, list[dict[str, Any]]]", document)
    places = {int(category): place for place, category in enumerate(truth.category_ids.tolist())}
    shape = len(truth.image_ids), len(truth.category_ids)
    columns = {
        key: np.zeros(shape, dtype=bool)
        for key in ("neg_category_ids", "not_exhaustive_category_ids")
    }
    for record in tables["images"]:
        image = int(np.searchsorted(truth.image_ids, int(float(record["id"]))))
        for key, column in columns.items():
            column[image, _places(record, key, places, problems)] = True
    frequency = [""] * shape[1]
    for record in tables["categories"]:
        value = record.get("frequency")
        if not isinstance(value, str) or value not in FREQUENCIES:
            expected = "expected LVIS' r, c or f. Is this an LVIS annotation file?"
            problems.add(
                f"category {quoted(record['id'])}", f"frequency is {quoted(value)}, {expected}"
            )
        else:
            frequency[places[int(float(record["id"]))]] = value
    problems.raise_if_any()
    return Federation(
        absent=columns["neg_category_ids"],
        not_exhaustive=columns["not_exhaustive_category_ids"],
        frequency=tuple(frequency),
    )


def _is_whole(value: object) -> bool:
    return type(value) is int or (isinstance(value, float) and value.is_integer())


def _places(
    record: dict[str, Any], key: str, places: dict[int, int], problems: Problems
) -> list[int]:
    where, listed = f"image {quoted(record['id'])}", record.get(key)
    if not isinstance(listed, list):
        expected = "expected a list of category ids. Is this an LVIS annotation file?"
        problems.add(where, f"{key} is {quoted(listed)}, {expected}")
        return []
    found = []
    for value in listed:
        place = places.get(int(value)) if _is_whole(value) else None
        if place is None:
            problems.add(where, f"{key} names category {quoted(value)}, which is not in categories")
        else:
            found.append(place)
    return found
