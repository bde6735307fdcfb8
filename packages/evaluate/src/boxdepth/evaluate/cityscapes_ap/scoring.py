"""Average precision as Cityscapes defines it, over all frames of a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from boxdepth.evaluate.cityscapes_ap.detections import DetectionSource
from boxdepth.evaluate.cityscapes_ap.frames import find_frames, read_frame
from boxdepth.evaluate.cityscapes_ap.labels import CLASSES
from boxdepth.evaluate.cityscapes_ap.matching import Overlaps, Verdict, judge, measure
from boxdepth.evaluate.results import DataError
from boxdepth.evaluate.results.arrays import Float64
from boxdepth.evaluate.results.tables import markdown, percent

# Written as in the official script: 0.6000000000000001 is one of them, and IoU is compared to it.
IOU_THRESHOLDS = np.arange(0.5, 1.0, 0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class CityscapesReport:
    """Official Cityscapes instance AP, as fractions; None for classes without an object.

    Attributes:
        ap: mean over thresholds 0.50 to 0.95 and classes that occur.
        ap50: the same at 0.50 alone.
        per_class: class name to (ap, ap50).
        images: frames in gtFine.
        predictions: detections of the eight classes.
        warnings: what was left out or looks odd, in sentences.
    """

    ap: float | None
    ap50: float | None
    per_class: dict[str, tuple[float | None, float | None]]
    images: int
    predictions: int
    warnings: tuple[str, ...]

    def table(self) -> str:
        """AP and AP50 of all classes and of each, in percent, as a Markdown table."""
        rows = {"all": (self.ap, self.ap50), **self.per_class}
        return markdown(
            ("class", "AP", "AP50"), ((name, *map(percent, aps)) for name, aps in rows.items())
        )

    def to_json(self) -> dict[str, Any]:
        """As `evaluate ap --protocol cityscapes --json` prints it."""
        return {
            "protocol": "cityscapes",
            "backend": "boxdepth",
            "version": version("boxdepth-evaluate"),
            "segm": {
                "ap": self.ap,
                "ap50": self.ap50,
                "per_class": {
                    name: {"ap": ap, "ap50": ap50} for name, (ap, ap50) in self.per_class.items()
                },
            },
            "bbox": None,
            "images": self.images,
            "predictions": self.predictions,
            "warnings": list(self.warnings),
        }


def evaluate_frames(gt_fine: Path, source: DetectionSource) -> CityscapesReport:
    """Score detections against one split folder of gtFine.

    Raises:
        DataError: results for frames that are not there, or faulty files on either side.
    """
    frames = find_frames(gt_fine)
    unknown = sorted(source.frames - frames.keys())
    if unknown:
        raise DataError(
            f"{gt_fine}: has no {unknown[0]}, for which there are results "
            f"({len(unknown)} such frames). Do they belong to another split?"
        )
    overlaps: dict[int, list[Overlaps]] = {label: [] for label in CLASSES}
    count = 0
    for name, path in frames.items():
        frame = read_frame(name, path)
        detections = source.read(name, frame.shape)
        count += len(detections)
        for label in CLASSES:
            overlaps[label].append(measure(frame, detections, label))
    table = np.array([[_class_ap(overlaps[k], t) for t in IOU_THRESHOLDS] for k in CLASSES])
    without = len(frames) - len(source.frames)
    notes = (f"Images without results: {without} of {len(frames)}.",) if without else ()
    return CityscapesReport(
        ap=_mean(table),
        ap50=_mean(table[:, 0]),
        per_class={
            name: (_mean(row), _mean(row[:1]))
            for name, row in zip(CLASSES.values(), table, strict=True)
        },
        images=len(frames),
        predictions=count,
        warnings=(*source.notes, *notes),
    )


def average_precision(verdicts: Sequence[Verdict]) -> float:
    """Area under the precision-recall curve by the official rule; NaN without an object.

    Each distinct score is one point of the curve, and its precision counts for half the recall
    gained on either side of it; a last point of precision 1 at recall 0 is added.
    """
    right = np.concatenate([v.right for v in verdicts])
    wrong = np.concatenate([v.wrong for v in verdicts])
    objects = len(right) + sum(v.missed for v in verdicts)
    if objects == 0:
        return float("nan")
    if len(right) == 0:
        return 0.0
    scores = np.unique(np.concatenate((right, wrong)))
    true = len(right) - np.searchsorted(np.sort(right), scores)
    false = len(wrong) - np.searchsorted(np.sort(wrong), scores)
    precision = np.append(true / (true + false), 1.0)
    recall = np.append(true / objects, 0.0)
    padded = np.concatenate((recall[:1], recall, [0.0]))
    return float(precision @ (0.5 * (padded[:-2] - padded[2:])))


def _class_ap(overlaps: Sequence[Overlaps], threshold: float) -> float:
    return average_precision([judge(frame, threshold) for frame in overlaps])


def _mean(values: Float64[np.ndarray, "..."]) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None
