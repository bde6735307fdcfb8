"""F1 and calibration error of images drawn anew, for intervals around them."""

import numpy as np

from boxdepth.evaluate.measures.calibration import BINS, bin_of
from boxdepth.evaluate.measures.outcomes import Outcomes
from boxdepth.evaluate.results.arrays import Float64


def drawn_f1(
    outcomes: Outcomes, weights: Float64[np.ndarray, "b i"], threshold: float | None
) -> Float64[np.ndarray, " b"]:
    """F1 at IoU 0.5 of all classes pooled, at one threshold, under each weighting of images.

    The threshold stays that of the whole set: one deploys one. NaN where nothing is annotated.
    """
    images = weights.shape[1]
    kept = outcomes.above(threshold)
    right = weights @ np.bincount(outcomes.image[kept & outcomes.right], minlength=images)
    total = weights @ np.bincount(outcomes.image[kept], minlength=images)
    wanted = weights @ np.bincount(outcomes.wanted_image, minlength=images)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(wanted > 0, 2 * right / (total + wanted), np.nan))


def drawn_ece(outcomes: Outcomes, weights: Float64[np.ndarray, "b i"]) -> Float64[np.ndarray, " b"]:
    """Expected calibration error under each weighting of images; NaN without detections.

    In a bin, n_b * |precision - confidence| = |right ones - sum of scores|: both are sums over
    images, which is all that a drawing changes.
    """
    scores, images = outcomes.score, weights.shape[1]
    if not len(scores) or scores.min() < 0 or scores.max() > 1:
        return np.full(len(weights), np.nan)
    cell = outcomes.image * BINS + bin_of(scores)
    gap = np.bincount(cell, weights=outcomes.right - scores, minlength=images * BINS)
    total = weights @ np.bincount(outcomes.image, minlength=images)
    gaps = np.abs(weights @ gap.reshape(images, BINS)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total > 0, gaps / total, np.nan))
