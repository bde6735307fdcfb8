"""COCO results (a list of detections) as checked columns."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from boxdepth.evaluate.results.annotations import GroundTruth
from boxdepth.evaluate.results.arrays import Bool, Float64, Int64
from boxdepth.evaluate.results.bulk import Growing, arrange
from boxdepth.evaluate.results.masks import MaskTable

COLUMNS = ("record", "image_index", "category_index", "scores", "boxes_xywh", "has_box")


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

    def areas(self, iou_type: str) -> Float64[np.ndarray, " n"]:
        """What files a detection under small, medium or large: area of its box, or of its mask."""
        if iou_type == "bbox":
            return np.asarray(self.boxes_xywh[:, 2:].prod(axis=1))
        return self.masks.areas

    @staticmethod
    def joined(parts: Iterable["Predictions"]) -> "Predictions":
        """The detections of all parts of one file, one part's after the other's."""
        growing, data = Growing(), io.BytesIO()
        for part in parts:
            columns = {column: getattr(part, column) for column in COLUMNS}
            columns["record"] = part.record + growing.count
            growing.add(len(part), columns | part.masks.columns(data.tell()))
            data.write(part.masks.data)
        columns = growing.columns()
        return Predictions(
            source=part.source,
            notes=part.notes,
            masks=MaskTable.of(columns, data.getvalue()),
            **{column: columns[column] for column in COLUMNS},
        )

    def take(self, order: Int64[np.ndarray, " m"]) -> "Predictions":
        """Detections `order`, in that order."""
        chosen = {column: getattr(self, column)[order] for column in COLUMNS}
        return replace(self, **chosen, masks=self.masks.take(order))


def put_in_order(predictions: Predictions) -> None:
    """Sort the detections by image, falling score, box, class and mask, in place."""
    image, scores = predictions.image_index, predictions.scores
    order = by_image_and_score(image, scores)
    image, scores = image[order], scores[order]
    same = (image[1:] == image[:-1]) & (scores[1:] == scores[:-1])
    if same.any():
        order = _ties_by_content(predictions, order, same)
    masks = predictions.masks.columns().values()
    for rows in (*(getattr(predictions, column) for column in COLUMNS), *masks):
        arrange(rows, order)


def by_image_and_score(
    image: Int64[np.ndarray, " n"], scores: Float64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """The order by image and falling score; images that have it already cost nothing."""
    order = np.arange(len(image))
    step = np.diff(image)
    wrong = (step < 0) | ((step == 0) & (scores[1:] > scores[:-1]))
    if wrong.any():
        rows = order
        if step.min() >= 0:
            mixed = np.zeros(image[-1] + 1, dtype=bool)
            mixed[image[1:][wrong]] = True
            rows = np.flatnonzero(mixed[image])
        order = order.copy()
        order[rows] = rows[np.lexsort((-scores[rows], image[rows]))]
    return order


def _ties_by_content(predictions: Predictions, order: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Put detections of equal image and score into the order of box, class and mask."""
    group = np.concatenate(([0], np.cumsum(~same)))
    tied = np.concatenate(([False], same)) | np.concatenate((same, [False]))
    rows, places = order[tied], np.flatnonzero(tied)
    keys = zip(
        group[tied].tolist(),
        predictions.boxes_xywh[rows].tolist(),
        predictions.category_index[rows].tolist(),
        predictions.masks.areas[rows].tolist(),
        map(predictions.masks.text, rows.tolist()),
        rows.tolist(),
        strict=True,
    )
    result = order.copy()
    result[places] = [key[-1] for key in sorted(keys)]
    return result


def describe(predictions: Predictions, truth: GroundTruth) -> Iterator[str]:
    """What looks odd, in sentences."""
    images, classes = len(truth.image_ids), len(truth.category_ids)
    without = int((np.bincount(predictions.image_index, minlength=images) == 0).sum())
    if without:
        yield f"Images without results: {without} of {images}."
    scores = predictions.scores
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        yield (
            f"Scores run from {scores.min():g} to {scores.max():g}, expected [0, 1]: "
            "only their order counts."
        )
    yield from _box_notes(predictions, truth)
    tied = _tied(predictions)
    if tied:
        yield (
            f"{tied} detections share their score with another of the same image and class: they "
            "are ordered by box, and a tool that keeps the file's order may differ slightly."
        )
    annotated = np.bincount(truth.category_index, minlength=classes) > 0
    found = np.bincount(predictions.category_index, minlength=classes) > 0
    never = np.flatnonzero(found & ~annotated)
    if len(never):
        names = ", ".join(truth.category_names[i] for i in never[:5].tolist())
        yield (
            f"Classes that are predicted but have no annotation: {len(never)} ({names}"
            f"{', ...' if len(never) > 5 else ''}). COCO AP leaves them out, they cost nothing."
        )


def _box_notes(predictions: Predictions, truth: GroundTruth) -> Iterator[str]:
    boxed = predictions.has_box
    if not boxed.any():
        return
    missing = int((~boxed).sum())
    if missing:
        yield f"{missing} detections have no bbox: computed from the mask."
    boxes, leaves = predictions.boxes_xywh, ~boxed
    for side in (0, 1):
        farthest = truth.image_sizes[:, 1 - side] * 1.05 + 2
        leaves |= boxes[:, side] + boxes[:, side + 2] > farthest[predictions.image_index]
    share = float((leaves & boxed).sum() / boxed.sum())
    if share > 0.2:
        yield (
            f"{share:.0%} of the boxes leave their image: are they [x1, y1, x2, y2] instead of "
            "[x, y, width, height]? `evaluate check` tells."
        )


def _tied(predictions: Predictions) -> int:
    """Detections that share image, score and class with another; rows are in canonical order."""
    image, scores = predictions.image_index, predictions.scores
    same = (image[1:] == image[:-1]) & (scores[1:] == scores[:-1])
    group = np.concatenate(([0], np.cumsum(~same)))
    tied = np.concatenate(([False], same)) | np.concatenate((same, [False]))
    if not same.any():
        return 0
    keys = np.stack((group[tied], predictions.category_index[tied]), axis=1)
    counts = np.unique(keys, axis=0, return_counts=True)[1]
    return int(counts[counts > 1].sum())
