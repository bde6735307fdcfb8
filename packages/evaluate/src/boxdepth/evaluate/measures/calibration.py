"""Does a score of 0.8 mean right in eight cases of ten?

Expected calibration error (Guo et al., arXiv:1706.04599; of detectors: Küppers et al.,
arXiv:2004.13546): ECE = sum over bins of n_b / n * |precision_b - confidence_b|, where the
confidence of a bin is its mean score, and right is right at IoU 0.5.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from boxdepth.evaluate.results.arrays import Bool, Float64, Int64
from boxdepth.evaluate.results.tables import markdown, share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Reliability of scores in [0, 1], in bins of equal width, each closed above.

    Attributes:
        ece: expected calibration error; None without detections, or with scores outside [0, 1].
        largest: the largest gap of a bin.
        count: detections in each bin.
        edges: of the bins.
        confidence, precision: mean score, and share of right ones; NaN in empty bins.
    """

    ece: float | None
    largest: float | None
    count: Int64[np.ndarray, " b"]
    edges: Float64[np.ndarray, " b+1"]
    confidence: Float64[np.ndarray, " b"]
    precision: Float64[np.ndarray, " b"]

    def table(self) -> str:
        """Every bin with detections as a row of a Markdown table."""
        columns = (self.edges[:-1], self.edges[1:], self.count, self.confidence, self.precision)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return markdown(
            ("scores", "detections", "mean score", "precision"),
            ((f"{a:.2f} to {b:.2f}", n, share(c), share(p)) for a, b, n, c, p in rows if n),
        )

    def figure(self) -> "Figure":
        """The reliability curve.

        Raises:
            ImportError: matplotlib, the extra `figures`, is not installed.
        """
        from boxdepth.evaluate.measures.figures import calibration_figure

        return calibration_figure(self)

    def to_json(self) -> dict[str, Any]:
        """As `evaluate ap --json` prints it; None in empty bins."""
        return {
            "ece": self.ece,
            "largest": self.largest,
            "edges": self.edges.tolist(),
            "count": self.count.tolist(),
            "confidence": [None if np.isnan(v) else v for v in self.confidence.tolist()],
            "precision": [None if np.isnan(v) else v for v in self.precision.tolist()],
        }


def calibrate(
    scores: Float64[np.ndarray, " n"], right: Bool[np.ndarray, " n"], *, bins: int = BINS
) -> Calibration:
    """Compare scores with how often they are right."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    unit = bool(len(scores)) and scores.min() >= 0.0 and scores.max() <= 1.0
    place = bin_of(scores, bins) if unit else np.zeros(0, dtype=np.int64)
    count = np.bincount(place, minlength=bins)
    of_scores, of_right = (scores, right.astype(np.float64)) if unit else (place, place)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, weights=of_scores, minlength=bins) / count
        precision = np.bincount(place, weights=of_right, minlength=bins) / count
    gap = np.where(count > 0, np.abs(np.nan_to_num(precision - confidence)), 0.0)
    return Calibration(
        ece=float((gap * count).sum() / count.sum()) if unit else None,
        largest=float(gap.max()) if unit else None,
        count=count,
        edges=edges,
        confidence=confidence,
        precision=precision,
    )


def bin_of(scores: Float64[np.ndarray, " n"], bins: int = BINS) -> Int64[np.ndarray, " n"]:
    """Bin of each score in [0, 1]; a score on an edge belongs to the bin below it."""
    return np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], scores)
