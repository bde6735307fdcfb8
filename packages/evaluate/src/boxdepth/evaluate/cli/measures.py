"""What `evaluate ap --measures` shows and writes."""

import json
from pathlib import Path

from rich.table import Table
from rich.text import Text

from boxdepth.evaluate.cli.app import console, refuse_existing, say, write_new
from boxdepth.evaluate.measures import ConfusionMatrix, Measures, OperatingPoint
from boxdepth.evaluate.measures.per_image import check_suffix
from boxdepth.evaluate.report import confusion_csv, confusion_svg
from boxdepth.evaluate.results import UsageError

MATRIX_SUFFIXES = (".svg", ".csv", ".json")
_CONFUSED = 5


def check_names(matrix: Path | None, rows: Path | None, *, overwrite: bool) -> None:
    """Refuse names of unknown kinds, and files that are there, before anything is computed."""
    if matrix is not None and matrix.suffix.lower() not in MATRIX_SUFFIXES:
        raise UsageError(f"{matrix}: the name must end in .svg (a picture), .csv or .json.")
    if rows is not None:
        check_suffix(rows)
    for path in filter(None, (matrix, rows)):
        refuse_existing(path, overwrite=overwrite)


def show_measures(measures: Measures, *, per_class: bool) -> None:
    """Tables on stderr: points, confusion, calibration, fragmentation, slices."""
    words = "masks" if measures.iou_type == "segm" else "boxes"
    say(f"At IoU 0.5, {words}, detections from the score of highest F1 on:")
    console.print(points_table(measures, per_class=per_class))
    confused = measures.confusion.confused(_CONFUSED)
    if confused:
        pairs = (
            f"{annotated} for {predicted} ({count})" for annotated, predicted, count in confused
        )
        say(f"Most often taken for another: {', '.join(pairs)}.")
    calibration = measures.calibration
    if calibration.ece is None:
        say("Calibration: undefined (no detections, or scores outside [0, 1]).")
    else:
        say(
            f"Calibration: scores are {calibration.ece:.3f} off precision on average "
            f"(expected calibration error), {calibration.largest:.3f} at worst."
        )
    pieces = measures.fragmentation
    if pieces is not None and pieces.parts is not None:
        say(
            f"Fragmentation: {pieces.parts:.2f} parts a mask ({_parts(pieces.truth_parts)} "
            f"annotated); {pieces.split} of {pieces.objects} objects split over several "
            f"detections, {pieces.merged} of {pieces.detections} detections merge several objects."
        )
    console.print(slices_table(measures))


def points_table(measures: Measures, *, per_class: bool) -> Table:
    """Precision, recall and F1 at the best threshold, overall and by class."""
    table = Table("", "threshold", "precision", "recall", "F1", "TP", "FP", "FN")
    _add_point(table, "all, one threshold", measures.points.overall)
    for name, point in measures.points.per_class.items() if per_class else ():
        _add_point(table, name, point)
    return table


def slices_table(measures: Measures) -> Table:
    """AP and recall of the parts of the annotations, in percent."""
    table = Table("by", "slice", "range", "objects", "AP", "AP50", "recall", "AR")
    for part in measures.slices:
        values = (part.ap, part.ap50, part.recall, part.average_recall)
        shown = ("-" if value is None else f"{100 * value:.1f}" for value in values)
        table.add_row(part.by, part.name, part.range, str(part.objects), *shown)
    return table


def write_measures(
    measures: Measures, matrix: Path | None, rows: Path | None, *, overwrite: bool
) -> None:
    """The confusion matrix and the row for each image, in the form their names say."""
    if matrix is not None:
        write_new(matrix, _matrix_text(matrix, measures.confusion), overwrite=overwrite)
        say(f"Wrote {matrix}")
    if rows is not None and rows.suffix.lower() == ".csv":
        write_new(rows, measures.per_image.to_csv(), overwrite=overwrite)
    elif rows is not None:
        _write_bytes(rows, measures.per_image.to_parquet(), overwrite=overwrite)
    if rows is not None:
        say(f"Wrote {rows}")


def _matrix_text(path: Path, matrix: ConfusionMatrix) -> str:
    kind = path.suffix.lower()
    if kind == ".svg":
        return confusion_svg(matrix)
    return confusion_csv(matrix) if kind == ".csv" else json.dumps(matrix.to_json()) + "\n"


def _write_bytes(path: Path, content: bytes, *, overwrite: bool) -> None:
    refuse_existing(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _add_point(table: Table, name: str, point: OperatingPoint) -> None:
    threshold = "-" if point.threshold is None else f"{point.threshold:.3f}"
    shares = (point.precision, point.recall, point.f1)
    counts = (point.tp, point.fp, point.fn)
    table.add_row(Text(name), threshold, *map(_number, shares), *map(str, counts))


def _parts(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
