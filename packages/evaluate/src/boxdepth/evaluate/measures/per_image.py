"""A row for each image: what was found, what was not, what was made up. For sorting."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boxdepth.evaluate.coco_ap.matching import average_precisions
from boxdepth.evaluate.measures.outcomes import Outcomes
from boxdepth.evaluate.results import GroundTruth, MissingExtraError, UsageError
from boxdepth.evaluate.results.arrays import Float64, Int64

SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class PerImage:
    """Columns of one length, one row for each image.

    Attributes:
        image_id, file_name: as in the annotations.
        annotations: to be found (no crowds).
        tp, fp, fn: right and wrong detections from the best threshold on, and annotations not
            found by them, at IoU 0.5.
        ap50: mean over the classes annotated in the image, of all its detections; NaN without any.
    """

    image_id: Int64[np.ndarray, " i"]
    file_name: tuple[str, ...]
    annotations: Int64[np.ndarray, " i"]
    tp: Int64[np.ndarray, " i"]
    fp: Int64[np.ndarray, " i"]
    fn: Int64[np.ndarray, " i"]
    ap50: Float64[np.ndarray, " i"]

    def to_json(self) -> dict[str, list[object]]:
        """The columns by name."""
        return self.columns()

    def columns(self) -> dict[str, list[object]]:
        """Plain values by column name; None where AP50 is undefined."""
        return {
            "image_id": self.image_id.tolist(),
            "file_name": list(self.file_name),
            "annotations": self.annotations.tolist(),
            "tp": self.tp.tolist(),
            "fp": self.fp.tolist(),
            "fn": self.fn.tolist(),
            "ap50": [None if np.isnan(value) else value for value in self.ap50.tolist()],
        }

    def to_csv(self) -> str:
        """Comma-separated text with a header; an undefined AP50 is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = self.columns()
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        return text.getvalue()

    def to_parquet(self) -> bytes:
        """A Parquet file. Raises `MissingExtraError` without pyarrow."""
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise MissingExtraError(
                "Parquet needs pyarrow: pip install 'boxdepth-evaluate[parquet]', or write a .csv."
            ) from None
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(self.columns()), sink)
        return bytes(sink.getvalue())


def check_suffix(path: Path) -> None:
    """Raise `UsageError` unless the name says CSV or Parquet."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: the name must end in .csv or .parquet.")


def per_image(truth: GroundTruth, outcomes: Outcomes, threshold: float | None) -> PerImage:
    """Count right, wrong and missed, and compute AP50, image by image."""
    images = len(truth.image_ids)
    kept = outcomes.above(threshold)
    wanted = np.bincount(outcomes.wanted_image, minlength=images)
    tp = np.bincount(outcomes.image[kept & outcomes.right], minlength=images)
    return PerImage(
        image_id=truth.image_ids,
        file_name=truth.image_names or ("",) * images,
        annotations=wanted,
        tp=tp,
        fp=np.bincount(outcomes.image[kept & ~outcomes.right], minlength=images),
        fn=wanted - tp,
        ap50=_ap50(truth, outcomes),
    )


def _ap50(truth: GroundTruth, outcomes: Outcomes) -> Float64[np.ndarray, " i"]:
    classes = max(len(truth.category_ids), 1)
    pair = outcomes.wanted_image * classes + outcomes.wanted_category
    pairs, counts = np.unique(pair, return_counts=True)
    of_detection = outcomes.image * classes + outcomes.category
    order = np.argsort(of_detection, kind="stable")  # keeps falling scores
    begins = np.searchsorted(of_detection[order], pairs, side="left").tolist()
    ends = np.searchsorted(of_detection[order], pairs, side="right").tolist()
    right = outcomes.right[order]
    total, classes_seen = np.zeros(len(truth.image_ids)), np.zeros(len(truth.image_ids))
    for key, wanted, begin, end in zip(pairs.tolist(), counts.tolist(), begins, ends, strict=True):
        ones = np.ones((1, end - begin))
        ap = average_precisions(right[begin:end], ones, np.array([float(wanted)]))[0]
        total[key // classes] += ap
        classes_seen[key // classes] += 1
    with np.errstate(invalid="ignore"):
        return np.asarray(total / classes_seen)
