"""Running the three commands one after the other, as a user would type them."""

import json
import subprocess
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from boxdepth.depthgen.store.schema import MANIFEST

console = Console(stderr=True, highlight=False)
SCRIPTS = Path(sysconfig.get_path("scripts"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A command that has run, or whose result was there already."""

    title: str
    command: str = "(kept)"
    seconds: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)
    """What `--json` printed."""


def call(title: str, *command: str) -> Stage:
    """Run a command with its progress shown; its last line of stdout is its JSON result.

    Raises:
        typer.Exit: the command failed; with its exit code, after it said why.
    """
    console.rule(f"[bold]{title}", align="left", style="dim")
    console.print(f"[dim]$ {' '.join(command)}", soft_wrap=True)
    began = time.monotonic()
    program = [str(SCRIPTS / command[0]), *command[1:]]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        console.print(f"[red]error: {command[0]} stopped with exit code {done.returncode}")
        raise typer.Exit(done.returncode)
    lines = done.stdout.strip().splitlines()
    return Stage(
        title=title,
        command=" ".join(command),
        seconds=time.monotonic() - began,
        result=json.loads(lines[-1]) if lines else {},
    )


def finished(store: Path) -> bool:
    """Whether a depth store is complete: its manifest is written last."""
    return (store / MANIFEST).is_file()


def draw(scenes: Path, *options: str) -> Stage:
    """Draw scenes in COCO's layout, unless they are there."""
    title = "Draw scenes"
    if (scenes / "annotations" / "instances_val2017.json").is_file():
        console.print(f"The scenes in {scenes} are kept; another folder draws new ones.")
        return Stage(title=title)
    return call(title, "depthgen", "sample", "--out", str(scenes), *options, "--json")


def ensure_store(store: Path, *source: str, title: str) -> Stage:
    """Generate a store, unless it is there; an unfinished one goes on."""
    if finished(store):
        return Stage(title=title)
    return call(title, "depthgen", "run", *source, "--store", str(store), "--json")


def ensure_imported_store(store: Path, depth: Path, *source: str, title: str) -> Stage:
    """A store with masks and with depth that was measured, unless it is there."""
    if finished(store):
        return Stage(title=title)
    where = ("depthgen", "import", str(depth), str(store))
    return call(title, *where, *source, "--with-masks", "--json")


def fit(what: Sequence[str], run: Path, *options: str, fork: Path | None = None) -> Stage:
    """Train, from `fork`'s state if given; an interrupted run resumes.

    Args:
        what: a preset's name, or `--config` and a file.
    """
    started, saved = (run / "run.json").exists(), (run / "latest").exists()
    again = ["--resume"] if saved else ["--overwrite"] if started else []
    again += ["--fork", str(fork)] if fork and not saved else []
    where = (*what, "--out", str(run))
    return call("Learn masks", "trainer", "fit", *where, *again, *options, "--json")


def predict(run: Path, store: Path, out: Path, *options: str) -> Stage:
    """Predict on a store with the run's newest weights (the teacher's, if it has one)."""
    target = ("--store", str(store), "--out", str(out), "--overwrite")
    return call("Predict", "trainer", "predict", str(run), *target, *options, "--json")


def score(predictions: Path, annotations: Path, *options: str) -> Stage:
    """AP of predictions: what `evaluate ap --json` says."""
    files = ("--predictions", str(predictions), "--annotations", str(annotations))
    return call("Score", "evaluate", "ap", *files, *options, "--json")
