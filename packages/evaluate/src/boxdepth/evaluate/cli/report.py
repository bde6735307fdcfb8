"""`evaluate report`: everything on one page."""

from pathlib import Path
from typing import Annotated

import typer

from boxdepth.evaluate.cli import options
from boxdepth.evaluate.cli.ap import combined
from boxdepth.evaluate.cli.app import app, emit, refuse_existing, say, warn, write_new
from boxdepth.evaluate.cli.inputs import find_inputs
from boxdepth.evaluate.coco_ap.protocol import MAX_DETECTIONS
from boxdepth.evaluate.report import collect, render
from boxdepth.evaluate.results import read_annotations, read_predictions

EXAMPLES = """
Examples:

  evaluate report --html report.html      (the newest run in runs/)

  evaluate report --predictions preds.json --annotations val.json --images val2017 --html out.html
"""


@app.command("report", epilog=EXAMPLES)
def report_command(
    html: Annotated[Path, options.file_option("--html", "The file to write.")],
    run: options.Run = None,
    predictions: options.PredictionsFile = None,
    annotations: options.AnnotationsFile = None,
    images: options.Images = None,
    gt_fine: options.GtFine = None,
    depth: options.Depth = None,
    depth_sign: options.DepthMeaning = options.DepthSign.inverse,
    max_detections: options.MaxDetections = None,
    title: Annotated[str | None, typer.Option(help="Headline.")] = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Write one HTML file: tables, curves, classes, sizes, errors and a gallery."""
    refuse_existing(html, overwrite=overwrite)
    inputs = find_inputs(run, predictions, annotations)
    truth = read_annotations(inputs.annotations)
    found = read_predictions(inputs.predictions, truth)
    name = inputs.run.name if inputs.run else inputs.predictions.stem
    content = collect(
        truth,
        found,
        images=images,
        gt_fine=gt_fine,
        depth=depth,
        depth_sign=depth_sign.value,
        max_detections=max_detections or MAX_DETECTIONS,
        title=title or f"Evaluation of {name}",
    )
    write_new(html, render(content), overwrite=overwrite)
    warn(content.notes)
    say(f"Wrote {html} ({html.stat().st_size / 1024:.0f} kB): open it in any browser.")
    result = {**combined(content.coco, content.cityscapes), "html": str(html)}
    result["warnings"] = list(content.notes)
    result["errors"] = content.errors.to_json()
    result["measures"] = content.measures.to_json()
    emit(result, as_json=as_json, out=None)
