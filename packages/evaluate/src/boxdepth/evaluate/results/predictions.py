"""COCO results (a list of detections) as checked columns."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxdepth.evaluate.results import records
from boxdepth.evaluate.results.annotations import GroundTruth
from boxdepth.evaluate.results.json_document import JsonLimits, Piece, parse, read_text, split_array
from boxdepth.evaluate.results.masks import MaskTable, concatenate, read_masks
from boxdepth.evaluate.results.problems import DataError, Problems, quoted
from boxdepth.evaluate.results.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Detections in a canonical order: image, falling score, box, class, mask.

    The order makes every score a function of the set of detections, not of the file's order.

    Attributes:
        source: the file, or a word for a list in memory.
        record: each detection's place in the file.
        image_index, category_index: places in the ground truth's lists.
        scores: as given; any finite number ranks.
        boxes_xywh: in pixels, from the mask where the file has none.
        has_box: which detections came with a box of their own.
        masks: one per detection, absent where the file has boxes alone.
        notes: what was filled in or looks odd, in sentences.
    """

    source: str
    record: Int64[np.ndarray, " n"]
    image_index: Int64[np.ndarray, " n"]
    category_index: Int64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]
    boxes_xywh: Float64[np.ndarray, "n 4"]
    has_box: Bool[np.ndarray, " n"]
    masks: MaskTable
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, order: Int64[np.ndarray, " m"]) -> "Predictions":
        """Detections `order`, in that order."""
        columns = ("record", "image_index", "category_index", "scores", "boxes_xywh", "has_box")
        chosen = {column: getattr(self, column)[order] for column in columns}
        return replace(self, **chosen, masks=self.masks.take(order))


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
    return _canonical_order(_join(pieces, truth))


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
    return replace(joined, notes=_notes(joined, truth))


def _canonical_order(predictions: Predictions) -> Predictions:
    boxes, masks = predictions.boxes_xywh, predictions.masks
    keys = (
        masks.areas,
        predictions.category_index,
        *(boxes[:, side] for side in (3, 2, 1, 0)),
        -predictions.scores,
        predictions.image_index,
    )
    order = np.lexsort(keys)
    return predictions.take(_by_string(predictions, order, np.stack(keys, axis=1)))


def _by_string(predictions: Predictions, order: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Put detections equal in every number into the order of their mask strings."""
    if len(order) < 2 or not predictions.masks.present.any():
        return order
    equal = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    if not equal.any():
        return order
    masks = predictions.masks
    group = np.concatenate(([0], np.cumsum(~equal)))
    tied = np.flatnonzero(np.concatenate(([False], equal)) | np.concatenate((equal, [False])))

    def key(place: int) -> tuple[int, bytes]:
        row = int(order[place])
        return int(group[place]), masks.string(row)

    result = order.copy()
    result[tied] = order[sorted(tied.tolist(), key=key)]
    return result


def _notes(predictions: Predictions, truth: GroundTruth) -> tuple[str, ...]:
    notes = []
    without = len(truth.image_ids) - len(np.unique(predictions.image_index))
    if without:
        notes.append(f"Images without results: {without} of {len(truth.image_ids)}.")
    scores = predictions.scores
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        notes.append(
            f"Scores run from {scores.min():g} to {scores.max():g}, expected [0, 1]: "
            "only their order counts."
        )
    notes.extend(_box_notes(predictions, truth))
    tied = _tied(predictions)
    if tied:
        notes.append(
            f"{tied} detections share their score with another of the same image and class: they "
            "are ordered by box, and a tool that keeps the file's order may differ slightly."
        )
    never = np.setdiff1d(predictions.category_index, truth.category_index)
    if len(never):
        names = ", ".join(truth.category_names[i] for i in never[:5].tolist())
        notes.append(
            f"Classes that are predicted but have no annotation: {len(never)} ({names}"
            f"{', ...' if len(never) > 5 else ''}). COCO AP leaves them out, they cost nothing."
        )
    return tuple(notes)


def _box_notes(predictions: Predictions, truth: GroundTruth) -> Iterator[str]:
    boxed = predictions.has_box
    if not boxed.any():
        return
    missing = int((~boxed).sum())
    if missing:
        yield f"{missing} detections have no bbox: computed from the mask."
    boxes = predictions.boxes_xywh[boxed]
    sizes = truth.image_sizes[predictions.image_index[boxed]]
    leaves = (boxes[:, :2] + boxes[:, 2:] > sizes[:, ::-1] * 1.05 + 2).any(axis=1)
    share = float(leaves.mean())
    if share > 0.2:
        yield (
            f"{share:.0%} of the boxes leave their image: are they [x1, y1, x2, y2] instead of "
            "[x, y, width, height]? `evaluate check` tells."
        )


def _tied(predictions: Predictions) -> int:
    keys = (predictions.scores, predictions.category_index, predictions.image_index)
    order = np.lexsort(keys)
    stacked = np.stack(keys, axis=1)[order]
    equal = (stacked[1:] == stacked[:-1]).all(axis=1)
    return int((np.concatenate(([False], equal)) | np.concatenate((equal, [False]))).sum())
