"""AP over images that come one after the other, as in a training loop."""

from collections.abc import Mapping, Sequence
from typing import Any

from boxdepth.evaluate.coco_ap.evaluation import evaluate_tables
from boxdepth.evaluate.coco_ap.protocol import MAX_DETECTIONS, IouType
from boxdepth.evaluate.coco_ap.report import CocoReport
from boxdepth.evaluate.results import UsageError, read_annotations, read_predictions
from boxdepth.evaluate.results.inputs import Instances, annotations_document, results_columns


class RunningEvaluation:
    """Collects images and scores them when asked, as often as asked.

    Masks are kept as run lengths, so an image costs a few hundred bytes an object.

    Args:
        categories: category id to name; without it, the labels that occur.
        iou_types: shapes to compare.
        max_detections: as in `evaluate_coco`.
    """

    def __init__(
        self,
        categories: Mapping[int, str] | None = None,
        *,
        iou_types: Sequence[IouType] = ("bbox",),
        max_detections: Sequence[int] = MAX_DETECTIONS,
    ) -> None:
        self._categories = categories
        self._iou_types = iou_types
        self._max_detections = max_detections
        self._found: dict[int, Instances] = {}
        self._annotated: dict[int, Instances] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, predicted: Any, annotated: Any, *, image_id: int | None = None) -> None:
        """Take in one image.

        Args:
            predicted: arrays `boxes` (xyxy in pixels), `labels`, `scores`, `masks` [n, h, w]: a
                dict or an object that has them; torch, NumPy, `supervision.Detections`.
            annotated: the same without scores, optionally with `iscrowd`, `area`, and `size`
                (height, width).
            image_id: by default, images are counted from 1.

        Raises:
            DataError: arrays are missing, of different lengths or not of their shapes.
            UsageError: the image was added before.
        """
        number = len(self) + 1 if image_id is None else image_id
        if number in self._found:
            raise UsageError(f"image {number} was added before; reset() starts anew.")
        found = Instances.of(predicted, f"image {number}, predicted")
        self._annotated[number] = Instances.of(annotated, f"image {number}, annotated")
        self._found[number] = found

    def compute(self) -> CocoReport:
        """The score of all images so far.

        Raises:
            DataError: names what is wrong with their values.
        """
        sizes = {image: found.size for image, found in self._found.items() if found.size}
        names = self._categories or self._names()
        document = annotations_document(self._annotated, names, sizes)
        truth = read_annotations(document)
        found = read_predictions(results_columns(self._found), truth)
        return evaluate_tables(
            truth, found, iou_types=self._iou_types, max_detections=self._max_detections
        )

    def reset(self) -> None:
        """Forget every image."""
        self._found.clear()
        self._annotated.clear()

    def _names(self) -> dict[int, str]:
        every = (*self._annotated.values(), *self._found.values())
        labels = sorted({label for instances in every for label in instances.labels})
        return {label: f"category {label}" for label in labels}
