"""`evaluate ap`: the score."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from boxdepth.evaluate.cli.app import app, console, emit, say, warn
from boxdepth.evaluate.cli.inputs import find_inputs
from boxdepth.evaluate.coco_ap import CocoNumbers, CocoReport, CocoSummary, IouType, evaluate_coco
from boxdepth.evaluate.results import GateError

EXAMPLES = """
Examples:

  evaluate ap      (the newest run in runs/)

  evaluate ap --predictions preds.json --annotations instances_val2017.json --per-class

  evaluate ap --run runs/coco_r50_1x --json --fail-under 0.30
"""


class Protocol(StrEnum):
    coco = "coco"
    cityscapes = "cityscapes"
    both = "both"


class Shape(StrEnum):
    segm = "segm"
    bbox = "bbox"
    both = "both"


class BackendName(StrEnum):
    fast = "fast"
    pycocotools = "pycocotools"


SHAPES: dict[Shape, tuple[IouType, ...]] = {
    Shape.segm: ("segm",),
    Shape.bbox: ("bbox",),
    Shape.both: ("segm", "bbox"),
}
RunOption = Annotated[Path | None, typer.Option("--run", help="A run folder.")]
PredictionsOption = Annotated[
    Path | None, typer.Option("--predictions", help="COCO results (JSON list).")
]
AnnotationsOption = Annotated[
    Path | None, typer.Option("--annotations", help="COCO annotations (JSON).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Also write that JSON here.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an existing --out.")]


@app.command("ap", epilog=EXAMPLES)
def ap_command(
    run: RunOption = None,
    predictions: PredictionsOption = None,
    annotations: AnnotationsOption = None,
    iou_type: Annotated[Shape, typer.Option(help="What to compare.")] = Shape.both,
    backend: Annotated[BackendName, typer.Option(help="They agree.")] = BackendName.fast,
    per_class: Annotated[bool, typer.Option("--per-class", help="A row per class.")] = False,
    as_json: JsonOption = False,
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    fail_under: Annotated[
        float | None, typer.Option(help="Exit 4 below this AP (of masks, else boxes).")
    ] = None,
) -> None:
    """Score predictions: COCO's twelve numbers for masks and boxes."""
    inputs = find_inputs(run, predictions, annotations)
    report = evaluate_coco(
        inputs.predictions, inputs.annotations, iou_types=SHAPES[iou_type], backend=backend.value
    )
    show_coco(report, per_class=per_class)
    emit(report.to_json(), as_json=as_json, out=out, overwrite=overwrite)
    if fail_under is not None:
        check_gate(report, fail_under)


def check_gate(report: CocoReport, fail_under: float) -> None:
    """Raise `GateError` if the AP (of masks where there are any) is below the gate."""
    summary = report.segm or report.bbox
    score = summary.ap if summary else None
    if score is None or score < fail_under:
        seen = "undefined" if score is None else f"{score:.4f}"
        raise GateError(f"AP is {seen}, the gate is {fail_under:.4f}")


def show_coco(report: CocoReport, *, per_class: bool) -> None:
    """The numbers as a table on stderr, and the warnings."""
    say(
        f"COCO protocol, {report.backend} backend: {report.predictions} predictions, "
        f"{report.images} images"
    )
    for shape in ("segm", "bbox", "boundary"):
        summary: CocoSummary | None = getattr(report, shape)
        if summary:
            console.print(coco_table(shape, summary, per_class=per_class))
    warn(report.warnings)


COLUMNS = {
    "AP": "ap", "AP50": "ap50", "AP75": "ap75", "APs": "ap_small", "APm": "ap_medium",
    "APl": "ap_large", "AR100": "ar_100",
}  # fmt: skip


def coco_table(shape: str, summary: CocoSummary, *, per_class: bool) -> Table:
    """AP and its parts in percent; a dash where undefined."""
    table = Table(shape, *COLUMNS, title_justify="left")
    table.add_row("all", *_cells(summary))
    for name, numbers in summary.per_class.items() if per_class else ():
        table.add_row(name, *_cells(numbers))
    return table


def _cells(numbers: CocoNumbers) -> list[str]:
    values: list[Any] = [getattr(numbers, key) for key in COLUMNS.values()]
    return ["-" if value is None else f"{100 * value:.1f}" for value in values]
