"""`evaluate ap`: the score."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from boxdepth.evaluate.cityscapes_ap import (
    CityscapesReport,
    evaluate_cityscapes,
    evaluate_cityscapes_tables,
)
from boxdepth.evaluate.cli import options
from boxdepth.evaluate.cli.app import app, console, emit, refuse_existing, say, warn, write_new
from boxdepth.evaluate.cli.inputs import Inputs, find_inputs
from boxdepth.evaluate.cli.lvis import lvis_json, score_lvis, show_lvis
from boxdepth.evaluate.cli.measures import check_names, show_measures, write_measures
from boxdepth.evaluate.cli.options import Protocol
from boxdepth.evaluate.coco_ap import (
    Backend,
    CocoReport,
    CocoSummary,
    IouType,
    evaluate_tables,
)
from boxdepth.evaluate.coco_ap.protocol import MAX_DETECTIONS
from boxdepth.evaluate.coco_ap.report import COLUMNS, cells
from boxdepth.evaluate.measures import DepthSign, measure
from boxdepth.evaluate.results import (
    GateError,
    GroundTruth,
    Predictions,
    UsageError,
    read_annotations,
    read_predictions,
)
from boxdepth.evaluate.words import counted

EXAMPLES = """
Examples:

  evaluate ap      (the newest run in runs/)

  evaluate ap --predictions preds.json --annotations instances_val2017.json --per-class

  evaluate ap --protocol cityscapes --predictions results/ --gt-fine cityscapes/gtFine/val

  evaluate ap --run runs/coco_r50_1x --json --fail-under 0.30

  evaluate ap --run runs/coco_r50_1x --measures --confusion-matrix matrix.svg --per-image rows.csv

  evaluate ap --predictions cells.json --annotations cells_truth.json --max-detections 1,100,1000

  evaluate ap --protocol lvis --predictions preds.json --annotations lvis_v1_val.json
"""
# Images that --cross-check scores twice.
CROSS_CHECKED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What `evaluate ap` was asked for, beside the files."""

    shapes: tuple[IouType, ...]
    backend: Backend
    max_detections: tuple[int, ...]
    cross_check: bool
    per_class: bool
    measured: bool
    curves: Path | None
    confusion: Path | None
    rows: Path | None
    depth: Path | None
    depth_sign: DepthSign
    overwrite: bool


@app.command("ap", epilog=EXAMPLES)
def ap_command(
    run: options.Run = None,
    predictions: options.PredictionsFile = None,
    annotations: options.AnnotationsFile = None,
    protocol: options.ProtocolName = Protocol.coco,
    gt_fine: options.GtFine = None,
    iou_type: options.Compared = options.Shape.both,
    backend: options.CountedBy = options.BackendName.fast,
    max_detections: options.MaxDetections = None,
    cross_check: options.CrossCheckImages = False,
    per_class: options.PerClass = False,
    curves: options.Curves = None,
    with_measures: options.WithMeasures = False,
    confusion: options.Confusion = None,
    rows: options.PerImage = None,
    depth: options.Depth = None,
    depth_sign: options.DepthMeaning = options.DepthSign.inverse,
    as_json: options.AsJson = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    fail_under: options.FailUnder = None,
) -> None:
    """Score predictions: COCO's numbers, official Cityscapes AP, both, or LVIS'."""
    for path in filter(None, (out, curves)):
        refuse_existing(path, overwrite=overwrite)
    check_names(confusion, rows, overwrite=overwrite)
    request = Request(
        shapes=options.SHAPES[iou_type],
        backend=backend.value,
        max_detections=max_detections or MAX_DETECTIONS,
        cross_check=cross_check,
        per_class=per_class,
        measured=with_measures or any(path is not None for path in (confusion, rows, depth)),
        curves=curves,
        confusion=confusion,
        rows=rows,
        depth=depth,
        depth_sign=depth_sign.value,
        overwrite=overwrite,
    )
    check_request(request, protocol, fail_under)
    inputs = choose_inputs(run, predictions, annotations, protocol)
    result, main_ap = score(inputs, protocol, gt_fine, request)
    emit(result, as_json=as_json, out=out, overwrite=overwrite)
    check_gate(main_ap, fail_under)


def check_request(request: Request, protocol: Protocol, fail_under: float | None) -> None:
    """Raise `UsageError` for options that do not go together."""
    if fail_under is not None and not 0 <= fail_under <= 1:
        raise UsageError(f"--fail-under is {fail_under:g}, expected a fraction from 0 to 1.")
    if request.measured and protocol in (Protocol.cityscapes, Protocol.lvis):
        raise UsageError("measures follow COCO's matching: use --protocol coco or both with them.")
    if protocol in (Protocol.cityscapes, Protocol.lvis):
        given = {
            "--max-detections": request.max_detections != MAX_DETECTIONS,
            "--cross-check": request.cross_check,
            "--curves": request.curves is not None,
        }
        for name in (name for name, is_given in given.items() if is_given):
            raise UsageError(f"{name} belongs to COCO's protocol: use --protocol coco with it.")


def choose_inputs(
    run: Path | None, predictions: Path | None, annotations: Path | None, protocol: Protocol
) -> Inputs | Path:
    """The files to score, or the folder of official results that Cityscapes' protocol reads."""
    if predictions is None or not predictions.is_dir():
        return find_inputs(run, predictions, annotations)
    if protocol != Protocol.cityscapes:
        raise UsageError(
            f"{predictions} is a folder: only --protocol cityscapes reads those. "
            "Name the JSON file in it."
        )
    return predictions


def score(
    inputs: Inputs | Path, protocol: Protocol, gt_fine: Path | None, request: Request
) -> tuple[dict[str, Any], float | None]:
    """The result as JSON and the AP that a gate is about; tables go to stderr."""
    if isinstance(inputs, Path):
        official = evaluate_cityscapes(inputs, gt_fine or default_gt_fine())
        show_cityscapes(official)
        return combined(None, official), official.ap
    if protocol == Protocol.lvis:
        reports, warnings = score_lvis(inputs.predictions, inputs.annotations, request.shapes)
        show_lvis(reports, warnings, per_class=request.per_class)
        return lvis_json(reports, warnings), next(iter(reports.values())).numbers.ap
    coco = cityscapes = None
    measures: dict[str, Any] = {}
    with_masks = request.shapes != ("bbox",) or protocol != Protocol.coco
    truth = read_annotations(inputs.annotations, with_masks=with_masks)
    found = read_predictions(inputs.predictions, truth, with_masks=with_masks)
    if protocol != Protocol.cityscapes:
        coco = score_coco(truth, found, request)
        measures = measure_and_write(truth, found, coco, request) if request.measured else {}
    if protocol != Protocol.coco:
        cityscapes = evaluate_cityscapes_tables(truth, found, gt_fine or default_gt_fine())
        show_cityscapes(cityscapes)
    return {**combined(coco, cityscapes), **measures}, main_score(coco, cityscapes)


def score_coco(truth: GroundTruth, found: Predictions, request: Request) -> CocoReport:
    """COCO's numbers, shown, and their curves, written where that was asked for."""
    report = evaluate_tables(
        truth,
        found,
        iou_types=request.shapes,
        backend=request.backend,
        max_detections=request.max_detections,
        cross_check=CROSS_CHECKED if request.cross_check else 0,
    )
    show_coco(report, per_class=request.per_class)
    if request.curves is not None:
        text = json.dumps(curve_data(report))
        write_new(request.curves, text, overwrite=request.overwrite)
    return report


def measure_and_write(
    truth: GroundTruth, found: Predictions, report: CocoReport, request: Request
) -> dict[str, Any]:
    """What stands beside AP: shown, written where that was asked for, and as JSON."""
    shape: IouType = "segm" if report.segm or report.boundary else "bbox"
    measures = measure(
        found,
        truth,
        iou_type=shape,
        max_detections=request.max_detections[-1],
        depth=request.depth,
        depth_sign=request.depth_sign,
    )
    show_measures(measures, per_class=request.per_class)
    write_measures(measures, request.confusion, request.rows, overwrite=request.overwrite)
    return {"measures": measures.to_json()}


def curve_data(report: CocoReport) -> dict[str, Any]:
    """Precision over recall of each shape that was compared."""
    return {name: summary.precision_recall() for name, summary in report.summaries.items()}


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


def check_gate(score: float | None, fail_under: float | None) -> None:
    """Raise `GateError` if there is a gate and an AP is undefined or below it."""
    if fail_under is not None and (score is None or score < fail_under):
        seen = "undefined" if score is None else f"{score:.4f}"
        raise GateError(f"AP is {seen}, the gate is {fail_under:.4f}")


def show_coco(report: CocoReport, *, per_class: bool) -> None:
    """The numbers as a table on stderr, and the warnings."""
    say(
        f"COCO protocol, {report.backend} {report.backend_version}: "
        f"{counted(report.predictions, 'prediction')}, {counted(report.images, 'image')} "
        "(in percent)"
    )
    for shape, summary in report.summaries.items():
        console.print(coco_table(shape, summary, per_class=per_class))
    if report.cross_check:
        say(
            f"Cross-check: {report.cross_check.images} images scored by both backends differ by "
            f"{report.cross_check.largest_difference:.1e} at most."
        )
    warn(report.warnings)


def show_cityscapes(report: CityscapesReport) -> None:
    """AP and AP50 of the eight classes on stderr."""
    say(
        f"Cityscapes protocol (official): {counted(report.predictions, 'detection')}, "
        f"{counted(report.images, 'image')} (in percent)"
    )
    table = Table("class", "AP", "AP50")
    table.add_row("all", percent(report.ap), percent(report.ap50))
    for name, (ap, ap50) in report.per_class.items():
        table.add_row(name, percent(ap), percent(ap50))
    console.print(table)
    warn(report.warnings)


def coco_table(shape: str, summary: CocoSummary, *, per_class: bool) -> Table:
    """AP and its parts in percent; a dash where undefined."""
    table = Table(shape, *COLUMNS, *(f"AR{limit}" for limit in summary.ar), title_justify="left")
    table.add_row("all", *cells(summary))
    for name, numbers in summary.per_class.items() if per_class else ():
        table.add_row(Text(name), *cells(numbers))
    return table


def percent(value: float | None) -> str:
    """A fraction in percent, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"
