"""Reading a COCO results file: in pieces, checked record by record, faults named."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Int64

from boxdepth.evaluate.results import records
from boxdepth.evaluate.results.annotations import GroundTruth
from boxdepth.evaluate.results.json_document import (
    JsonLimits,
    Piece,
    parse,
    read_text,
    split_array,
)
from boxdepth.evaluate.results.masks import MaskTable, concatenate, read_masks
from boxdepth.evaluate.results.predictions import Predictions, canonical_order, describe
from boxdepth.evaluate.results.problems import DataError, Problems, quoted
from boxdepth.evaluate.results.workers import Workers


def read_predictions(
    predictions: Path | Sequence[object],
    truth: GroundTruth,
    *,
    with_masks: bool = True,
    limits: JsonLimits = JsonLimits(),
    workers: Workers | None = None,
) -> Predictions:
    """Read and check a COCO results file against the annotations it will be scored with.

    A large file is read in pieces, so that its objects never exist all at once.

    Args:
        predictions: the file, or its list (which is left as it is).
        truth: what image and category ids mean, and how large the images are.
        with_masks: read segmentations even where there are boxes.
        limits: how large a file may be.
        workers: processes that share the pieces.

    Raises:
        DataError: names every fault that would change the score, with record and cure.
    """
    in_memory = not isinstance(predictions, Path)
    source = "predictions" if in_memory else str(predictions)
    reader = _Reader(
        source=source,
        image_ids=truth.image_ids,
        image_sizes=truth.image_sizes,
        category_ids=truth.category_ids,
        with_masks=with_masks,
        limits=limits,
    )
    problems = Problems(source=source)
    pieces: list[Predictions] = []
    count = 0
    for piece, found in (workers or Workers()).map(reader, _pieces(predictions, source, limits)):
        pieces.append(replace(piece, record=piece.record + count))
        count += len(piece)
        problems.merge(found)
    problems.raise_if_any()
    return canonical_order(_join(pieces, truth))


def _pieces(
    predictions: Path | Sequence[object], source: str, limits: JsonLimits
) -> Iterator[Piece | Sequence[object]]:
    if not isinstance(predictions, Path):
        yield predictions
        return
    text = read_text(predictions, limits)
    if text[:1] == b"{":
        raise DataError(
            f"{source}: is an object, expected a list of results "
            '[{"image_id", "category_id", "score", "bbox" and / or "segmentation"}, ...]. '
            "Were --predictions and --annotations exchanged?"
        )
    yield from split_array(text, name=source)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Turns one piece of a results file into columns; travels to worker processes."""

    source: str
    image_ids: np.ndarray
    image_sizes: np.ndarray
    category_ids: np.ndarray
    with_masks: bool
    limits: JsonLimits

    def __call__(self, piece: Piece | Sequence[object]) -> tuple[Predictions, Problems]:
        problems = Problems(source=self.source)
        value: Sequence[object] = [] if isinstance(piece, Piece) else piece
        if isinstance(piece, Piece):
            parsed = parse(piece.text, name=self.source, limits=self.limits, found=piece.found)
            value = cast(list[object], parsed)
        rows = records.only_objects(value, name=lambda i: f"result {i}", problems=problems)
        return self._columns(rows, problems), problems

    def _columns(self, rows: list[records.Record], problems: Problems) -> Predictions:
        def name(index: int) -> str:
            row = rows[index]
            return (
                f"result of image {quoted(row.get('image_id'))}, score {quoted(row.get('score'))}"
            )

        image_index = _known(rows, "image_id", self.image_ids, name, problems)
        category_index = _known(rows, "category_id", self.category_ids, name, problems)
        scores, _ = records.numbers(rows, "score", name=name, problems=problems)
        boxes, has_box = records.boxes(rows, name=name, problems=problems)
        masks = self._masks(rows, image_index, has_box, name, problems)
        if not has_box.all():
            boxes = np.where(has_box[:, None], boxes, masks.boxes_xywh())
        return Predictions(
            source=self.source,
            record=np.arange(len(rows)),
            image_index=image_index,
            category_index=category_index,
            scores=scores,
            boxes_xywh=boxes,
            has_box=has_box,
            masks=masks,
            notes=(),
        )

    def _masks(
        self,
        rows: list[records.Record],
        image_index: np.ndarray,
        has_box: np.ndarray,
        name: Callable[[int], str],
        problems: Problems,
    ) -> MaskTable:
        if problems.count:  # sizes cannot be told: the ids, to begin with, must be right
            return read_masks(
                [None] * len(rows), np.ones((len(rows), 2), int), name=name, problems=problems
            )
        wanted = self.with_masks | ~has_box
        segmentations = [
            row.get("segmentation") if is_wanted else None
            for row, is_wanted in zip(rows, wanted.tolist(), strict=True)
        ]
        sizes = self.image_sizes[image_index].reshape(-1, 2)
        masks = read_masks(segmentations, sizes, name=name, problems=problems)
        if not problems.count:
            for index in np.flatnonzero(~has_box & ~masks.present).tolist():
                problems.add(name(index), "has neither bbox nor segmentation")
        return masks


def _known(
    rows: Sequence[records.Record],
    key: str,
    ids: np.ndarray,
    name: Callable[[int], str],
    problems: Problems,
) -> Int64[np.ndarray, " n"]:
    values = records.integers(rows, key, name=name, problems=problems)
    place, found = records.positions(values, ids)
    if found.all():
        return place
    valid = np.array([records.is_whole(row.get(key)) for row in rows], dtype=bool)
    unknown = np.unique(values[~found & valid])
    if len(unknown):
        table = "images" if key == "image_id" else "categories"
        count = int((~found & valid).sum())
        problems.add(
            f"{count} results",
            f"{key} {_some(unknown)} not in the annotations' {table} ({_some(ids)}). "
            "`evaluate check` says what the AP would be after likely cures",
            count=count,
        )
    return place


def _some(ids: Int64[np.ndarray, " k"]) -> str:
    shown = ", ".join(map(str, ids[:5].tolist()))
    return shown + (f", ... {len(ids)} in all" if len(ids) > 5 else "")


def _join(pieces: Sequence[Predictions], truth: GroundTruth) -> Predictions:
    def column(key: str) -> np.ndarray:
        return np.concatenate([getattr(piece, key) for piece in pieces])

    joined = Predictions(
        source=pieces[0].source,
        record=column("record"),
        image_index=column("image_index"),
        category_index=column("category_index"),
        scores=column("scores"),
        boxes_xywh=column("boxes_xywh"),
        has_box=column("has_box"),
        masks=concatenate([piece.masks for piece in pieces]),
        notes=(),
    )
    return replace(joined, notes=describe(joined, truth))
