"""From nothing to instance masks, AP and a report: the whole line, on scenes drawn here.

    python pipelines/quickstart.py --out quickstart

draws scenes with exact masks, generates pseudo-depth for them, learns masks from their boxes alone,
predicts on scenes never seen, scores the predictions, and writes `report.html` with its pictures.
Each stage is the command that a user would type, run as a process of its own; a stage whose result
is already there continues or is skipped, so an interrupted run goes on where it stopped.
"""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pages.report import Places, write_report
from stages import Stage, console, draw, ensure_store, fit, predict, score


def show(scores: dict[str, Any], report: Path, seconds: float) -> None:
    """Print the AP table and where the report lies."""
    table = Table(title="Unseen scenes, learnt from boxes only", title_justify="left")
    table.add_column("")
    names = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "small"}
    names |= {"ap_medium": "medium", "ap_large": "large"}
    for name in names.values():
        table.add_column(name, justify="right")
    for kind, label in (("segm", "masks"), ("bbox", "boxes")):
        values = (scores[kind][key] for key in names)
        table.add_row(label, *("-" if v is None else f"{100 * v:.1f}" for v in values))
    console.print()
    console.print(table)
    console.print(f"Done in {seconds / 60:.1f} minutes. Open [bold]{report}")


def run_line(places: Places, counts: tuple[str, ...], what: list[str]) -> list[Stage]:
    """Every stage in its turn; the last one's result is the scores."""
    layout = ("--dataset", "coco", "--data-root", str(places.scenes))
    stores = ("--train", str(places.store("train2017")), "--val", str(places.store("val2017")))
    return [
        draw(places.scenes, *counts),
        *(
            ensure_store(
                places.store(split), *layout, "--split", split, title=f"Pseudo-depth for {split}"
            )
            for split in ("train2017", "val2017")
        ),
        fit(what, places.run, *stores),
        predict(places.run, places.store("val2017"), places.predictions),
        score(places.predictions, places.annotations),
    ]


def main(
    out: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("quickstart"),
    train: Annotated[int, typer.Option(min=1, help="Scenes to learn from.")] = 512,
    val: Annotated[int, typer.Option(min=1, help="Scenes to be scored on.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 0,
    preset: Annotated[str, typer.Option(help="A trainer preset.")] = "scenes_tiny",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Passed on to `trainer fit`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Draw scenes, generate depth, learn from boxes, predict, score, and write a report."""
    began = time.monotonic()
    places = Places(out=out)
    out.mkdir(parents=True, exist_ok=True)
    counts = ("--train", str(train), "--val", str(val), "--seed", str(seed))
    chosen = [part for setting in settings or () for part in ("--set", setting)]
    stages = run_line(places, counts, [preset, *chosen])
    scores = stages[-1].result
    report = write_report(places, stages)
    seconds = time.monotonic() - began
    show(scores, report, seconds)
    if as_json:
        result = {"segm": scores["segm"], "bbox": scores["bbox"], "seconds": round(seconds, 1)}
        sys.stdout.write(json.dumps({**result, "report": str(report)}) + "\n")


if __name__ == "__main__":
    typer.run(main)
