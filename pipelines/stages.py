"""Running the three commands one after the other, as a user would type them."""

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from boxdepth.depthgen.store.schema import MANIFEST

console = Console(stderr=True, highlight=False)
SCRIPTS = Path(sysconfig.get_path("scripts"))


def call(title: str, *command: str) -> dict[str, Any]:
    """Run a command with its progress shown; its last line of stdout is its JSON result.

    Raises:
        typer.Exit: the command failed; with its exit code, after it said why.
    """
    console.rule(f"[bold]{title}", align="left", style="dim")
    console.print(f"[dim]$ {' '.join(command)}", soft_wrap=True)
    program = [str(SCRIPTS / command[0]), *command[1:]]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        console.print(f"[red]error: {command[0]} stopped with exit code {done.returncode}")
        raise typer.Exit(done.returncode)
    lines = done.stdout.strip().splitlines()
    result: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return result


def finished(store: Path) -> bool:
    """Whether a depth store is complete: its manifest is written last."""
    return (store / MANIFEST).is_file()


def ensure_store(store: Path, *source: str, title: str) -> None:
    """Generate a store with masks, unless it is there; an unfinished one goes on."""
    if not finished(store):
        call(title, *("depthgen", "run", *source, "--store", str(store), "--with-masks", "--json"))


def ensure_imported_store(store: Path, depth: Path, *source: str, title: str) -> None:
    """A store with masks and with depth that was measured, unless it is there."""
    if not finished(store):
        where = ("depthgen", "import", str(depth), str(store))
        call(title, *where, *source, "--with-masks", "--json")


def fit(config: Path, run: Path, *options: str, fork: Path | None = None) -> dict[str, Any]:
    """Train a resolved configuration, from `fork`'s state if given; an interrupted run resumes."""
    started, saved = (run / "run.json").exists(), (run / "latest").exists()
    again = ["--resume"] if saved else ["--overwrite"] if started else []
    again += ["--fork", str(fork)] if fork and not saved else []
    where = ("--config", str(config), "--out", str(run))
    return call("Fit", "trainer", "fit", *where, *again, *options, "--json")


def predict(run: Path, store: Path, out: Path, *options: str) -> dict[str, Any]:
    """Predict on a store with the run's newest weights (the teacher's, if it has one)."""
    target = ("--store", str(store), "--out", str(out), "--overwrite")
    return call("Predict", "trainer", "predict", str(run), *target, *options, "--json")


def score(predictions: Path, annotations: Path, *options: str) -> dict[str, Any]:
    """AP of predictions: what `evaluate ap --json` says."""
    files = ("--predictions", str(predictions), "--annotations", str(annotations))
    return call("Score", "evaluate", "ap", *files, *options, "--json")
