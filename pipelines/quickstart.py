"""From nothing to instance masks, AP and a report: the whole line, on scenes drawn here.

    python pipelines/quickstart.py --out quickstart

draws scenes with exact masks, generates pseudo-depth for them, learns masks from their boxes alone,
predicts on scenes never seen, scores the predictions, and writes `report.html` with its pictures.
Each stage is the command that a user would type, run as a process of its own; a stage whose result
is already there continues or is skipped, so an interrupted run goes on where it stopped.
"""

import json
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from quickstart_report import Stage, write_report

console = Console(stderr=True, highlight=False)
SCRIPTS = Path(sysconfig.get_path("scripts"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where everything of one quickstart lies."""

    out: Path

    @property
    def scenes(self) -> Path:
        return self.out / "scenes"

    @property
    def annotations(self) -> Path:
        return self.scenes / "annotations" / "instances_val2017.json"

    @property
    def run(self) -> Path:
        return self.out / "run"

    @property
    def predictions(self) -> Path:
        return self.out / "predictions.json"

    def store(self, split: str) -> Path:
        return self.out / "stores" / f"scenes-{split}.zarr"


def call(title: str, *command: str) -> tuple[Stage, dict[str, Any]]:
    """Run one command with its progress shown; its last line of stdout is its JSON result."""
    console.rule(f"[bold]{title}", align="left", style="dim")
    console.print(f"[dim]$ {' '.join(command)}", soft_wrap=True)
    began = time.monotonic()
    program = [str(SCRIPTS / command[0]), *command[1:]]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        console.print(f"[red]{command[0]} stopped with exit code {done.returncode}")
        raise typer.Exit(done.returncode)
    lines = done.stdout.strip().splitlines()
    seconds = time.monotonic() - began
    stage = Stage(title=title, command=" ".join(command), seconds=seconds)
    return stage, json.loads(lines[-1]) if lines else {}


def draw(plan: Plan, *, train: int, val: int, seed: int) -> tuple[Stage, dict[str, Any]]:
    """Draw the scenes, unless they are there."""
    title = "Draw scenes"
    if plan.annotations.is_file():
        console.print(f"The scenes in {plan.scenes} are kept; another --out draws new ones.")
        return Stage(title=title, command="(kept)", seconds=0.0), {}
    counts = ("--train", str(train), "--val", str(val), "--seed", str(seed))
    return call(title, "depthgen", "sample", "--out", str(plan.scenes), *counts, "--json")


def generate(plan: Plan, split: str) -> tuple[Stage, dict[str, Any]]:
    """Write boxes and pseudo-depth of a split into a store; a finished store is left alone."""
    source = ("--dataset", "coco", "--data-root", str(plan.scenes), "--split", split)
    return call(
        f"Pseudo-depth for {split}",
        *("depthgen", "run", *source, "--store", str(plan.store(split)), "--json"),
    )


def fit(plan: Plan, *, preset: str, settings: list[str]) -> tuple[Stage, dict[str, Any]]:
    """Learn masks from the boxes of the training store; an interrupted run resumes."""
    resume = ["--resume"] if (plan.run / "run.json").exists() else []
    chosen = [part for setting in settings for part in ("--set", setting)]
    stores = ("--train", str(plan.store("train2017")), "--val", str(plan.store("val2017")))
    return call(
        "Learn masks from boxes",
        *("trainer", "fit", preset, *stores, "--out", str(plan.run), *resume, *chosen, "--json"),
    )


def predict(plan: Plan) -> tuple[Stage, dict[str, Any]]:
    """Predict masks on scenes that were never trained on."""
    return call(
        "Predict on unseen scenes",
        *("trainer", "predict", str(plan.run), "--store", str(plan.store("val2017"))),
        *("--out", str(plan.predictions), "--overwrite", "--json"),
    )


def score(plan: Plan) -> tuple[Stage, dict[str, Any]]:
    """AP of the predictions against the exact masks."""
    return call(
        "Score",
        *("evaluate", "ap", "--predictions", str(plan.predictions)),
        *("--annotations", str(plan.annotations), "--json"),
    )


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
    plan = Plan(out=out)
    out.mkdir(parents=True, exist_ok=True)
    stages = [
        draw(plan, train=train, val=val, seed=seed)[0],
        generate(plan, "train2017")[0],
        generate(plan, "val2017")[0],
        fit(plan, preset=preset, settings=settings or [])[0],
        predict(plan)[0],
    ]
    last, scores = score(plan)
    seconds = time.monotonic() - began
    report = write_report(
        out,
        stages=[*stages, last],
        scores=scores,
        val_store=plan.store("val2017"),
        run=plan.run,
        predictions=plan.predictions,
        annotations=plan.annotations,
    )
    show(scores, report, seconds)
    if as_json:
        result = {"segm": scores["segm"], "bbox": scores["bbox"], "seconds": round(seconds, 1)}
        sys.stdout.write(json.dumps({**result, "report": str(report)}) + "\n")


if __name__ == "__main__":
    typer.run(main)
