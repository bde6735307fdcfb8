"""`evaluate check`: why an AP is zero."""

from boxdepth.evaluate.check import CheckReport, check
from boxdepth.evaluate.cli import options
from boxdepth.evaluate.cli.app import app, emit, say
from boxdepth.evaluate.cli.inputs import find_inputs
from boxdepth.evaluate.results import DataError
from boxdepth.evaluate.words import counted

EXAMPLES = """
Example:

  evaluate check --predictions preds.json --annotations instances_val2017.json
"""


# Lines of what is wrong, where it is known what to do.
_SHOWN = 4


@app.command("check", epilog=EXAMPLES)
def check_command(
    run: options.Run = None,
    predictions: options.PredictionsFile = None,
    annotations: options.AnnotationsFile = None,
    as_json: options.AsJson = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Say in words what is wrong with results, and what AP would be after the cure.

    Ends with 3 if the file cannot be scored as it is, or a cure would raise its AP.
    """
    inputs = find_inputs(run, predictions, annotations)
    report = check(inputs.predictions, inputs.annotations)
    show_check(report)
    emit(report.to_json(), as_json=as_json, out=out, overwrite=overwrite)
    if not report.is_sound:
        raise DataError(f"{inputs.predictions}: needs mending (see above)")


def show_check(report: CheckReport) -> None:
    """The report in sentences."""
    if report.error:
        lines = report.error.splitlines()
        known = bool(report.findings)  # then the first few say enough, the cure stands below
        say("Cannot be scored as it is:\n" + "\n".join(lines[: _SHOWN if known else None]))
        if known and len(lines) > _SHOWN:
            say(f"  ... and {len(lines) - _SHOWN} more lines (all of them with --json).")
    else:
        say(f"As it is: {_aps(report.ap)} ({counted(report.images, 'image')}).")
    for number, finding in enumerate(report.findings, start=1):
        kind = "Mended on reading" if finding.is_mended else "Likely mistake"
        say(f"\n{number}. {kind}: {finding.problem}.")
        say(f"   Cure: {finding.advice}.")
        say(f"   After it: {_aps(finding.ap_after)}.")
    if report.class_agnostic_ap is not None:
        say(f"\nIf all classes were one, box AP would be {report.class_agnostic_ap:.1%}.")
    for note in report.notes:
        say(f"note: {note}")
    if report.is_sound:
        say("No known mistake found.")


def _aps(values: object) -> str:
    items = dict(values) if values else {}  # type: ignore[call-overload]
    words = {"segm": "mask AP", "bbox": "box AP"}
    return (
        ", ".join(f"{words[k]} {v:.1%}" for k, v in items.items())
        or "undefined, or not to be scored yet"
    )
