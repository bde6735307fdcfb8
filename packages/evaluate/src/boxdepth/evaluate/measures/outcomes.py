"""Every counted detection as one line: its score, its class, and whether it was right at IoU 0.5.

The other modules here are arithmetic on these columns. Right and wrong are COCO's own
(`coco_ap.matching`), so that what stands here and AP never tell two stories about one file.
"""

from dataclasses import dataclass

import numpy as np

from boxdepth.evaluate.coco_ap.matching import Matches
from boxdepth.evaluate.results import GroundTruth, Predictions
from boxdepth.evaluate.results.arrays import Bool, Float64, Int64

IOU = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Counted detections by falling score, and what there was to find.

    Detections on crowd regions, and those beyond the best of an image and class, count neither way
    in COCO's protocol and are not here. Crowd regions are not among what was to be found.

    Attributes:
        row: place in the predictions.
        score: as given.
        image, category: places in the annotations' lists.
        right: it finds an annotation of its class at IoU 0.5 that no better detection took.
        object: row of that annotation, -1 where wrong.
        wanted: annotations to be found, by image and class.
    """

    row: Int64[np.ndarray, " n"]
    score: Float64[np.ndarray, " n"]
    image: Int64[np.ndarray, " n"]
    category: Int64[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]
    object: Int64[np.ndarray, " n"]
    wanted_image: Int64[np.ndarray, " m"]
    wanted_category: Int64[np.ndarray, " m"]

    def above(self, threshold: float | None) -> Bool[np.ndarray, " n"]:
        """Which detections have at least this score; none where there is no threshold."""
        if threshold is None:
            return np.zeros(len(self.score), dtype=bool)
        return self.score >= threshold


def outcomes_of(truth: GroundTruth, predictions: Predictions, matches: Matches) -> Outcomes:
    """What became of each detection at IoU 0.5."""
    order = np.argsort(-predictions.scores, kind="stable")
    rows = order[~matches.ignored[0, order]]
    real = np.flatnonzero(~truth.crowd)
    return Outcomes(
        row=rows,
        score=predictions.scores[rows],
        image=predictions.image_index[rows],
        category=predictions.category_index[rows],
        right=matches.annotation[0, rows] >= 0,
        object=matches.annotation[0, rows],
        wanted_image=truth.image_index[real],
        wanted_category=truth.category_index[real],
    )
