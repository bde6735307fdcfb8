"""Which class is taken for which, with a row and a column for the background.

Rows are annotations, columns detections. The diagonal is COCO's own matching at IoU 0.5; of what
that leaves over, detections by falling score take the free annotation of another class with the
highest IoU of at least 0.5. So every annotation stands in one row once, every kept detection in
one column once, and precision and recall of a class can be read off the matrix.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from boxdepth.evaluate.coco_ap.matching import ImageOverlaps
from boxdepth.evaluate.measures.outcomes import IOU, Outcomes
from boxdepth.evaluate.results import GroundTruth
from boxdepth.evaluate.results.arrays import Float64, Int64
from boxdepth.evaluate.results.tables import markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BACKGROUND = "background"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionMatrix:
    """Counts of annotations (rows) taken for detections' classes (columns).

    Attributes:
        labels: class names in the order of their ids, and "background" last.
        counts: [truth, prediction]; the last row holds detections of nothing, the last column
            annotations that nobody found, their corner 0.
        threshold: score from which detections take part; None: none did.
    """

    labels: tuple[str, ...]
    counts: Int64[np.ndarray, "k k"]
    threshold: float | None

    def confused(self, most: int) -> list[tuple[str, str, int]]:
        """The most frequent errors between two classes: (annotated, predicted, how often)."""
        between = self.counts[:-1, :-1].copy()
        np.fill_diagonal(between, 0)
        places = np.argsort(-between, axis=None, kind="stable")[:most]
        rows, columns = np.unravel_index(places, between.shape) if between.size else ((), ())
        pairs = zip(np.asarray(rows).tolist(), np.asarray(columns).tolist(), strict=True)
        return [
            (self.labels[row], self.labels[column], int(between[row, column]))
            for row, column in pairs
            if between[row, column]
        ]

    def only(self, kept: Int64[np.ndarray, " m"]) -> "ConfusionMatrix":
        """The classes at rising places `kept`; all others are put into one, "other classes"."""
        classes = len(self.labels) - 1
        group = np.full(classes + 1, len(kept))
        group[kept] = np.arange(len(kept))
        group[-1] = len(kept) + 1
        counts = np.zeros((len(kept) + 2, len(kept) + 2), dtype=np.int64)
        np.add.at(counts, (group[:, None], group[None]), self.counts)
        names = tuple(self.labels[place] for place in kept.tolist())
        return ConfusionMatrix(
            labels=(*names, "other classes", BACKGROUND), counts=counts, threshold=self.threshold
        )

    def worst(self, most: int) -> "ConfusionMatrix":
        """The `most` classes with most errors by themselves; the same matrix if it has no more."""
        classes = len(self.labels) - 1
        if classes <= most:
            return self
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        errors = wrong.sum(axis=0)[:-1] + wrong.sum(axis=1)[:-1]
        return self.only(np.sort(np.argsort(-errors, kind="stable")[:most]))

    def shares(self) -> Float64[np.ndarray, "k k"]:
        """Each count as a share of its row, of its column in the last row; 0 of nothing."""
        rows = np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        share = np.asarray(self.counts / rows)
        share[-1] = self.counts[-1] / np.maximum(self.counts.sum(axis=0), 1)
        return share

    def table(self) -> str:
        """All counts as a Markdown table, a row for each annotated class."""
        rows = zip(self.labels, self.counts.tolist(), strict=True)
        head = ("annotated \\ predicted", *self.labels)
        return markdown(head, ((label, *counts) for label, counts in rows))

    def figure(self) -> "Figure":
        """The matrix as a picture; of more than 30 classes, those with most errors.

        Raises:
            ImportError: matplotlib, the extra `figures`, is not installed.
        """
        from boxdepth.evaluate.measures.figures import confusion_figure

        return confusion_figure(self)

    def to_json(self) -> dict[str, Any]:
        """As `evaluate ap --json` prints it."""
        return {
            "labels": list(self.labels),
            "rows": "annotations",
            "columns": "predictions",
            "counts": self.counts.tolist(),
            "iou": IOU,
            "threshold": self.threshold,
        }


def confusion_matrix(
    truth: GroundTruth,
    outcomes: Outcomes,
    overlaps: Iterable[ImageOverlaps],
    threshold: float | None,
) -> ConfusionMatrix:
    """Count who is taken for whom among detections with at least this score."""
    classes = len(truth.category_ids)
    counts = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    kept = outcomes.above(threshold)
    found = outcomes.object[kept & outcomes.right]
    np.add.at(counts, (truth.category_index[found], truth.category_index[found]), 1)
    free = ~truth.crowd
    free[found] = False
    wrong = kept & ~outcomes.right
    seeking = np.zeros(int(outcomes.row.max(initial=-1)) + 1, dtype=bool)
    seeking[outcomes.row[wrong]] = True
    predicted = np.zeros(len(seeking), dtype=np.int64)
    predicted[outcomes.row] = outcomes.category
    for image in overlaps:
        _count_leftovers(truth, image, free, seeking, predicted, counts)
    counts[:-1, -1] = np.bincount(truth.category_index[free], minlength=classes)
    counts[-1, :-1] = np.bincount(predicted[seeking], minlength=classes)
    return ConfusionMatrix(
        labels=(*truth.category_names, BACKGROUND), counts=counts, threshold=threshold
    )


def _count_leftovers(
    truth: GroundTruth,
    image: ImageOverlaps,
    free: np.ndarray,
    seeking: np.ndarray,
    predicted: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Pair what is left of one image; takes it out of `free` and `seeking`."""
    known = image.detections < len(seeking)
    rows = np.flatnonzero(known)[seeking[image.detections[known]]]
    columns = np.flatnonzero(free[image.annotations])
    if not len(rows) or not len(columns):
        return
    objects, detections = image.annotations[columns], image.detections[rows]
    other = predicted[detections][:, None] != truth.category_index[objects][None]
    iou = np.where(other, image.iou[np.ix_(rows, columns)], -1.0)
    for place, column in pair_by_rank(iou):
        counts[truth.category_index[objects[column]], predicted[detections[place]]] += 1
        free[objects[column]] = False
        seeking[detections[place]] = False


def pair_by_rank(iou: Float64[np.ndarray, "d g"]) -> list[tuple[int, int]]:
    """Detections in order take the free column of highest IoU, if that is at least 0.5."""
    iou = iou.copy()
    pairs = []
    for row in range(len(iou)):
        column = int(np.argmax(iou[row]))
        if iou[row, column] >= IOU:
            pairs.append((row, column))
            iou[:, column] = -1.0
    return pairs
