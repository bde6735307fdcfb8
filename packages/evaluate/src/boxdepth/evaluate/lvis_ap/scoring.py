"""LVIS' protocol on checked tables.

As COCO's, but: the best 300 detections of an image, of all classes together; a class counts in an
image only if it is annotated there or known to be absent; where it is not annotated exhaustively,
detections that find nothing are ignored; AP also over rare, common and frequent classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from boxdepth.evaluate.coco_ap import IouType
from boxdepth.evaluate.coco_ap.evaluation import cannot_compare
from boxdepth.evaluate.coco_ap.matching import average_precisions, greedy, image_overlaps
from boxdepth.evaluate.coco_ap.protocol import AREA_RANGES, IOU_THRESHOLDS
from boxdepth.evaluate.lvis_ap.federation import FREQUENCIES, Federation
from boxdepth.evaluate.results import DataError, GroundTruth, Predictions
from boxdepth.evaluate.results.arrays import Bool, Float64, Int64
from boxdepth.evaluate.results.tables import markdown, percent

MAX_DETECTIONS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class LvisNumbers:
    """LVIS' thirteen numbers, fractions in [0, 1]; None where nothing is there to be found."""

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ap_rare: float | None
    ap_common: float | None
    ap_frequent: float | None
    ar_300: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LvisReport:
    """What `evaluate_lvis` found.

    Attributes:
        iou_type: what was compared.
        numbers: over all classes.
        per_class: class name to (AP, AP50), for annotated classes.
        images, predictions: counts; of the predictions, `unjudged` are of a class that nobody
            looked for in their image, or beyond the best 300 of their image.
    """

    iou_type: IouType
    numbers: LvisNumbers
    per_class: dict[str, tuple[float, float]]
    images: int
    predictions: int
    unjudged: int

    def table(self) -> str:
        """AP and AP50 of all classes and of each, in percent, as a Markdown table."""
        rows = {"all": (self.numbers.ap, self.numbers.ap50), **self.per_class}
        return markdown(
            ("class", "AP", "AP50"), ((name, *map(percent, aps)) for name, aps in rows.items())
        )

    def to_json(self) -> dict[str, Any]:
        """As `evaluate ap --protocol lvis --json` prints it, under the IoU type."""
        numbers: dict[str, Any] = {
            item.name: getattr(self.numbers, item.name) for item in fields(self.numbers)
        }
        numbers["per_class"] = {
            name: {"ap": ap, "ap50": ap50} for name, (ap, ap50) in self.per_class.items()
        }
        return {**numbers, "unjudged": self.unjudged}


def evaluate_lvis(
    truth: GroundTruth,
    predictions: Predictions,
    federation: Federation,
    *,
    iou_type: IouType = "segm",
) -> LvisReport:
    """Federated AP.

    Raises:
        DataError: the files hold no shapes of this type to compare.
    """
    fault = cannot_compare(truth, predictions, iou_type)
    if fault:
        raise DataError(fault)
    judged = _judged(truth, predictions, federation)
    pieces = list(_match_all(truth, predictions, federation, judged, iou_type))
    shape = (len(AREA_RANGES), len(truth.category_ids), len(IOU_THRESHOLDS))
    precision, recall = np.full(shape, np.nan), np.full(shape, np.nan)
    by_class: dict[int, list[_Matched]] = {}
    for piece in pieces:
        by_class.setdefault(piece.category, []).append(piece)
    for category, found in by_class.items():
        for size in range(len(AREA_RANGES)):
            precision[size, category], recall[size, category] = _score(found, size)
    named = zip(truth.category_names, precision[0], strict=True)
    return LvisReport(
        iou_type=iou_type,
        numbers=_numbers(precision, recall, np.array(federation.frequency)),
        per_class={
            name: (float(ap.mean()), float(ap[0])) for name, ap in named if not np.isnan(ap[0])
        },
        images=len(truth.image_ids),
        predictions=len(predictions),
        unjudged=int((~judged).sum()),
    )


def _judged(
    truth: GroundTruth, predictions: Predictions, federation: Federation
) -> Bool[np.ndarray, " n"]:
    looked_for = federation.absent.copy()
    looked_for[truth.image_index, truth.category_index] = True
    cuts = np.searchsorted(predictions.image_index, predictions.image_index, side="left")
    rank = np.arange(len(predictions)) - cuts  # predictions stand by image and falling score
    known = looked_for[predictions.image_index, predictions.category_index]
    return np.asarray(known & (rank < MAX_DETECTIONS))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Matched:
    """One class in one image, for each size and threshold."""

    category: int
    scores: Float64[np.ndarray, " d"]
    right: Bool[np.ndarray, "a t d"]
    ignored: Bool[np.ndarray, "a t d"]
    wanted: Int64[np.ndarray, " a"]


def _match_all(
    truth: GroundTruth,
    predictions: Predictions,
    federation: Federation,
    judged: np.ndarray,
    iou_type: IouType,
) -> Iterator[_Matched]:
    found_areas = predictions.areas(iou_type)
    for overlaps in image_overlaps(truth, predictions, iou_type):
        rows = np.flatnonzero(judged[overlaps.detections])
        classes = predictions.category_index[overlaps.detections[rows]]
        of_objects = truth.category_index[overlaps.annotations]
        for category in np.union1d(classes, of_objects).tolist():
            mine, columns = rows[classes == category], np.flatnonzero(of_objects == category)
            detections, objects = overlaps.detections[mine], overlaps.annotations[columns]
            yield _match_class(
                overlaps.iou[np.ix_(mine, columns)],
                category=category,
                scores=predictions.scores[detections],
                areas=(found_areas[detections], truth.areas[objects]),
                crowd=truth.crowd[objects],
                exhaustive=not federation.not_exhaustive[overlaps.image, category],
            )


def _match_class(
    iou: np.ndarray,
    *,
    category: int,
    scores: np.ndarray,
    areas: tuple[np.ndarray, np.ndarray],
    crowd: np.ndarray,
    exhaustive: bool,
) -> _Matched:
    shape = (len(AREA_RANGES), len(IOU_THRESHOLDS), len(scores))
    right, ignored = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    wanted = np.zeros(len(AREA_RANGES), dtype=np.int64)
    for size, (low, high) in enumerate(AREA_RANGES.values()):
        outside, not_mine = ((area < low) | (area > high) for area in areas)
        not_wanted = crowd | not_mine
        order = np.argsort(not_wanted, kind="stable")
        place = greedy(iou[:, order], not_wanted[order], used_up=True)
        hit = place >= 0
        aside = hit & np.append(not_wanted[order], False)[place]
        right[size] = hit & ~aside
        ignored[size] = aside | (~hit & (outside | (not exhaustive)))
        wanted[size] = (~not_wanted).sum()
    return _Matched(category=category, scores=scores, right=right, ignored=ignored, wanted=wanted)


def _score(found: list[_Matched], size: int) -> tuple[np.ndarray, np.ndarray]:
    """AP and recall of one class at each threshold; NaN where nothing is to be found."""
    wanted = np.array([float(sum(piece.wanted[size] for piece in found))])
    empty = np.full(len(IOU_THRESHOLDS), np.nan)
    if not wanted[0]:
        return empty, empty
    order = np.argsort(-np.concatenate([piece.scores for piece in found]), kind="stable")
    right = np.concatenate([piece.right[size] for piece in found], axis=1)[:, order]
    counted = ~np.concatenate([piece.ignored[size] for piece in found], axis=1)[:, order]
    precision = [
        average_precisions(hit[keep], np.ones((1, int(keep.sum()))), wanted)[0]
        for hit, keep in zip(right, counted, strict=True)
    ]
    return np.array(precision), (right & counted).sum(axis=1) / wanted[0]


def _numbers(precision: np.ndarray, recall: np.ndarray, frequency: np.ndarray) -> LvisNumbers:
    sizes = {size: place for place, size in enumerate(AREA_RANGES) if size != "all"}
    groups = {f"ap_{word}": _mean(precision[0, frequency == f]) for f, word in FREQUENCIES.items()}
    return LvisNumbers(
        ap=_mean(precision[0]),
        ap50=_mean(precision[0][:, np.isclose(IOU_THRESHOLDS, 0.5)]),
        ap75=_mean(precision[0][:, np.isclose(IOU_THRESHOLDS, 0.75)]),
        **{f"ap_{size}": _mean(precision[place]) for size, place in sizes.items()},
        **groups,
        ar_300=_mean(recall[0]),
        **{f"ar_{size}": _mean(recall[place]) for size, place in sizes.items()},
    )


def _mean(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None
