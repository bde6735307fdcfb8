"""`evaluate compare`: is one results file better than another?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from boxdepth.evaluate.cli import options
from boxdepth.evaluate.cli.app import app, console, emit, say, warn
from boxdepth.evaluate.coco_ap.protocol import MAX_DETECTIONS
from boxdepth.evaluate.compare import Contender, compare, shown
from boxdepth.evaluate.results import GateError

EXAMPLES = """
Example:

  evaluate compare baseline.json new.json --annotations instances_val2017.json --fail-if-worse
"""


@app.command("compare", epilog=EXAMPLES)
def compare_command(
    files: Annotated[
        list[Path],
        typer.Argument(help="Results; the first is the baseline.", parser=options.user_path),
    ],
    annotations: Annotated[Path, options.file_option("--annotations", "COCO annotations (JSON).")],
    iou_type: Annotated[
        options.OneShape, typer.Option(help="What is compared.")
    ] = options.OneShape.segm,
    bootstrap: Annotated[int, typer.Option(min=20, help="Draws of images.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    fail_if_worse: Annotated[
        bool,
        typer.Option("--fail-if-worse", help="Exit 4 if a file is worse beyond chance (95 %)."),
    ] = False,
    max_detections: options.MaxDetections = None,
    per_class: options.PerClass = False,
    as_json: options.AsJson = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Compare results files on the same images, with 95 % intervals by a paired bootstrap."""
    comparison = compare(
        files,
        annotations,
        iou_type=iou_type.value,
        draws=bootstrap,
        seed=seed,
        max_detections=max_detections or MAX_DETECTIONS,
    )
    contenders = comparison.contenders
    show_comparison(contenders, iou_type.value, per_class=per_class)
    result = comparison.to_json()
    emit(result, as_json=as_json, out=out, overwrite=overwrite)
    worse = [contender.name for contender in contenders if contender.is_worse]
    if fail_if_worse and worse:
        raise GateError(f"worse than {contenders[0].name} beyond chance: {', '.join(worse)}")


def show_comparison(contenders: Sequence[Contender], iou_type: str, *, per_class: bool) -> None:
    """AP and difference of every file, in percent with 95 % intervals."""
    say(f"COCO protocol, {iou_type} (in percent, with 95 % intervals over images)")
    table = Table("file", "AP", "AP50", "difference", "worse in")
    for contender in contenders:
        share = "" if contender.p_worse is None else f"{contender.p_worse:.0%} of draws"
        table.add_row(
            Text(contender.name),
            shown(contender.ap),
            shown(contender.ap50),
            shown(contender.difference, signed=True) if contender.difference else "baseline",
            share,
        )
    console.print(table)
    console.print(deployed_table(contenders))
    for contender in contenders[1:]:
        console.print(class_table(contender, everything=per_class))
    for contender in contenders:
        warn([f"{contender.name}: {warning}" for warning in contender.warnings])


def deployed_table(contenders: Sequence[Contender]) -> Table:
    """What each file gives at its best score threshold, and how far its scores can be believed."""
    table = Table("file", "best threshold", "F1", "difference", "calibration error")
    for contender in contenders:
        table.add_row(
            Text(contender.name),
            "-" if contender.threshold is None else f"{contender.threshold:.2f}",
            shown(contender.f1),
            shown(contender.f1_difference, signed=True) if contender.f1_difference else "baseline",
            shown(contender.calibration_error),
        )
    return table


def class_table(contender: Contender, *, everything: bool, most: int = 8) -> Table:
    """Differences by class: all of them, or those that differ most."""
    rows = [(name, ap, gap) for name, (ap, gap) in contender.per_class.items() if gap]
    rows.sort(key=lambda row: -abs(row[2].value or 0.0))
    title = "by class" if everything else f"the {min(most, len(rows))} classes that differ most"
    table = Table("class", "AP", "difference", title=Text(f"{contender.name}: {title}"))
    for name, ap, gap in rows if everything else rows[:most]:
        table.add_row(Text(name), shown(ap), shown(gap, signed=True))
    return table
