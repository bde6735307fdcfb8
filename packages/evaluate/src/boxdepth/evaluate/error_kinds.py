"""Why detections are wrong, and what each kind of error costs (TIDE, arXiv:2008.08115).

At IoU 0.5, a detection that finds nothing is, by the first that applies,
*localisation*: its best IoU with its own class lies between 0.1 and 0.5; *classification*: it has
0.5 with another class; *duplicate*: 0.5 with an annotation that a better detection took;
*background*: below 0.1 with everything; *both*: between 0.1 and 0.5 with another class. An
annotation nobody found, not even with a wrong class or place, is *missed*. The cost of a kind is
the AP50 gained if an oracle mended it and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from boxdepth.evaluate.coco_ap import IouType
from boxdepth.evaluate.coco_ap.matching import (
    ImageOverlaps,
    Matches,
    average_precisions,
    image_overlaps,
)
from boxdepth.evaluate.results import GroundTruth, Predictions
from boxdepth.evaluate.results.arrays import Bool, Int64

FOUND, NEAR = 0.5, 0.1
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
_RIGHT, _IGNORED = -1, -2


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorKinds:
    """Kinds of error of one results file.

    Attributes:
        ap50: as it is; None if nothing is to be found.
        counts: detections (annotations, for missed) of each kind.
        gains: AP50 won by mending each kind alone.
        kind: place in `KINDS` of each detection; -1 right, -2 counted neither way.
        target: the annotation a localisation or classification error is about, else -1.
        missed: rows of the missed annotations.
    """

    ap50: float | None
    counts: Mapping[str, int]
    gains: Mapping[str, float]
    kind: Int64[np.ndarray, " n"]
    target: Int64[np.ndarray, " n"]
    missed: Int64[np.ndarray, " m"]

    def to_json(self) -> dict[str, object]:
        """Counts and costs by name."""
        return {"ap50": self.ap50, "counts": dict(self.counts), "gains": dict(self.gains)}


def find_errors(
    truth: GroundTruth, predictions: Predictions, matches: Matches, iou_type: IouType
) -> ErrorKinds:
    """Sort every wrong detection and every missed annotation into its kind, and price the kinds."""
    kind = np.full(len(predictions), _RIGHT, dtype=np.int64)
    kind[matches.annotation[0] < 0] = KINDS.index("background")
    kind[matches.ignored[0]] = _IGNORED
    target = np.full(len(predictions), -1, dtype=np.int64)
    for overlaps in image_overlaps(truth, predictions, iou_type):
        _sort_image(truth, predictions, overlaps, kind, target)
    missed = _missed(truth, matches, target)
    scored = _Scored.of(truth, predictions, matches, kind)
    ap50 = scored.ap()
    gains = {name: scored.mended(name, target, missed).ap() - ap50 for name in KINDS}
    counts = {name: int((kind == place).sum()) for place, name in enumerate(KINDS)}
    return ErrorKinds(
        ap50=None if np.isnan(ap50) else ap50,
        counts={**counts, "missed": len(missed)},
        gains={name: 0.0 if np.isnan(gain) else gain for name, gain in gains.items()},
        kind=kind,
        target=target,
        missed=missed,
    )


def _sort_image(
    truth: GroundTruth,
    predictions: Predictions,
    overlaps: ImageOverlaps,
    kind: np.ndarray,
    target: np.ndarray,
) -> None:
    real = ~truth.crowd[overlaps.annotations]
    objects, iou = overlaps.annotations[real], overlaps.iou[:, real]
    wrong = np.flatnonzero(kind[overlaps.detections] >= 0)
    if not len(objects) or not len(wrong):
        return
    rows, iou = overlaps.detections[wrong], iou[wrong]
    own = predictions.category_index[rows][:, None] == truth.category_index[objects][None]
    same, other = np.where(own, iou, -1.0), np.where(own, -1.0, iou)
    best_same, best_other = same.max(axis=1), other.max(axis=1)
    misplaced = (best_same >= NEAR) & (best_same < FOUND)
    names = np.select(
        [misplaced, best_other >= FOUND, best_same >= FOUND, best_other >= NEAR],
        [KINDS.index(k) for k in ("localisation", "classification", "duplicate", "both")],
        default=KINDS.index("background"),
    )
    kind[rows] = names
    target[rows[misplaced]] = objects[same.argmax(axis=1)[misplaced]]
    confused = names == KINDS.index("classification")
    target[rows[confused]] = objects[other.argmax(axis=1)[confused]]


def _missed(truth: GroundTruth, matches: Matches, target: np.ndarray) -> Int64[np.ndarray, " m"]:
    seen = truth.crowd.copy()
    seen[matches.annotation[0][matches.annotation[0] >= 0]] = True
    seen[target[target >= 0]] = True
    return np.flatnonzero(~seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    """Counted detections by falling score, and how many annotations each class has."""

    rows: np.ndarray
    category: np.ndarray
    right: Bool[np.ndarray, " n"]
    found: np.ndarray
    kind: np.ndarray
    wanted: np.ndarray
    object_category: np.ndarray

    @classmethod
    def of(
        cls, truth: GroundTruth, predictions: Predictions, matches: Matches, kind: np.ndarray
    ) -> "_Scored":
        order = np.argsort(-predictions.scores, kind="stable")
        rows = order[kind[order] != _IGNORED]
        real = truth.category_index[~truth.crowd]
        return cls(
            rows=rows,
            category=predictions.category_index[rows],
            right=kind[rows] == _RIGHT,
            found=matches.annotation[0][rows],
            kind=kind[rows],
            wanted=np.bincount(real, minlength=len(truth.category_ids)).astype(np.float64),
            object_category=truth.category_index,
        )

    def ap(self) -> float:
        """Mean AP over the classes that have something to be found."""
        values = []
        for category in np.flatnonzero(self.wanted > 0).tolist():
            right = self.right[self.category == category]
            ones = np.ones((1, len(right)))
            values.append(average_precisions(right, ones, self.wanted[[category]])[0])
        return float(np.mean(values)) if values else float("nan")

    def mended(self, name: str, target: np.ndarray, missed: np.ndarray) -> "_Scored":
        """As if every error of one kind had not been made."""
        if name == "missed":
            gone = np.bincount(self.object_category[missed], minlength=len(self.wanted))
            return self._with(wanted=self.wanted - gone)
        errors = self.kind == KINDS.index(name)
        if name not in ("classification", "localisation"):
            return self._with(keep=~errors)
        aims = np.where(errors, target[self.rows], -1)
        taken = set(self.found[self.right].tolist())
        becomes_right = np.zeros(len(aims), dtype=bool)
        for place in np.flatnonzero(errors).tolist():
            if aims[place] not in taken:
                taken.add(aims[place])
                becomes_right[place] = True
        category = np.where(becomes_right, self.object_category[aims], self.category)
        return self._with(
            keep=~errors | becomes_right, right=self.right | becomes_right, category=category
        )

    def _with(
        self,
        *,
        keep: np.ndarray | None = None,
        right: np.ndarray | None = None,
        category: np.ndarray | None = None,
        wanted: np.ndarray | None = None,
    ) -> "_Scored":
        kept = np.ones(len(self.rows), dtype=bool) if keep is None else keep
        return _Scored(
            rows=self.rows[kept],
            category=(self.category if category is None else category)[kept],
            right=(self.right if right is None else right)[kept],
            found=self.found[kept],
            kind=self.kind[kept],
            wanted=self.wanted if wanted is None else wanted,
            object_category=self.object_category,
        )
