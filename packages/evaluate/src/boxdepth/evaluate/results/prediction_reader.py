"""Reading a COCO results file: parsed once, checked record by record, faults named."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Int64
from msgspec import UNSET

from boxdepth.evaluate.results import schema
from boxdepth.evaluate.results.annotations import GroundTruth
from boxdepth.evaluate.results.bulk import without_collector
from boxdepth.evaluate.results.columns import ColumnReader, positions
from boxdepth.evaluate.results.json_document import JsonLimits, parse, parse_as, read_text
from boxdepth.evaluate.results.masks import read_masks
from boxdepth.evaluate.results.predictions import Predictions, canonical_order, describe
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
    source = str(predictions) if isinstance(predictions, Path) else "predictions"
    problems = Problems(source=source)
    if isinstance(predictions, Path):
        columns = _from_file(predictions, problems, limits, with_masks)
    elif isinstance(predictions, dict):
        columns = predictions
    else:
        columns = _from_records(predictions, problems)  # type: ignore[arg-type]
    # A copy of which large columns are dropped once they are read, if nobody else has them.
    owned = dict(columns)
    del columns
    table = _table(owned, truth, problems, with_masks)
    problems.raise_if_any()
    ordered = canonical_order(table)
    return replace(ordered, notes=(*ordered.notes, *describe(ordered, truth)))


def _from_file(path: Path, problems: Problems, limits: JsonLimits, with_masks: bool) -> Columns:
    text = read_text(path, limits)
    shapes: tuple[Any, ...] = (list[schema.Result],)
    if not with_masks:
        shapes = (list[schema.BoxResult], *shapes)
    for shape in shapes:
        typed = parse_as(text, shape)
        if typed is not None:
            return columns_of(typed, schema.RESULT_KEYS)
    value = parse(text, name=problems.source)
    if not isinstance(value, list):
        raise DataError(
            f"{problems.source}: is an object, expected a list of results "
            '[{"image_id", "category_id", "score", "bbox" and / or "segmentation"}, ...]. '
            "Were --predictions and --annotations exchanged?"
        )
    return _from_records(value, problems)


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


def _table(
    columns: dict[str, Sequence[Any]], truth: GroundTruth, problems: Problems, with_masks: bool
) -> Predictions:
    def where(index: int) -> str:
        image, score = columns["image_id"][index], columns["score"][index]
        seen = "missing" if score is UNSET else quoted(score)
        return f"result {index} of image {quoted(image)}, score {seen}"

    reader = ColumnReader(table="results", where=where, problems=problems)
    image_index = _known(reader, "image_id", columns, truth.image_ids)
    category_index = _known(reader, "category_id", columns, truth.category_ids)
    scores, _ = reader.numbers("score", columns["score"])
    boxes, has_box = reader.boxes(columns.pop("bbox"))
    problems.raise_if_any()  # sizes cannot be told: the ids, to begin with, must be right
    # Nearly in canonical order from here on: masks are long to move once they are read.
    order = np.lexsort((-scores, image_index))
    given: Sequence[Any] = columns.pop("segmentation")
    if not with_masks:
        given = [UNSET if boxed else s for s, boxed in zip(given, has_box.tolist(), strict=True)]
    sizes = truth.image_sizes[image_index[order]].reshape(-1, 2)
    masks = read_masks(
        given,
        sizes,
        where=lambda row: where(int(order[row])),
        problems=problems,
        order=order,
    )
    del given
    boxes, has_box = boxes[order], has_box[order]
    if not problems.count:
        for row in np.flatnonzero(~has_box & ~masks.present).tolist():
            problems.add(where(int(order[row])), "has neither bbox nor segmentation")
    if not has_box.all():
        boxes = np.where(has_box[:, None], boxes, masks.boxes_xywh())
    return Predictions(
        source=problems.source,
        record=order,
        image_index=image_index[order],
        category_index=category_index[order],
        scores=scores[order],
        boxes_xywh=boxes,
        has_box=has_box,
        masks=masks,
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
