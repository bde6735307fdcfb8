"""`evaluate proxies`: mask quality where there are no masks to compare with."""

from pathlib import Path
from typing import Annotated

from rich.table import Table

from boxdepth.evaluate.cli import options
from boxdepth.evaluate.cli.app import app, console, emit, say, warn
from boxdepth.evaluate.cli.inputs import find_inputs
from boxdepth.evaluate.coco_ap import evaluate_tables
from boxdepth.evaluate.proxies import ProxyReport, measure_proxies
from boxdepth.evaluate.results import read_annotations, read_predictions

EXAMPLES = """
Examples:

  evaluate proxies --predictions preds.json --annotations boxes.json --images val2017

  evaluate proxies --predictions a.json --other b.json --annotations boxes.json --depth depth.h5
"""


MEANINGS = {
    "covered": "boxes that have a prediction",
    "tightness": "IoU of the mask's own box with the given one",
    "outside": "share of the mask outside the box",
    "fill": "mask over box area; near 1: collapsed to the box",
    "image_edges": "rank of image edges along the outline; 0.5 by chance",
    "depth_edges": "rank of depth edges along the outline; 0.5 by chance",
    "agreement": "IoU with the other model's mask",
    "quality": "tightness x (1 - outside) x edges: to watch, not to publish",
}


@app.command("proxies", epilog=EXAMPLES)
def proxies_command(
    run: options.Run = None,
    predictions: options.PredictionsFile = None,
    annotations: options.AnnotationsFile = None,
    images: options.Images = None,
    depth: Annotated[
        Path | None,
        options.file_option("--depth", "Depth maps: a folder of PNG / NPY, or an HDF5 file."),
    ] = None,
    other: Annotated[
        Path | None, options.file_option("--other", "Another model's results.")
    ] = None,
    per_class: options.PerClass = False,
    as_json: options.AsJson = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Box AP, and proxies of mask quality that need boxes alone. They are no mask AP."""
    inputs = find_inputs(run, predictions, annotations)
    truth = read_annotations(inputs.annotations, with_masks=False)
    found = read_predictions(inputs.predictions, truth)
    second = read_predictions(other, truth) if other is not None else None
    boxes = evaluate_tables(truth, found, iou_types=("bbox",))
    report = measure_proxies(truth, found, images=images, depth=depth, other=second)
    box_ap = boxes.bbox.ap if boxes.bbox else None
    show_proxies(report, box_ap, per_class=per_class)
    warn([*boxes.warnings, *report.warnings])
    result = {"protocol": "proxies", "box_ap": box_ap, **report.to_json()}
    result["warnings"] = [*boxes.warnings, *report.warnings]
    emit(result, as_json=as_json, out=out, overwrite=overwrite)


def show_proxies(report: ProxyReport, box_ap: float | None, *, per_class: bool) -> None:
    """The proxies as a table on stderr."""
    ap = "undefined" if box_ap is None else f"{box_ap:.1%}"
    say(f"Proxies of mask quality over {report.objects} annotated boxes; box AP {ap}.")
    classes = {"all": report.overall, **(report.per_class if per_class else {})}
    table = Table("proxy", *classes, "what it says")
    for key, meaning in MEANINGS.items():
        values = [getattr(proxies, key) for proxies in classes.values()]
        cells = ("-" if value is None else f"{value:.3f}" for value in values)
        table.add_row(key, *cells, meaning)
    console.print(table)
