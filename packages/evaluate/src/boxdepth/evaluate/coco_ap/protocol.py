"""What COCO AP measures: thresholds, size classes, and the numbers that come out.

Microsoft COCO, arXiv:1405.0312, and pycocotools' `Params`: AP is the mean, over IoU thresholds
0.50 to 0.95, classes, and 101 recall levels, of the best precision at that recall or beyond.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast

import numpy as np

from boxdepth.evaluate.results.arrays import Float64

IouType = Literal["segm", "bbox", "boundary"]
Backend = Literal["fast", "pycocotools"]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = (1, 10, 100)
# Closed intervals in pixels: an area of exactly 32 ** 2 counts as small *and* medium, and one
# above 1e10 as nothing at all, as in pycocotools.
AREA_RANGES = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Everything the twelve numbers are means of; -1 marks "no annotation to find".

    Attributes:
        precision: by threshold, recall level, class, size (all, small, medium, large) and number
            of detections kept per image and class.
        recall: the same without recall levels: the highest recall reached.
        scores: score at which each precision is reached; laid out as `precision`.
        max_detections: how many were kept, rising.
    """

    precision: Float64[np.ndarray, "t r k a m"]
    recall: Float64[np.ndarray, "t k a m"]
    scores: Float64[np.ndarray, "t r k a m"]
    max_detections: tuple[int, ...] = MAX_DETECTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoNumbers:
    """COCO's twelve numbers, as fractions in [0, 1]; None where nothing is there to be found.

    Attributes:
        ap, ap50, ap75, ap_small, ap_medium, ap_large: at the largest number of detections kept.
        ar: highest recall, by the number of detections kept per image and class.
        ar_small, ar_medium, ar_large: the same by size, at the largest number.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar: Mapping[int, float | None]
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None

    @property
    def ar_1(self) -> float | None:
        """Recall of the best detection of each image and class; None if that was not asked for."""
        return self.ar.get(1)

    @property
    def ar_10(self) -> float | None:
        """The same of the best 10."""
        return self.ar.get(10)

    @property
    def ar_100(self) -> float | None:
        """The same of the best 100."""
        return self.ar.get(100)

    def to_json(self) -> dict[str, Any]:
        """The twelve numbers by name."""
        numbers: dict[str, Any] = {}
        for item in fields(CocoNumbers):
            value = getattr(self, item.name)
            if item.name == "ar":
                numbers.update({f"ar_{limit}": recall for limit, recall in value.items()})
            else:
                numbers[item.name] = value
        return numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoSummary(CocoNumbers):
    """The twelve numbers over all classes, the same for each class, and the curves behind them.

    Attributes:
        per_class: class name to its own twelve numbers, in the order of category ids.
        curves: precision and recall they are means of.
    """

    per_class: dict[str, CocoNumbers]
    curves: Curves = field(repr=False)

    def precision_recall(self) -> dict[str, Any]:
        """Precision at 101 recalls by IoU threshold: mean over classes, and for each class.

        For objects of any size and 100 detections an image; None for a class without annotation.
        """
        precision = self.curves.precision[:, :, :, 0, -1]
        defined = precision[:, :, (precision > -1).all(axis=(0, 1))]
        return {
            "recall": RECALL_LEVELS.tolist(),
            "iou": IOU_THRESHOLDS.round(2).tolist(),
            "all": defined.mean(axis=2).tolist() if defined.size else None,
            "per_class": {
                name: precision[:, :, k].tolist() if numbers.ap is not None else None
                for k, (name, numbers) in enumerate(self.per_class.items())
            },
        }

    def to_json(self) -> dict[str, Any]:
        """As `evaluate ap --json` prints it."""
        numbers: dict[str, Any] = CocoNumbers.to_json(self)
        numbers["per_class"] = {name: c.to_json() for name, c in self.per_class.items()}
        return numbers


def empty_curves(classes: int, max_detections: tuple[int, ...] = MAX_DETECTIONS) -> Curves:
    """Curves of `classes` classes without an annotation."""
    shape = (
        len(IOU_THRESHOLDS),
        len(RECALL_LEVELS),
        classes,
        len(AREA_RANGES),
        len(max_detections),
    )
    return Curves(
        precision=np.full(shape, -1.0),
        recall=np.full((shape[0], *shape[2:]), -1.0),
        scores=np.full(shape, -1.0),
        max_detections=max_detections,
    )


def summarise(curves: Curves, class_names: tuple[str, ...]) -> CocoSummary:
    """The twelve numbers of all classes together and of each."""
    parts = _parts(curves)
    columns = {name: _class_means(values) for name, values in parts.items()}
    rows = zip(*columns.values(), strict=True)
    per_class = {
        name: CocoNumbers(**_numbers(dict(zip(columns, row, strict=True))))
        for name, row in zip(class_names, rows, strict=True)
    }
    everything = _numbers({name: _mean(values) for name, values in parts.items()})
    return CocoSummary(**everything, per_class=per_class, curves=curves)


def mean_precision(summary: CocoSummary) -> dict[str, list[float]]:
    """Precision at 101 recalls, averaged over classes, at IoU 0.50, 0.75, and over all ten."""
    precision = summary.curves.precision[:, :, :, 0, -1]
    defined = precision[:, :, (precision > -1).all(axis=(0, 1))]
    if not defined.size:
        return {}
    chosen = {
        "IoU 0.50": defined[np.isclose(IOU_THRESHOLDS, 0.5)],
        "IoU 0.75": defined[np.isclose(IOU_THRESHOLDS, 0.75)],
        "IoU 0.50 to 0.95": defined,
    }
    return {name: part.mean(axis=(0, 2)).tolist() for name, part in chosen.items()}


def _parts(curves: Curves) -> dict[str | int, np.ndarray]:
    """What each number is the mean of, classes last; AR by the number of detections kept."""
    precision = np.ascontiguousarray(np.moveaxis(curves.precision[..., -1], -1, 0))
    recall = curves.recall
    sizes = [(place, size) for place, size in enumerate(AREA_RANGES) if size != "all"]
    return {
        "ap": precision[0],
        "ap50": precision[0, np.isclose(IOU_THRESHOLDS, 0.5)],
        "ap75": precision[0, np.isclose(IOU_THRESHOLDS, 0.75)],
        **{f"ap_{size}": precision[place] for place, size in sizes},
        **{limit: recall[:, :, 0, m] for m, limit in enumerate(curves.max_detections)},
        **{f"ar_{size}": recall[:, :, place, -1] for place, size in sizes},
    }


def _numbers(means: dict[str | int, float | None]) -> dict[str, Any]:
    """Means as the fields of `CocoNumbers`."""
    fields_ = {name: mean for name, mean in means.items() if isinstance(name, str)}
    return {**fields_, "ar": {k: mean for k, mean in means.items() if isinstance(k, int)}}


def _class_means(values: Float64[np.ndarray, "..."]) -> list[float | None]:
    """The mean of each class; one that is undefined anywhere is so everywhere."""
    means = values.reshape(-1, values.shape[-1]).mean(axis=0)
    return [mean if mean > -1 else None for mean in means.tolist()]


def _mean(values: np.ndarray) -> float | None:
    defined = values[values > -1]
    return cast(float, defined.mean().item()) if defined.size else None
