"""Are the differences between results real? A paired bootstrap over images.

Images are drawn anew with replacement, the same draw for every results file, and AP is computed
again: what two files have in common (easy images, hard ones) cancels in the difference.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from boxdepth.evaluate.coco_ap import IouType
from boxdepth.evaluate.coco_ap.evaluation import cannot_compare, checked_limits
from boxdepth.evaluate.coco_ap.matching import Matches, average_precisions, match
from boxdepth.evaluate.coco_ap.protocol import MAX_DETECTIONS
from boxdepth.evaluate.measures import best_operating_points, drawn_ece, drawn_f1, outcomes_of
from boxdepth.evaluate.results import (
    DataError,
    GroundTruth,
    Predictions,
    UsageError,
    read_annotations,
    read_predictions,
)
from boxdepth.evaluate.results.arrays import Float64
from boxdepth.evaluate.results.inputs import AnnotationsInput, PredictionsInput, as_input
from boxdepth.evaluate.results.tables import markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Numbers per block of weights x detections: a few dozen megabytes.
_BLOCK = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number and the interval that holds 95 % of its bootstrap values; None if undefined."""

    value: float | None
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        """The three numbers by name."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One results file beside the first one, the baseline.

    Attributes:
        name: its path.
        ap, ap50: with their intervals.
        difference: its AP minus the baseline's, None for the baseline itself.
        p_worse: share of draws in which it is worse than the baseline.
        threshold: score at which its F1 is highest on the whole set; None where it finds nothing.
        f1: at that threshold and IoU 0.5, classes pooled.
        f1_difference: its F1 minus the baseline's, None for the baseline itself.
        calibration_error: expected calibration error of its scores at IoU 0.5.
        per_class: class name to (AP, difference to the baseline).
        warnings: from reading it.
    """

    name: str
    ap: Estimate
    ap50: Estimate
    difference: Estimate | None
    p_worse: float | None
    threshold: float | None
    f1: Estimate
    f1_difference: Estimate | None
    calibration_error: Estimate
    per_class: dict[str, tuple[Estimate, Estimate | None]]
    warnings: tuple[str, ...]

    @property
    def is_worse(self) -> bool:
        """Whether the whole interval of the difference lies below zero."""
        high = self.difference.high if self.difference else None
        return high is not None and high < 0

    def to_json(self) -> dict[str, Any]:
        """As `evaluate compare --json` prints it."""
        return {
            "name": self.name,
            "ap": self.ap.to_json(),
            "ap50": self.ap50.to_json(),
            "difference": self.difference.to_json() if self.difference else None,
            "p_worse": self.p_worse,
            "worse": self.is_worse,
            "threshold": self.threshold,
            "f1": self.f1.to_json(),
            "f1_difference": self.f1_difference.to_json() if self.f1_difference else None,
            "calibration_error": self.calibration_error.to_json(),
            "per_class": {
                name: {"ap": ap.to_json(), "difference": gap.to_json() if gap else None}
                for name, (ap, gap) in self.per_class.items()
            },
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What `compare` found.

    Attributes:
        contenders: one for each results file, the baseline first.
        iou_type: what was compared.
        draws, seed: of the bootstrap.
        max_detections: how many of each image and class counted.
        version: of boxdepth-evaluate, whose own matching was used.
    """

    contenders: tuple[Contender, ...]
    iou_type: IouType
    draws: int
    seed: int
    max_detections: int
    version: str

    def to_json(self) -> dict[str, Any]:
        """As `evaluate compare --json` prints it."""
        return {
            "protocol": "coco",
            "backend": "boxdepth",
            "version": self.version,
            "iou_type": self.iou_type,
            "draws": self.draws,
            "seed": self.seed,
            "max_detections": self.max_detections,
            "files": [contender.to_json() for contender in self.contenders],
        }

    def table(self) -> str:
        """AP and differences in percent with 95 % intervals, as a Markdown table."""
        rows = []
        for one in self.contenders:
            worse = "-" if one.p_worse is None else f"{one.p_worse:.0%} of draws"
            gap = shown(one.difference, signed=True) if one.difference else "baseline"
            rows.append((one.name, shown(one.ap), shown(one.ap50), gap, worse))
        return markdown(("file", "AP", "AP50", "difference", "worse in"), rows)

    def figure(self) -> "Figure":
        """AP of every file with its 95 % interval.

        Raises:
            ImportError: matplotlib, the extra `figures`, is not installed.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 1.2 + 0.4 * len(self.contenders)), layout="constrained")
        axes = figure.add_subplot()
        for place, one in enumerate(self.contenders):
            if one.ap.value is not None and one.ap.low is not None and one.ap.high is not None:
                axes.plot([100 * one.ap.low, 100 * one.ap.high], [place, place], color="0.6")
                axes.plot(100 * one.ap.value, place, "o", color="#0072b2")
        axes.set_yticks(range(len(self.contenders)), [one.name for one in self.contenders],
                        parse_math=False)  # fmt: skip
        axes.invert_yaxis()
        axes.set_xlabel(f"{self.iou_type} AP, percent, 95 % of draws")
        return figure


def shown(estimate: Estimate | None, *, signed: bool = False) -> str:
    """A number in percent and its interval, a dash where undefined."""
    if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    sign = "+" if signed else ""
    low, high = 100 * estimate.low, 100 * estimate.high
    return f"{100 * estimate.value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def compare(
    results: Sequence[PredictionsInput] | Mapping[str, PredictionsInput],
    annotations: AnnotationsInput,
    *,
    iou_type: IouType = "segm",
    draws: int = 1000,
    seed: int = 0,
    max_detections: Sequence[int] = MAX_DETECTIONS,
) -> Comparison:
    """Compare results with the first of them.

    Args:
        results: two or more of what `evaluate_coco` takes, the baseline first; a mapping names
            them.
        annotations: COCO annotations for all of them.
        iou_type: what is compared.
        draws: bootstrap draws; the interval's ends are uncertain by a few percent at 1000.
        seed: of the draws, which are the same for every file.
        max_detections: as in `evaluate_coco`; the last one counts.

    Raises:
        DataError: names what is wrong with a file.
        UsageError: fewer than two files, fewer than 20 draws, or no limit.
    """
    most = checked_limits(max_detections)[-1]
    named = results if isinstance(results, Mapping) else _named(results)
    if len(named) < 2:
        raise UsageError("compare needs two results files or more; the first is the baseline.")
    if draws < 20:
        raise UsageError(f"{draws} draws say nothing about an interval: pass at least 20.")
    truth = read_annotations(as_input(annotations))
    images = len(truth.image_ids)
    if images < 2:
        raise DataError(f"{truth.source}: {images} image; a bootstrap needs several")
    weights = _draw(images, draws, seed)
    drawn: list[_Drawn] = []
    for name, one in named.items():
        predictions = read_predictions(as_input(one), truth)
        fault = cannot_compare(truth, predictions, iou_type)
        if fault:
            raise DataError(fault)
        matches = match(truth, predictions, iou_type, most)
        drawn.append(_Drawn.of(name, truth, predictions, matches, weights))
    return Comparison(
        contenders=tuple(
            _contender(truth, one, drawn[0] if place else None) for place, one in enumerate(drawn)
        ),
        iou_type=iou_type,
        draws=draws,
        seed=seed,
        max_detections=most,
        version=version("boxdepth-evaluate"),
    )


def _named(results: Sequence[PredictionsInput]) -> dict[str, PredictionsInput]:
    """Results by path, or by their place in the call."""
    names = [
        str(one) if isinstance(one, str | os.PathLike) else f"results {place}"
        for place, one in enumerate(results, start=1)
    ]
    unique = [
        name if names.count(name) == 1 else f"{name} ({place})"
        for place, name in enumerate(names, start=1)
    ]
    return dict(zip(unique, results, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """The numbers of one file under every weighting of images, the whole set first."""

    name: str
    warnings: tuple[str, ...]
    threshold: float | None
    table: Float64[np.ndarray, "k t b"]
    f1: Float64[np.ndarray, " b"]
    calibration_error: Float64[np.ndarray, " b"]

    @classmethod
    def of(
        cls,
        name: str,
        truth: GroundTruth,
        predictions: Predictions,
        matches: Matches,
        weights: Float64[np.ndarray, "b i"],
    ) -> "_Drawn":
        outcomes = outcomes_of(truth, predictions, matches)
        threshold = best_operating_points(outcomes, truth.category_names).overall.threshold
        return cls(
            name=name,
            warnings=predictions.notes,
            threshold=threshold,
            table=class_aps(truth, predictions, matches, weights),
            f1=drawn_f1(outcomes, weights, threshold),
            calibration_error=drawn_ece(outcomes, weights),
        )


def class_aps(
    truth: GroundTruth,
    predictions: Predictions,
    matches: Matches,
    weights: Float64[np.ndarray, "b i"],
) -> Float64[np.ndarray, "k t b"]:
    """AP of each class and threshold under each weighting of images; NaN where undefined."""
    classes, thresholds = len(truth.category_ids), len(matches.annotation)
    table = np.full((classes, thresholds, len(weights)), np.nan)
    order = np.argsort(-predictions.scores, kind="stable")
    for category in np.unique(truth.category_index[~truth.crowd]).tolist():
        mine = ~truth.crowd & (truth.category_index == category)
        per_image = np.bincount(truth.image_index[mine], minlength=weights.shape[1])
        wanted = weights @ per_image.astype(np.float64)
        rows = order[predictions.category_index[order] == category]
        for threshold in range(thresholds):
            counted = rows[~matches.ignored[threshold, rows]]
            right = matches.annotation[threshold, counted] >= 0
            images = predictions.image_index[counted]
            step = max(1, _BLOCK // max(len(counted), 1))
            for begin in range(0, len(weights), step):
                lines = slice(begin, begin + step)
                drawn = weights[lines][:, images]
                table[category, threshold, lines] = average_precisions(right, drawn, wanted[lines])
    return table


def _draw(images: int, draws: int, seed: int) -> Float64[np.ndarray, "b i"]:
    """Line 0: every image once. The others: how often each image was drawn."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(images, np.full(images, 1 / images), size=draws)
    return np.concatenate((np.ones((1, images)), drawn.astype(np.float64)))


def _contender(truth: GroundTruth, drawn: _Drawn, baseline: _Drawn | None) -> Contender:
    ap, ap50, by_class = _levels(drawn)
    gap = f1_gap = gaps = None
    if baseline is not None:
        of_baseline, _, classes = _levels(baseline)
        gap, gaps, f1_gap = ap - of_baseline, by_class - classes, drawn.f1 - baseline.f1
    per_class = {
        class_name: (_estimate(by_class[k]), None if gaps is None else _estimate(gaps[k]))
        for k, class_name in enumerate(truth.category_names)
        if not np.isnan(by_class[k, 0])
    }
    return Contender(
        name=drawn.name,
        ap=_estimate(ap),
        ap50=_estimate(ap50),
        difference=None if gap is None else _estimate(gap),
        p_worse=None if gap is None or np.isnan(gap).any() else float((gap[1:] < 0).mean()),
        threshold=drawn.threshold,
        f1=_estimate(drawn.f1),
        f1_difference=None if f1_gap is None else _estimate(f1_gap),
        calibration_error=_estimate(drawn.calibration_error),
        per_class=per_class,
        warnings=drawn.warnings,
    )


def _levels(drawn: _Drawn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AP, AP50, and AP of each class, under every weighting."""
    table = drawn.table
    return _mean(table.reshape(-1, table.shape[2])), _mean(table[:, 0]), table.mean(axis=1)


def _mean(table: Float64[np.ndarray, "n b"]) -> Float64[np.ndarray, " b"]:
    defined = ~np.isnan(table)
    counts = defined.sum(axis=0)
    total = np.where(defined, table, 0.0).sum(axis=0)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def _estimate(values: Float64[np.ndarray, " b"]) -> Estimate:
    """The first value is the whole set's, the others are draws."""
    draws = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or not draws.size:
        return Estimate(value=None, low=None, high=None)
    low, high = np.quantile(draws, (0.025, 0.975)).tolist()
    return Estimate(value=float(values[0]), low=low, high=high)
