"""`trainer presets`, `schema`, `check-data`, `summary`: looking before and after."""

import json
import sys
from typing import TYPE_CHECKING

from rich.table import Column, Table
from rich.text import Text

from boxdepth.trainer.cli import options
from boxdepth.trainer.cli.app import AsJson, Device, app, console, emit, say

if TYPE_CHECKING:
    from boxdepth.trainer.runs.data_check import DataCheck
    from boxdepth.trainer.runs.summary import RunSummary

APS = {"segm_ap": "mask AP", "segm_ap50": "AP50", "bbox_ap": "box AP", "bbox_ap50": "AP50"}


@app.command()
def presets(as_json: AsJson = False) -> None:
    """List the named runs."""
    from boxdepth.trainer.config.presets import PRESETS

    table = _table("preset", "iterations", "images", "what")
    rows = []
    for name, function in PRESETS.items():
        config, what = function(), (function.__doc__ or "").strip().splitlines()[0]
        cells = (name, f"{config.schedule.iterations:,}", str(config.data.batch_size), what)
        table.add_row(*map(Text, cells))
        rows.append({"name": name, "what": what, "config": config.model_dump(mode="json")})
    console.print(table)
    emit({"presets": rows}, as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON schema of a run's settings."""
    from boxdepth.trainer.config import RunConfig

    sys.stdout.write(json.dumps(RunConfig.model_json_schema(), indent=1) + "\n")


@app.command("check-data")
def check_data(
    store: options.StoreToCheck,
    deep: options.Deep = False,
    preview: options.Preview = None,
    count: options.Count = 8,
    as_json: AsJson = False,
) -> None:
    """Say what can be learnt from a store, and what would be left out and why."""
    from boxdepth.trainer.runs import data_check

    checked = data_check.check_data(store, deep=deep)
    result = checked.to_json()
    _show_data(checked)
    if preview is not None:
        files = data_check.draw_pairs(checked.training_set, preview, count=count)
        say(f"  {len(files)} pictures of trusted pairs in {preview}")
        result["pictures"] = [str(file) for file in files]
    emit(result, as_json=as_json)
    checked.require()


def _show_data(checked: "DataCheck") -> None:
    from boxdepth.trainer.cli.console import named_rows

    console.print(named_rows(checked.rows()))
    absent = sum(1 for count in checked.boxes_per_category.values() if count == 0)
    if absent:
        say(f"  categories without a box: {absent}", style="yellow")


@app.command()
def summary(
    run: options.RunFolder,
    html: options.PageOut = None,
    images: options.LookedAt = 60,
    overwrite: options.OverwritePage = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Losses, health and AP of a run, as text or as one offline page."""
    from boxdepth.trainer.cli.console import percents, sparkline
    from boxdepth.trainer.engine.run_folder import require_writable
    from boxdepth.trainer.runs.summary import summarise

    if html is not None:
        require_writable(html, overwrite=overwrite)
    found = summarise(run)
    say(f"{found.name}, iteration {found.step}", style="bold")
    table = _table("loss", "first", "now", "course")
    for name in found.losses:
        values = found.course(name)
        if values:
            cells = (name, f"{values[0]:.3f}", f"{values[-1]:.3f}", sparkline(values, 40))
            table.add_row(*map(Text, cells))
    console.print(table)
    if found.reports:
        _show_health(found)
    for complaint in found.complaints:
        say(f"  {complaint}", style="yellow")
    for row in found.evaluations:
        say(f"iteration {row['iteration']}: " + percents(row["val"], APS))
    for note in found.notes:
        say(f"  {note}", style="yellow")
    if html is not None:
        from boxdepth.trainer.runs.page import write_page

        looked = write_page(found, html, images=images, device=device)
        if images and not looked:
            say("  the training store is not where it was: no images looked at", style="yellow")
        say(f"page in {html}")
    emit(found.to_json() | ({} if html is None else {"html": str(html)}), as_json=as_json)


def _show_health(found: "RunSummary") -> None:
    from boxdepth.trainer.cli.console import sparkline

    shown = "  ".join(f"{name} {value:.3g}" for name, value in found.health.items())
    say(f"  health: {shown}  skipped steps {found.reports[-1].get('skipped_steps') or 0:.0f}")
    if found.matching_scores:
        histogram = sparkline(found.matching_scores, len(found.matching_scores))
        say(f"  matching scores from 0 to 1: {histogram}")
    if found.speed is not None:
        say(f"  speed: {found.speed:.1f} images/s (median)")


def _table(*columns: str) -> Table:
    headed = (Column(name, overflow="fold") for name in columns)
    return Table(*headed, box=None, header_style="bold", padding=(0, 2))
