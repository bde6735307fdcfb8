"""COCO results (a list of detections) as checked columns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxdepth.evaluate.results import records
from boxdepth.evaluate.results.annotations import GroundTruth
from boxdepth.evaluate.results.json_document import JsonLimits, parse, read_text, split_array
from boxdepth.evaluate.results.masks import MaskTable, concatenate, read_masks
from boxdepth.evaluate.results.problems import DataError, Problems, quoted


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
    predictions: Path | Sequence[object], truth: GroundTruth, *, limits: JsonLimits = JsonLimits()
) -> Predictions:
    """Read and check a COCO results file against the annotations it will be scored with.

    A large file is read in pieces, so that its objects never exist all at once.

    Raises:
        DataError: names every fault that would change the score, with record and cure.
    """
    in_memory = not isinstance(predictions, Path | str)
    source = "predictions" if in_memory else str(predictions)
    problems = Problems(source=source)
    pieces, start = [], 0
    for raw in _pieces(predictions, source, limits):
        pieces.append(_read_piece(raw, start, source, truth, problems))
        start += len(raw)
    problems.raise_if_any()
    return _canonical_order(_join(pieces, source, truth))


def _pieces(
    predictions: Path | Sequence[object], source: str, limits: JsonLimits
) -> Iterator[Sequence[object]]:
    if not isinstance(predictions, Path | str):
        yield predictions
        return
    text = read_text(Path(predictions), limits)
    if text[:1] == b"{":
        raise DataError(
            f"{source}: is an object, expected a list of results "
            '[{"image_id", "category_id", "score", "bbox" and / or "segmentation"}, ...]. '
            "Were --predictions and --annotations exchanged?"
        )
    for piece in split_array(text, name=source):
        value = parse(piece, name=source, limits=limits)
        if not isinstance(value, list):
            raise DataError(f"{source}: is {quoted(value)}, expected a list of results")
        yield value


def _read_piece(
    raw: Sequence[object], start: int, source: str, truth: GroundTruth, problems: Problems
) -> Predictions:
    before = problems.count
    rows = records.only_objects(raw, name=lambda i: f"result {start + i}", problems=problems)

    def name(index: int) -> str:
        return f"result {start + index} (image {quoted(rows[index].get('image_id'))})"

    image_index = _known(rows, "image_id", truth.image_ids, name, problems)
    category_index = _known(rows, "category_id", truth.category_ids, name, problems)
    scores, _ = records.numbers(rows, "score", name=name, problems=problems)
    boxes, has_box = records.boxes(rows, name=name, problems=problems)
    sound = problems.count == before
    sizes = truth.image_sizes[image_index].reshape(-1, 2) if sound else np.ones((len(rows), 2), int)
    segmentations = [row.get("segmentation") if sound else None for row in rows]
    masks = read_masks(segmentations, sizes, name=name, problems=problems)
    if sound:
        for index in np.flatnonzero(~has_box & ~masks.present).tolist():
            problems.add(name(index), "has neither bbox nor segmentation")
    return Predictions(
        source=source,
        record=np.arange(start, start + len(rows)),
        image_index=image_index,
        category_index=category_index,
        scores=scores,
        boxes_xywh=np.where(has_box[:, None], boxes, masks.boxes_xywh),
        has_box=has_box,
        masks=masks,
        notes=(),
    )


def _known(
    rows: Sequence[records.Record], key: str, ids: np.ndarray, name: object, problems: Problems
) -> Int64[np.ndarray, " n"]:
    values = records.integers(rows, key, name=name, problems=problems)  # type: ignore[arg-type]
    place, found = records.positions(values, ids)
    valid = np.array([type(row.get(key)) is int for row in rows], dtype=bool)
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


def _join(pieces: Sequence[Predictions], source: str, truth: GroundTruth) -> Predictions:
    def column(key: str) -> np.ndarray:
        return np.concatenate([getattr(piece, key) for piece in pieces])

    if not pieces:
        pieces = [_read_piece([], 0, source, truth, Problems(source=source))]
    joined = Predictions(
        source=source,
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
        row = order[place]
        return int(group[place]), masks.strings[masks.offsets[row] : masks.offsets[row + 1]]

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
            f"{len(never)} classes are predicted but have no annotation ({names}"
            f"{', ...' if len(never) > 5 else ''}): COCO AP leaves them out, they cost nothing."
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
