"""Reading a COCO results file: parsed once, checked record by record, faults named."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from boxdepth.evaluate.results import schema
from boxdepth.evaluate.results.annotations import GroundTruth
from boxdepth.evaluate.results.arrays import Int64
from boxdepth.evaluate.results.bulk import without_collector
from boxdepth.evaluate.results.columns import ColumnReader, positions
from boxdepth.evaluate.results.json_document import JsonLimits, JsonSource, opened, parse, parse_as
from boxdepth.evaluate.results.masks import read_masks
from boxdepth.evaluate.results.predictions import (
    Predictions,
    by_image_and_score,
    describe,
    put_in_order,
)
from boxdepth.evaluate.results.problems import DataError, Problems, quoted
from boxdepth.evaluate.results.schema import Columns, columns_of


@without_collector
def read_predictions(
    predictions: Path | Sequence[Any] | Columns | Predictions,
    truth: GroundTruth,
    *,
    with_masks: bool = True,
    limits: JsonLimits = JsonLimits(),
) -> Predictions:
    """Read and check a COCO results file against the annotations it will be scored with.

    Args:
        predictions: the file, its list or its columns (which are left as they are); a table that
            was read before comes back as it is.
        truth: what image and category ids mean, and how large the images are.
        with_masks: read segmentations even where there are boxes.
        limits: how large a file may be.

    Raises:
        DataError: names every fault that would change the score, with record and cure.
    """
    if isinstance(predictions, Predictions):
        return predictions
    if isinstance(predictions, Path):
        table = _from_file(predictions, truth, limits, with_masks)
    else:
        reader = _Reader("predictions", truth, with_masks)
        table = reader.table(
            predictions
            if isinstance(predictions, dict)
            else _from_records(predictions, reader.problems)  # type: ignore[arg-type]
        )
    put_in_order(table)
    return replace(table, notes=(*table.notes, *describe(table, truth)))


def _from_file(path: Path, truth: GroundTruth, limits: JsonLimits, with_masks: bool) -> Predictions:
    shapes: tuple[Any, ...] = (list[schema.Result],)
    if not with_masks:
        shapes = (list[schema.BoxResult], *shapes)
    source = str(path)
    with opened(path, limits) as document:
        for shape in shapes:
            table = _piecewise(document, shape, _Reader(source, truth, with_masks))
            if table is not None:
                return table
        value = parse(document.text(), name=source)
    if not isinstance(value, list):
        raise DataError(
            f"{source}: is an object, expected a list of results "
            '[{"image_id", "category_id", "score", "bbox" and / or "segmentation"}, ...]. '
            "Were --predictions and --annotations exchanged?"
        )
    reader = _Reader(source, truth, with_masks)
    return reader.table(_from_records(value, reader.problems))


def _piecewise(document: JsonSource, shape: Any, reader: "_Reader") -> Predictions | None:
    """Some thousand records at a time, or None where one is at fault: it is named by a reader of
    the whole file, which sees them all."""
    try:
        return Predictions.joined(reader.tables(document.pieces(), shape))
    except DataError:
        return None


def _from_records(records: Sequence[Any], problems: Problems) -> Columns:
    try:
        typed = msgspec.convert(records, list[schema.Result])
        return columns_of(typed, schema.RESULT_KEYS)
    except (msgspec.ValidationError, RecursionError):
        pass
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            problems.add(f"result {index}", f"is {quoted(record)}, expected an object {{...}}")
    rows = [record for record in records if isinstance(record, dict)]
    return columns_of(rows, schema.RESULT_KEYS)


class _Reader:
    """Checks the columns of one results file, all at once or in parts."""

    def __init__(self, source: str, truth: GroundTruth, with_masks: bool) -> None:
        self.truth, self.with_masks = truth, with_masks
        self.problems = Problems(source=source)
        self.mended: Counter[str] = Counter()

    def tables(self, pieces: Iterator[bytes], shape: Any) -> Iterator[Predictions]:
        """`table` of one text after the other.

        Raises:
            DataError: one is no list of `shape`, or wrong.
        """
        for piece in pieces:
            rows = parse_as(piece, shape)
            if rows is None:
                raise DataError(f"{self.problems.source}: not of the usual form")
            columns = columns_of(rows, schema.RESULT_KEYS)
            del rows
            yield self.table(columns)
            del columns  # their memory serves the next ones

    def table(self, columns: Columns) -> Predictions:
        """The records by image and falling score, with notes on all that was mended so far.

        Raises:
            DataError: names what is wrong with them.
        """

        def where(index: int) -> str:
            image, score = columns["image_id"][index], columns["score"][index]
            seen = "missing" if score is UNSET else quoted(score)
            return f"result {index} of image {quoted(image)}, score {seen}"

        truth, problems = self.truth, self.problems
        reader = ColumnReader(table="results", where=where, problems=problems, mended=self.mended)
        image_index = _known(reader, "image_id", columns, truth.image_ids)
        category_index = _known(reader, "category_id", columns, truth.category_ids)
        scores, _ = reader.numbers("score", columns["score"])
        boxes, has_box = reader.boxes(columns["bbox"])
        problems.raise_if_any()  # sizes cannot be told: the ids, to begin with, must be right
        given: Sequence[Any] = columns["segmentation"]
        if not self.with_masks:
            given = [
                UNSET if boxed else s for s, boxed in zip(given, has_box.tolist(), strict=True)
            ]
        sizes = truth.image_sizes[image_index].reshape(-1, 2)
        masks = read_masks(given, sizes, where=where, problems=problems)
        if not problems.count:
            for row in np.flatnonzero(~has_box & ~masks.present).tolist():
                problems.add(where(row), "has neither bbox nor segmentation")
        problems.raise_if_any()
        if not has_box.all():
            boxes = np.where(has_box[:, None], boxes, masks.boxes_xywh())
        # Small parts are cheap to sort; what then follows is to sort little or nothing.
        order = by_image_and_score(image_index, scores)
        return Predictions(
            source=problems.source,
            record=order,
            image_index=image_index[order],
            category_index=category_index[order],
            scores=scores[order],
            boxes_xywh=boxes[order],
            has_box=has_box[order],
            masks=masks.take(order),
            notes=reader.notes(),
        )


def _known(
    reader: ColumnReader, key: str, columns: Columns, ids: np.ndarray
) -> Int64[np.ndarray, " n"]:
    before = reader.problems.count
    values = reader.whole(key, columns[key])
    place, found = positions(values, ids)
    if found.all() or reader.problems.count != before:
        return place
    unknown, count = np.unique(values[~found]), int((~found).sum())
    table = "images" if key == "image_id" else "categories"
    reader.problems.add(
        f"{count} results",
        f"{key} {_some(unknown)} not in the annotations' {table} ({_some(ids)}). "
        "`evaluate check` says what the AP would be after likely cures",
        count=count,
    )
    return place


def _some(ids: Int64[np.ndarray, " k"]) -> str:
    shown = ", ".join(map(str, ids[:5].tolist()))
    return shown + (f", ... {len(ids)} in all" if len(ids) > 5 else "")
