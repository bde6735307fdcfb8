"""Both files as records that cures can change, and what they score as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from boxdepth.evaluate.check.cures import Record
from boxdepth.evaluate.coco_ap import IouType, evaluate_tables
from boxdepth.evaluate.coco_ap.evaluation import cannot_compare
from boxdepth.evaluate.results import (
    DataError,
    GroundTruth,
    Predictions,
    load_json,
    read_annotations,
    read_predictions,
)

# Cures are tried on as many images as this: enough to tell right from wrong.
SAMPLE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Results and annotations, as they are or after a cure.

    Attributes:
        records: the results.
        document: the annotations, with lists `images`, `annotations`, `categories`.
        truth: the annotations as a table, None if they cannot be read.
        table: the results as a table, None if they cannot be scored.
        error: why one of them is None.
    """

    records: list[Record]
    document: Mapping[str, Any]
    truth: GroundTruth | None = None
    table: Predictions | None = None
    error: str | None = None
    _aps: dict[str, float] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        records: list[Record],
        document: Mapping[str, Any],
        truth: GroundTruth | None = None,
    ) -> "Case":
        """Read both; `truth` is the document's table where that was read before."""
        table, error = None, None
        try:
            truth = truth or read_annotations(dict(document))
            table = read_predictions(records, truth)
        except DataError as fault:
            error = str(fault)
        case = cls(records=records, document=document, truth=truth, table=table, error=error)
        return replace(case, _aps=case.score())

    @property
    def aps(self) -> dict[str, float]:
        """AP by shape; empty where nothing can be scored, or nothing is to be found."""
        return self._aps

    @property
    def worth(self) -> float:
        """The sum of APs, -1 where there is none yet."""
        return sum(self._aps.values()) if self._aps else -1.0

    @property
    def frame(self) -> GroundTruth:
        """Images and categories, with the annotations if they can be read.

        Raises:
            DataError: not even images and categories can be read.
        """
        if self.truth is not None:
            return self.truth
        return read_annotations({**self.document, "annotations": []})

    def score(self) -> dict[str, float]:
        """AP of every shape that both files have."""
        if self.truth is None or self.table is None:
            return {}
        return average_precisions(self.truth, self.table, self.shapes())

    def shapes(self) -> tuple[IouType, ...]:
        """What the files can be asked for: masks where both have them, boxes."""
        truth = self.truth
        masked = bool(self.records) and all(record.get("segmentation") for record in self.records)
        masked = masked and truth is not None and len(truth) > 0 and bool(truth.masks.present.all())
        boxed = any(record.get("bbox") for record in self.records)
        return (*(("segm",) if masked else ()), *(("bbox",) if boxed or not masked else ()))


def average_precisions(
    truth: GroundTruth, table: Predictions, shapes: Sequence[IouType]
) -> dict[str, float]:
    """AP by shape, empty if one of them cannot be compared; undefined ones are left out."""
    if any(cannot_compare(truth, table, shape) for shape in shapes):
        return {}
    summaries = evaluate_tables(truth, table, iou_types=shapes).summaries
    return {name: s.ap for name, s in summaries.items() if s.ap is not None}


def load(predictions: Any, annotations: Any) -> tuple[list[Record], Mapping[str, Any]]:
    """The records of both files, those of some images alone where there are many.

    Raises:
        DataError: the annotations are no COCO document, or the results no list.
    """
    document = load_json(annotations) if isinstance(annotations, Path) else annotations
    if not isinstance(document, Mapping) or not all(
        isinstance(document.get(key), list) for key in ("images", "annotations", "categories")
    ):
        read_annotations(annotations)  # says what is missing
        raise DataError(f"{annotations}: is no COCO document")
    value = load_json(predictions) if isinstance(predictions, Path) else predictions
    if isinstance(value, Mapping) and isinstance(value.get("annotations"), list):
        value = with_names(value)
    elif isinstance(value, Mapping) and "score" in value:
        value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise DataError(f"{predictions}: is no list of results, and holds none under annotations")
    return sampled([record for record in value if isinstance(record, dict)], document)


def with_names(document: Mapping[str, Any]) -> list[object]:
    """A whole COCO document given as results: its own category names go into the records."""
    categories = document.get("categories")
    known = categories if isinstance(categories, list) else []
    names = {str(c.get("id")): c.get("name") for c in known if isinstance(c, dict)}
    return [
        {**record, "category_name": names.get(str(record.get("category_id")))}
        for record in document["annotations"]
        if isinstance(record, dict)
    ]


def sampled(
    records: list[Record], document: Mapping[str, Any]
) -> tuple[list[Record], Mapping[str, Any]]:
    """Both files for `SAMPLE` random images, if every result says which image it is of."""
    images = document["images"]
    ids = [image.get("id") if isinstance(image, dict) else None for image in images]
    if len(images) <= SAMPLE or not all(type(number) is int for number in ids):
        return records, document
    known = set(ids)
    every = (*records, *document["annotations"])
    if not all(isinstance(r, dict) and type(r.get("image_id")) is int for r in every):
        return records, document  # ids must be mended first, which needs all of them
    if not all(record["image_id"] in known for record in every):
        return records, document
    order = np.random.default_rng(0).permutation(len(images))[:SAMPLE]
    kept = {ids[place] for place in order.tolist()}
    part = {
        **document,
        "images": [image for image in images if image["id"] in kept],
        "annotations": [a for a in document["annotations"] if a["image_id"] in kept],
    }
    return [record for record in records if record["image_id"] in kept], part
