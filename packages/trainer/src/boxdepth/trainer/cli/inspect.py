"""`trainer presets`, `schema`, `check-data`, `summary`: looking before and after."""

import inspect
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from boxdepth.depthgen.store import DataError, open_store
from boxdepth.trainer.cli.app import AsJson, app, console, emit, say
from boxdepth.trainer.cli.console import sparkline
from boxdepth.trainer.cli.options import expanded
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config import presets as named
from boxdepth.trainer.data.rules import Augmentation, Data
from boxdepth.trainer.data.store_dataset import TrainingSet
from boxdepth.trainer.data.validation_set import check_images
from boxdepth.trainer.engine.evaluations import PREDICTIONS, REPORT, read_evaluation
from boxdepth.trainer.engine.log import read_metrics
from boxdepth.trainer.engine.monitors import MATCHING_SCORE, complaints
from boxdepth.trainer.engine.run_folder import read_json


@app.command()
def presets(as_json: AsJson = False) -> None:
    """List the named runs."""
    table = Table(box=None, header_style="bold", padding=(0, 2))
    for column in ("preset", "iterations", "images", "what"):
        table.add_column(column, overflow="fold")
    rows = []
    for name, function in named.PRESETS.items():
        config, what = function(), (inspect.getdoc(function) or "").splitlines()[0]
        cells = (name, f"{config.schedule.iterations:,}", str(config.data.batch_size), what)
        table.add_row(*map(Text, cells))
        rows.append({"name": name, "what": what, "config": config.model_dump(mode="json")})
    console.print(table)
    emit({"presets": rows}, as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON schema of a run's settings."""
    sys.stdout.write(json.dumps(RunConfig.model_json_schema(), indent=1) + "\n")


@app.command("check-data")
def check_data(
    store: Annotated[Path, typer.Argument(help="A store made by `depthgen run`.", parser=expanded)],
    deep: Annotated[bool, typer.Option("--deep", help="Decode every image, not a few.")] = False,
    preview: Annotated[
        Path | None, typer.Option(help="Folder for pictures of the pairs that the losses trust.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many pictures.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Say what can be learnt from a store, and what would be left out and why."""
    opened = open_store(store)
    plain = Augmentation(short_sides=(800,), flip=0)
    settings = Data(augmentation=plain, bottom_rows_removed=0)
    training_set = TrainingSet(opened, settings, seed=0)
    census = training_set.census
    rows = (
        range(len(opened)) if deep else sorted({*range(0, len(opened), max(len(opened) // 8, 1))})
    )
    problems = check_images(opened, list(rows))
    result: dict[str, Any] = {
        "store": str(store),
        "dataset": opened.attributes.dataset,
        "split": opened.attributes.split,
        "fingerprint": opened.fingerprint,
        "depth": dict(opened.attributes.generator),
        "masks": opened.attributes.masks,
        **census.to_json(),
        "images_decoded": len(rows),
        "boxes_per_category": _per_category(opened),
        "problems": problems,
    }
    _show_data(result, opened)
    if preview is not None:
        result["pictures"] = _draw_pairs(training_set, preview, count=count)
    emit(result, as_json=as_json)
    if problems:
        raise DataError(
            f"{store}: {len(problems)} images can't be used:\n  " + "\n  ".join(problems)
        )


def _draw_pairs(training_set: TrainingSet, folder: Path, *, count: int) -> list[str]:
    """Pictures of samples spread evenly over the store; the paths."""
    from boxdepth.trainer.pair_pictures import PairPicture

    folder.mkdir(parents=True, exist_ok=True)
    last = len(training_set) - 1
    chosen = sorted({int(index) for index in np.linspace(0, last, min(count, last + 1))})
    files = []
    for index in chosen:
        picture = PairPicture(training_set.load(index, epoch=0))
        files.append(folder / f"{picture.sample.image_id}.png")
        picture.draw().save(files[-1])
    say(f"  {len(files)} pictures of trusted pairs in {folder}")
    return [str(file) for file in files]


def _per_category(opened: Any) -> dict[str, int]:
    counts = np.zeros(len(opened.attributes.categories), dtype=np.int64)
    for row in range(len(opened)):
        boxes = opened.boxes(row)
        counts += np.bincount(boxes.label[~boxes.crowd], minlength=len(counts))
    names = [category.name for category in opened.attributes.categories]
    return dict(zip(names, counts.tolist(), strict=True))


def _show_data(result: dict[str, Any], opened: Any) -> None:
    heights, widths = opened.image_sizes.T
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    landscape = float((widths > heights).mean())
    rows = {
        "dataset": f"{result['dataset']} {result['split']}",
        "images": f"{result['images']}, {result['images_used']} with a usable box",
        "sizes": f"{heights.min()}x{widths.min()} to {heights.max()}x{widths.max()}, "
        f"{100 * landscape:.0f} % wider than high",
        "boxes": f"{result['boxes']}, {result['boxes_used']} usable; "
        f"crowd {result['boxes_crowd']}, without area {result['boxes_empty']}, "
        f"clipped {result['boxes_clipped']}",
        "depth": f"missing on {result['images_without_depth']} images",
        "masks": "yes" if result["masks"] else "no (boxes only)",
        "decoded": f"{result['images_decoded']} images, {len(result['problems'])} with problems",
    }
    for name, value in rows.items():
        table.add_row(Text(name), Text(value))
    console.print(table)
    counts = sorted(result["boxes_per_category"].items(), key=lambda item: -item[1])
    shown = "  ".join(f"{name} {count}" for name, count in counts[:12])
    more = len(counts) - 12
    say(f"  boxes by category: {shown}" + (f"  and {more} more" if more > 0 else ""))
    absent = [name for name, count in counts if count == 0]
    if absent:
        say(f"  categories without a box: {len(absent)}", style="yellow")


@app.command()
def summary(
    run: Annotated[Path, typer.Argument(help="A run folder.", parser=expanded)],
    as_json: AsJson = False,
) -> None:
    """Losses, health and AP of a run, as text."""
    rows = read_metrics(run)
    if not rows:
        raise DataError(f"{run}: no metrics.jsonl with numbers; is it a run folder?")
    about = read_json(run / "run.json")
    reports = [row for row in rows if "losses" in row]
    validations = [row for row in rows if "val" in row]
    config = about.get("config")
    config = config if isinstance(config, dict) else {}
    say(f"{config.get('name', run.name)}, iteration {rows[-1]['iteration']}", style="bold")
    table = Table(box=None, header_style="bold", padding=(0, 2))
    for column in ("loss", "first", "now", "course"):
        table.add_column(column)
    for name in reports[-1]["losses"] if reports else ():
        values = [v for row in reports if (v := row["losses"].get(name)) is not None]
        if values:
            cells = (name, f"{values[0]:.3f}", f"{values[-1]:.3f}", sparkline(values, 40))
            table.add_row(*map(Text, cells))
    console.print(table)
    unhealthy = _complaints(reports, config)
    if reports:
        _show_health(reports)
    for complaint in unhealthy:
        say(f"  {complaint}", style="yellow")
    for row in validations:
        say(f"iteration {row['iteration']}: " + _aps(row["val"]))
    evaluated = read_evaluation(run)
    if evaluated is not None and evaluated.step < rows[-1]["iteration"]:
        say(
            f"  {PREDICTIONS} and {REPORT} are of iteration {evaluated.step}; "
            "`trainer fit --resume` evaluates when it is due",
            style="yellow",
        )
    emit(
        {
            "run": str(run),
            "iterations": rows[-1]["iteration"],
            "losses": reports[-1]["losses"] if reports else {},
            "monitors": reports[-1].get("monitors", {}) if reports else {},
            "complaints": unhealthy,
            "val": [{"iteration": r["iteration"], **r["val"]} for r in validations],
        },
        as_json=as_json,
    )


def _show_health(reports: list[dict[str, Any]]) -> None:
    last = reports[-1]
    speeds = [row["images_per_second"] for row in reports if row.get("images_per_second")]
    monitors = {k: v for k, v in last.get("monitors", {}).items() if v is not None}
    histogram = [v for k, v in monitors.items() if k.startswith(MATCHING_SCORE)]
    shown = "  ".join(
        f"{k} {v:.3g}" for k, v in monitors.items() if not k.startswith(MATCHING_SCORE)
    )
    say(f"  health: {shown}  skipped steps {last.get('skipped_steps') or 0:.0f}")
    if histogram:
        say(f"  matching scores from 0 to 1: {sparkline(histogram, len(histogram))}")
    if speeds:
        say(f"  speed: {np.median(speeds):.1f} images/s (median)")


def _complaints(reports: list[dict[str, Any]], config: dict[str, Any]) -> list[str]:
    """What looks unhealthy in the last report; nothing while warm-ups last."""
    warmup = _section(config, "losses").get("warmup_iterations", 0)
    if not reports or reports[-1]["iteration"] < 2 * warmup:
        return []
    monitors = reports[-1].get("monitors", {})
    return complaints({k: v for k, v in monitors.items() if v is not None})


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _aps(numbers: dict[str, Any]) -> str:
    return "  ".join(
        f"{title} {100 * numbers[key]:.1f}"
        for title, key in (
            ("mask AP", "segm_ap"),
            ("AP50", "segm_ap50"),
            ("box AP", "bbox_ap"),
            ("AP50", "bbox_ap50"),
        )
        if numbers.get(key) is not None
    )
