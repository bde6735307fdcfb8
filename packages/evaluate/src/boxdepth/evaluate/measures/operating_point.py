"""Precision, recall and F1 where F1 is highest: what one would deploy.

F1 = 2 TP / (detections + annotations), the harmonic mean of precision TP / detections and recall
TP / annotations (van Rijsbergen, 1979), over detections with at least the threshold's score.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from boxdepth.evaluate.measures.outcomes import Outcomes
from boxdepth.evaluate.results.arrays import Bool, Float64
from boxdepth.evaluate.results.tables import markdown, share

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What a score threshold gives at IoU 0.5.

    Attributes:
        threshold: detections with at least this score are kept; None where none are worth keeping.
        precision: None where nothing is kept.
        recall, f1: None where nothing is annotated.
        tp, fp, fn: detections that are right and wrong, annotations that nobody found.
    """

    threshold: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    tp: int
    fp: int
    fn: int

    def to_json(self) -> dict[str, float | int | None]:
        """The numbers by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoints:
    """The best threshold for all classes together, and the best for each.

    Attributes:
        overall: one threshold for everything; detections and annotations of all classes pooled.
        macro_f1: mean over annotated classes of the F1 at their own best threshold.
        per_class: class name to its own best point; classes that occur in neither file left out.
    """

    overall: OperatingPoint
    macro_f1: float | None
    per_class: dict[str, OperatingPoint]

    def table(self) -> str:
        """All classes pooled, then each at its own best threshold, as a Markdown table."""
        rows = {"all, one threshold": self.overall, **self.per_class}
        return markdown(
            ("class", "threshold", "precision", "recall", "F1", "TP", "FP", "FN"),
            (
                (name, *map(share, (p.threshold, p.precision, p.recall, p.f1)), p.tp, p.fp, p.fn)
                for name, p in rows.items()
            ),
        )

    def figure(self) -> "Figure":
        """Precision, recall and F1 by class; of more than 40 classes, those of lowest F1.

        Raises:
            ImportError: matplotlib, the extra `figures`, is not installed.
        """
        from boxdepth.evaluate.measures.figures import points_figure

        return points_figure(self)

    def to_json(self) -> dict[str, Any]:
        """As `evaluate ap --json` prints it."""
        return {
            "overall": self.overall.to_json(),
            "macro_f1": self.macro_f1,
            "per_class": {name: point.to_json() for name, point in self.per_class.items()},
        }


def best_operating_points(outcomes: Outcomes, class_names: tuple[str, ...]) -> OperatingPoints:
    """Best points of all classes together and of each."""
    per_class = {}
    for category, name in enumerate(class_names):
        mine = outcomes.category == category
        wanted = int((outcomes.wanted_category == category).sum())
        if wanted or mine.any():
            per_class[name] = best_point(outcomes.score[mine], outcomes.right[mine], wanted)
    known = [point.f1 for point in per_class.values() if point.f1 is not None]
    return OperatingPoints(
        overall=best_point(outcomes.score, outcomes.right, len(outcomes.wanted_category)),
        macro_f1=float(np.mean(known)) if known else None,
        per_class=per_class,
    )


def best_point(
    scores: Float64[np.ndarray, " n"], right: Bool[np.ndarray, " n"], wanted: int
) -> OperatingPoint:
    """The threshold of highest F1, of several the highest.

    A threshold cannot part detections of equal score, so only whole groups of them are tried.

    Args:
        scores: of counted detections, falling.
        right: whether each finds something.
        wanted: annotations to be found.
    """
    true = np.cumsum(right)
    kept = np.arange(1, len(scores) + 1)
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else kept
    if not wanted or not len(last) or not true[-1]:
        return _nothing_kept(wanted)
    f1 = 2 * true[last] / (kept[last] + wanted)
    best = last[int(np.argmax(f1))]
    return point_at(float(scores[best]), scores, right, wanted)


def point_at(
    threshold: float, scores: Float64[np.ndarray, " n"], right: Bool[np.ndarray, " n"], wanted: int
) -> OperatingPoint:
    """Precision, recall and F1 of the detections with at least this score."""
    kept = scores >= threshold
    total, tp = int(kept.sum()), int((kept & right).sum())
    return OperatingPoint(
        threshold=threshold,
        precision=tp / total if total else None,
        recall=tp / wanted if wanted else None,
        f1=2 * tp / (total + wanted) if wanted else None,
        tp=tp,
        fp=total - tp,
        fn=wanted - tp,
    )


def _nothing_kept(wanted: int) -> OperatingPoint:
    nothing = 0.0 if wanted else None
    return OperatingPoint(
        threshold=None, precision=None, recall=nothing, f1=nothing, tp=0, fp=0, fn=wanted
    )
