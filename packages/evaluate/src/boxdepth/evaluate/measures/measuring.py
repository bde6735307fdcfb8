"""All measures of one results file, from one matching."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boxdepth.evaluate.coco_ap import IouType
from boxdepth.evaluate.coco_ap.evaluation import cannot_compare
from boxdepth.evaluate.coco_ap.matching import Matches, image_overlaps, match
from boxdepth.evaluate.coco_ap.protocol import MAX_DETECTIONS
from boxdepth.evaluate.measures.calibration import Calibration, calibrate
from boxdepth.evaluate.measures.confusion import ConfusionMatrix, confusion_matrix
from boxdepth.evaluate.measures.fragmentation import Fragmentation, fragmentation
from boxdepth.evaluate.measures.operating_point import OperatingPoints, best_operating_points
from boxdepth.evaluate.measures.outcomes import outcomes_of
from boxdepth.evaluate.measures.per_image import PerImage, per_image
from boxdepth.evaluate.measures.slices import (
    DepthSign,
    Slice,
    by_depth,
    by_overlap,
    by_size,
    measure_slices,
)
from boxdepth.evaluate.results import (
    DataError,
    GroundTruth,
    Predictions,
    read_annotations,
    read_predictions,
)
from boxdepth.evaluate.results.inputs import AnnotationsInput, PredictionsInput, as_input
from boxdepth.evaluate.results.tables import markdown, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Everything here at IoU 0.5, detections at or above the best overall threshold.

    Attributes:
        iou_type: whether masks or boxes were compared.
        points: precision, recall, F1 at the best thresholds.
        confusion: who is taken for whom.
        calibration: of all detections' scores.
        fragmentation: None where boxes were compared.
        slices: by size, by overlap, and by depth where there are depth maps.
        per_image: a row for each image.
    """

    iou_type: IouType
    points: OperatingPoints
    confusion: ConfusionMatrix
    calibration: Calibration
    fragmentation: Fragmentation | None
    slices: tuple[Slice, ...]
    per_image: PerImage

    def table(self) -> str:
        """Best thresholds, then slices (in percent), as two Markdown tables."""
        slices = markdown(
            ("by", "slice", "range", "objects", "AP", "AP50", "recall", "AR"),
            (
                (s.by, s.name, s.range, s.objects,
                 *map(percent, (s.ap, s.ap50, s.recall, s.average_recall)))
                for s in self.slices
            ),
        )  # fmt: skip
        return f"{self.points.table()}\n\n{slices}"

    def figure(self) -> "Figure":
        """Best thresholds, confusion and calibration beside each other.

        Raises:
            ImportError: matplotlib, the extra `figures`, is not installed.
        """
        from boxdepth.evaluate.measures.figures import measures_figure

        return measures_figure(self.points, self.confusion, self.calibration)

    def to_json(self) -> dict[str, Any]:
        """As `evaluate ap --json` prints it; the rows of images have files of their own."""
        return {
            "iou_type": self.iou_type,
            "f1": self.points.to_json(),
            "confusion": self.confusion.to_json(),
            "calibration": self.calibration.to_json(),
            "fragmentation": self.fragmentation.to_json() if self.fragmentation else None,
            "slices": [part.to_json() for part in self.slices],
        }


def measure(
    predictions: PredictionsInput,
    annotations: AnnotationsInput,
    *,
    iou_type: IouType = "segm",
    max_detections: int = MAX_DETECTIONS[-1],
    depth: Path | None = None,
    depth_sign: DepthSign = "inverse",
) -> Measures:
    """What people ask beside AP: thresholds, confusion, calibration, fragmentation, slices.

    Args:
        predictions, annotations: as `evaluate_coco` takes them.
        iou_type: what is compared.
        max_detections: how many of each image and class count, best scores first.
        depth: folder of PNG, TIFF or NPY depth maps, or an HDF5 file, for slices by depth.
        depth_sign: "inverse" if larger means nearer (as depth networks and our stores have it),
            "distance" if larger means farther.

    Raises:
        DataError: faulty files, files that have no masks to compare, or faulty depth maps.
    """
    truth = read_annotations(as_input(annotations), with_masks=iou_type != "bbox")
    found = read_predictions(as_input(predictions), truth, with_masks=iou_type != "bbox")
    fault = cannot_compare(truth, found, iou_type)
    if fault:
        raise DataError(fault)
    matches = match(truth, found, iou_type, max_detections)
    return measure_matched(
        truth, found, matches, iou_type=iou_type, depth=depth, depth_sign=depth_sign
    )


def measure_matched(
    truth: GroundTruth,
    predictions: Predictions,
    matches: Matches,
    *,
    iou_type: IouType,
    depth: Path | None = None,
    depth_sign: DepthSign = "inverse",
) -> Measures:
    """`measure` for results that are matched already."""
    outcomes = outcomes_of(truth, predictions, matches)
    points = best_operating_points(outcomes, truth.category_names)
    threshold = points.overall.threshold
    overlaps = list(image_overlaps(truth, predictions, iou_type))
    pieces = None
    if iou_type != "bbox":
        kept = np.zeros(len(predictions), dtype=bool)
        kept[outcomes.row[outcomes.above(threshold)]] = True
        pieces = fragmentation(truth, predictions, overlaps, kept)
    parts = [by_size(truth), by_overlap(truth)]
    if depth is not None:
        parts.append(by_depth(truth, depth, depth_sign))
    slices = measure_slices(truth, predictions, matches, threshold=threshold, parts=parts)
    return Measures(
        iou_type=iou_type,
        points=points,
        confusion=confusion_matrix(truth, outcomes, overlaps, threshold),
        calibration=calibrate(outcomes.score, outcomes.right),
        fragmentation=pieces,
        slices=tuple(slices),
        per_image=per_image(truth, outcomes, threshold),
    )
