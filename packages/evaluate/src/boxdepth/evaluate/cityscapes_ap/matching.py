"""How detections and objects of one class overlap in one frame, and who is right at a threshold.

The rules are those of cityscapesScripts' `evalInstanceLevelSemanticLabeling.py`, re-stated:

* IoU must be *greater* than the threshold. From 0.5 on an object can't be claimed by two disjoint
  detections, but masks may overlap: of several claims the highest score is right, the others wrong.
* Groups and objects below 100 pixels are neither to be found nor wrong to be found.
* A detection that claims nothing is wrong, unless more of it than the threshold lies on void,
  groups and small objects (a small group counts twice, as there).
"""

from dataclasses import dataclass

import numpy as np

from boxdepth.evaluate.cityscapes_ap.detections import Detection
from boxdepth.evaluate.cityscapes_ap.frames import Frame
from boxdepth.evaluate.cityscapes_ap.labels import FIRST_INSTANCE, MIN_PIXELS
from boxdepth.evaluate.results.arrays import Bool, Float64, Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """One class in one frame: `d` detections with pixels, `g` objects and groups.

    Attributes:
        scores: of the detections.
        iou: of every detection with every object.
        ignored_share: of each detection's pixels, the share on void, groups and small objects.
        counts: objects that are to be found.
    """

    scores: Float64[np.ndarray, " d"]
    iou: Float64[np.ndarray, "d g"]
    ignored_share: Float64[np.ndarray, " d"]
    counts: Bool[np.ndarray, " g"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Scores of right and wrong detections, and the objects nobody found."""

    right: Float64[np.ndarray, " t"]
    wrong: Float64[np.ndarray, " f"]
    missed: int


def measure(frame: Frame, detections: list[Detection], label: int) -> Overlaps:
    """Overlaps of one class in one frame; detections without pixels drop out."""
    chosen = [d for d in detections if d.label == label and len(d.pixels)]
    objects = np.flatnonzero(frame.labels == label)
    places = len(frame.values) + 1
    shared = np.zeros((len(chosen), len(objects)), dtype=np.int64)
    void = np.zeros(len(chosen), dtype=np.int64)
    for row, detection in enumerate(chosen):
        hit = np.bincount(frame.instance_of_pixel[detection.pixels], minlength=places)
        shared[row] = hit[objects]
        void[row] = np.count_nonzero(frame.void[detection.pixels])
    sizes = np.array([len(d.pixels) for d in chosen], dtype=np.int64)
    group = frame.values[objects] < FIRST_INSTANCE
    small = frame.sizes[objects] < MIN_PIXELS
    ignored = void + shared @ (group.astype(np.int64) + small)
    return Overlaps(
        scores=np.array([d.score for d in chosen], dtype=np.float64),
        iou=shared / (sizes[:, None] + frame.sizes[objects] - shared),
        ignored_share=ignored / np.maximum(sizes, 1),
        counts=~group & ~small,
    )


def judge(overlaps: Overlaps, threshold: float) -> Verdict:
    """Who is right in one frame at one IoU threshold."""
    claims = overlaps.iou > threshold
    wanted = claims[:, overlaps.counts]
    claimed = wanted.any(axis=0)
    scores = np.where(wanted, overlaps.scores[:, None], -np.inf)
    best = scores.max(axis=0, initial=-np.inf)[claimed]
    repeated = _without_best(scores[:, claimed])
    idle = ~claims.any(axis=1) & (overlaps.ignored_share <= threshold)
    return Verdict(
        right=best,
        wrong=np.concatenate((repeated, overlaps.scores[idle])),
        missed=int((~claimed).sum()),
    )


def _without_best(scores: Float64[np.ndarray, "d g"]) -> Int64[np.ndarray, " n"] | np.ndarray:
    ordered = -np.sort(-scores, axis=0)[1:]
    return np.asarray(ordered[np.isfinite(ordered)])
