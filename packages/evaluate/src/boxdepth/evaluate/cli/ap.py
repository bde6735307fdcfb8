"""`evaluate ap`: the score."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from boxdepth.evaluate.cityscapes_ap import CityscapesReport, evaluate_cityscapes
from boxdepth.evaluate.cli import options
from boxdepth.evaluate.cli.app import app, console, emit, refuse_existing, say, warn, write_new
from boxdepth.evaluate.cli.inputs import Inputs, find_inputs
from boxdepth.evaluate.cli.lvis import lvis_json, score_lvis, show_lvis
from boxdepth.evaluate.cli.measures import check_names, show_measures, write_measures
from boxdepth.evaluate.cli.options import Protocol
from boxdepth.evaluate.coco_ap import (
    CocoNumbers,
    CocoReport,
    CocoSummary,
    IouType,
    evaluate_tables,
)
from boxdepth.evaluate.coco_ap.protocol import Backend
from boxdepth.evaluate.measures import measure
from boxdepth.evaluate.results import (
    GateError,
    GroundTruth,
    Predictions,
    UsageError,
    read_annotations,
    read_predictions,
)
from boxdepth.evaluate.results.workers import Workers

EXAMPLES = """
Examples:

  evaluate ap      (the newest run in runs/)

  evaluate ap --predictions preds.json --annotations instances_val2017.json --per-class

  evaluate ap --protocol cityscapes --predictions results/ --gt-fine cityscapes/gtFine/val

  evaluate ap --run runs/coco_r50_1x --json --fail-under 0.30

  evaluate ap --run runs/coco_r50_1x --measures --confusion-matrix matrix.svg --per-image rows.csv

  evaluate ap --protocol lvis --predictions preds.json --annotations lvis_v1_val.json
"""
COLUMNS = {
    "AP": "ap", "AP50": "ap50", "AP75": "ap75", "APs": "ap_small", "APm": "ap_medium",
    "APl": "ap_large", "AR100": "ar_100",
}  # fmt: skip


@app.command("ap", epilog=EXAMPLES)
def ap_command(
    run: options.Run = None,
    predictions: options.PredictionsFile = None,
    annotations: options.AnnotationsFile = None,
    protocol: Annotated[Protocol, typer.Option(help="Whose rules.")] = Protocol.coco,
    gt_fine: options.GtFine = None,
    iou_type: Annotated[
        options.Shape, typer.Option(help="What COCO AP compares.")
    ] = options.Shape.both,
    backend: Annotated[
        options.BackendName, typer.Option(help="They agree to 1e-9.")
    ] = options.BackendName.fast,
    per_class: Annotated[bool, typer.Option("--per-class", help="A row per class.")] = False,
    curves: Annotated[
        Path | None, typer.Option(help="Write COCO precision over recall here (JSON).")
    ] = None,
    with_measures: Annotated[
        bool,
        typer.Option(
            "--measures", help="F1 and its threshold, confusion, calibration, pieces, slices."
        ),
    ] = False,
    confusion: Annotated[
        Path | None,
        typer.Option("--confusion-matrix", help="Write it here: .svg (a picture), .csv or .json."),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option("--per-image", help="A row per image (TP, FP, FN, AP50): .csv or .parquet."),
    ] = None,
    depth: options.Depth = None,
    depth_sign: options.DepthMeaning = options.DepthSign.inverse,
    workers: options.Workers = 0,
    as_json: options.AsJson = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    fail_under: Annotated[
        float | None, typer.Option(help="Exit 4 below this AP (of masks, else boxes), 0 to 1.")
    ] = None,
) -> None:
    """Score predictions: COCO's numbers, official Cityscapes AP, both, or LVIS'."""
    for path in filter(None, (out, curves)):
        refuse_existing(path, overwrite=overwrite)
    check_names(confusion, rows, overwrite=overwrite)
    measured = with_measures or any(path is not None for path in (confusion, rows, depth))
    if fail_under is not None and not 0 <= fail_under <= 1:
        raise UsageError(f"--fail-under is {fail_under:g}, expected a fraction from 0 to 1.")
    if measured and protocol in (Protocol.cityscapes, Protocol.lvis):
        raise UsageError("measures follow COCO's matching: use --protocol coco or both with them.")
    folder = predictions is not None and predictions.is_dir()
    inputs = None if folder else find_inputs(run, predictions, annotations)
    if inputs is None and protocol != Protocol.cityscapes:
        raise UsageError(f"{predictions} is a folder: only --protocol cityscapes reads those.")
    coco = cityscapes = None
    result: dict[str, Any] = {}
    if inputs is not None and protocol in (Protocol.coco, Protocol.both):
        count = options.worker_count(workers, inputs.predictions)
        truth, found, coco = score_coco(inputs, iou_type, backend=backend.value, workers=count)
        show_coco(coco, per_class=per_class)
        if curves is not None:
            write_new(curves, json.dumps(curve_data(coco)), overwrite=overwrite)
        if measured:
            shape: IouType = "segm" if coco.segm or coco.boundary else "bbox"
            measures = measure(
                truth, found, iou_type=shape, depth=depth, depth_sign=depth_sign.value
            )
            show_measures(measures, per_class=per_class)
            write_measures(measures, confusion, rows, overwrite=overwrite)
            result["measures"] = measures.to_json()
    if inputs is not None and protocol == Protocol.lvis:
        reports, warnings = score_lvis(
            inputs.predictions, inputs.annotations, options.SHAPES[iou_type]
        )
        show_lvis(reports, warnings, per_class=per_class)
        result = lvis_json(reports, warnings)
        score = next(iter(reports.values())).numbers.ap
    else:
        if protocol != Protocol.coco:
            cityscapes = score_cityscapes(inputs, predictions, gt_fine)
            show_cityscapes(cityscapes)
        result = {**combined(coco, cityscapes), **result}
        score = main_score(coco, cityscapes)
    emit(result, as_json=as_json, out=out, overwrite=overwrite)
    if fail_under is not None:
        check_gate(score, fail_under)


def score_coco(
    inputs: Inputs, shape: options.Shape, *, backend: Backend, workers: int
) -> tuple[GroundTruth, Predictions, CocoReport]:
    """The files as checked tables, and their COCO numbers."""
    shapes = options.SHAPES[shape]
    with Workers(workers) as pool:
        masks = shapes != ("bbox",)
        truth = read_annotations(inputs.annotations, with_masks=masks)
        found = read_predictions(inputs.predictions, truth, with_masks=masks, workers=pool)
        report = evaluate_tables(truth, found, iou_types=shapes, backend=backend, workers=pool)
    return truth, found, report


def curve_data(report: CocoReport) -> dict[str, Any]:
    """Precision over recall of each shape that was compared."""
    shapes = {"segm": report.segm, "bbox": report.bbox, "boundary": report.boundary}
    return {name: summary.precision_recall() for name, summary in shapes.items() if summary}


def score_cityscapes(
    inputs: Inputs | None, folder: Path | None, gt_fine: Path | None
) -> CityscapesReport:
    """Official AP of a results folder, or of COCO-style results."""
    truth = gt_fine or default_gt_fine()
    if inputs is not None:
        return evaluate_cityscapes(inputs.predictions, truth, annotations=inputs.annotations)
    if folder is None:
        raise UsageError("--predictions names nothing to score.")
    return evaluate_cityscapes(folder, truth)


def default_gt_fine() -> Path:
    """`$CITYSCAPES_DATASET/gtFine/val`; raises `UsageError` if that is not there."""
    root = os.environ.get("CITYSCAPES_DATASET")
    path = Path(root) / "gtFine" / "val" if root else None
    if path is None or not path.is_dir():
        raise UsageError(
            "Cityscapes' protocol needs the official annotations: pass --gt-fine gtFine/val, "
            "or set CITYSCAPES_DATASET to the folder that holds gtFine."
        )
    return path


def combined(coco: CocoReport | None, cityscapes: CityscapesReport | None) -> dict[str, Any]:
    """The JSON object: COCO's with Cityscapes' under its own key, or either alone."""
    if coco is None:
        return cityscapes.to_json() if cityscapes else {}
    report = coco.to_json()
    if cityscapes is not None:
        report["protocol"] = "both"
        report["cityscapes"] = cityscapes.to_json()
    return report


def main_score(coco: CocoReport | None, cityscapes: CityscapesReport | None) -> float | None:
    """The AP a gate is about: masks before boxes, COCO's before Cityscapes'."""
    if coco is not None:
        summary = coco.segm or coco.boundary or coco.bbox
        return summary.ap if summary else None
    return cityscapes.ap if cityscapes else None


def check_gate(score: float | None, fail_under: float) -> None:
    """Raise `GateError` if an AP is undefined or below the gate."""
    if score is None or score < fail_under:
        seen = "undefined" if score is None else f"{score:.4f}"
        raise GateError(f"AP is {seen}, the gate is {fail_under:.4f}")


def show_coco(report: CocoReport, *, per_class: bool) -> None:
    """The numbers as a table on stderr, and the warnings."""
    say(
        f"COCO protocol, {report.backend} backend: {report.predictions} predictions, "
        f"{report.images} images (in percent)"
    )
    for shape in ("segm", "bbox", "boundary"):
        summary: CocoSummary | None = getattr(report, shape)
        if summary:
            console.print(coco_table(shape, summary, per_class=per_class))
    warn(report.warnings)


def show_cityscapes(report: CityscapesReport) -> None:
    """AP and AP50 of the eight classes on stderr."""
    say(
        f"Cityscapes protocol (official): {report.predictions} detections, {report.images} images "
        "(in percent)"
    )
    table = Table("class", "AP", "AP50")
    table.add_row("all", percent(report.ap), percent(report.ap50))
    for name, (ap, ap50) in report.per_class.items():
        table.add_row(name, percent(ap), percent(ap50))
    console.print(table)
    warn(report.warnings)


def coco_table(shape: str, summary: CocoSummary, *, per_class: bool) -> Table:
    """AP and its parts in percent; a dash where undefined."""
    table = Table(shape, *COLUMNS, title_justify="left")
    table.add_row("all", *_cells(summary))
    for name, numbers in summary.per_class.items() if per_class else ():
        table.add_row(name, *_cells(numbers))
    return table


def percent(value: float | None) -> str:
    """A fraction in percent, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def _cells(numbers: CocoNumbers) -> list[str]:
    return [percent(getattr(numbers, key)) for key in COLUMNS.values()]
