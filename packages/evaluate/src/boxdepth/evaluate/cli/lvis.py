"""`evaluate ap --protocol lvis`."""

from pathlib import Path
from typing import Any, cast

from rich.table import Table
from rich.text import Text

from boxdepth.evaluate.cli.app import console, say, warn
from boxdepth.evaluate.coco_ap import IouType
from boxdepth.evaluate.coco_ap.evaluation import cannot_compare
from boxdepth.evaluate.lvis_ap import LvisReport, evaluate_lvis, read_federation
from boxdepth.evaluate.results import DataError, load_json, read_annotations, read_predictions

COLUMNS = {
    "AP": "ap", "AP50": "ap50", "AP75": "ap75", "APr": "ap_rare", "APc": "ap_common",
    "APf": "ap_frequent", "APs": "ap_small", "APm": "ap_medium", "APl": "ap_large",
    "AR300": "ar_300",
}  # fmt: skip


def score_lvis(
    predictions: Path, annotations: Path, shapes: tuple[IouType, ...]
) -> tuple[dict[str, LvisReport], list[str]]:
    """Federated AP of each shape that the files have, and what there is to say.

    Raises:
        DataError: the files have none of the shapes, or the annotations are not LVIS'.
    """
    document = load_json(annotations)
    truth = read_annotations(annotations)
    federation = read_federation(document, truth)
    found = read_predictions(predictions, truth)
    faults = {shape: cannot_compare(truth, found, shape) for shape in shapes}
    reports = {
        shape: evaluate_lvis(truth, found, federation, iou_type=shape)
        for shape, fault in faults.items()
        if fault is None
    }
    warnings = [*truth.notes, *found.notes, *filter(None, faults.values())]
    if not reports:
        raise DataError("\n".join(filter(None, faults.values())))
    return cast("dict[str, LvisReport]", reports), warnings


def lvis_json(reports: dict[str, LvisReport], warnings: list[str]) -> dict[str, Any]:
    """As `evaluate ap --protocol lvis --json` prints it."""
    first = next(iter(reports.values()))
    return {
        "protocol": "lvis",
        **{shape: reports[shape].to_json() if shape in reports else None
           for shape in ("segm", "bbox")},
        "images": first.images,
        "predictions": first.predictions,
        "warnings": warnings,
    }  # fmt: skip


def show_lvis(reports: dict[str, LvisReport], warnings: list[str], *, per_class: bool) -> None:
    """The numbers as tables on stderr."""
    first = next(iter(reports.values()))
    say(
        f"LVIS protocol: {first.predictions} predictions, {first.images} images (in percent); "
        f"{first.unjudged} predictions are of classes nobody looked for in their image, or beyond "
        "its best 300"
    )
    for shape, report in reports.items():
        table = Table(shape, *COLUMNS)
        values = (getattr(report.numbers, key) for key in COLUMNS.values())
        table.add_row("all", *("-" if v is None else f"{100 * v:.1f}" for v in values))
        for name, (ap, ap50) in report.per_class.items() if per_class else ():
            table.add_row(Text(name), f"{100 * ap:.1f}", f"{100 * ap50:.1f}")
        console.print(table)
    warn(warnings)
