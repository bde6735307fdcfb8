"""The typer application every subcommand registers with, and what all of them share."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import Progress

from boxdepth.evaluate.cli import conventions
from boxdepth.evaluate.cli.conventions import App, console, interactive, say
from boxdepth.evaluate.results import UsageError

__all__ = [
    "app",
    "console",
    "emit",
    "interactive",
    "progress",
    "refuse_existing",
    "say",
    "warn",
    "write_new",
]

app = App(
    "evaluate",
    about="COCO and official Cityscapes AP for anybody's predictions.",
    distribution="boxdepth-evaluate",
)


def warn(warnings: tuple[str, ...] | list[str]) -> None:
    """One yellow line for each warning."""
    for warning in warnings:
        conventions.warn(warning)


def progress() -> Progress:
    """A bar on a terminal; silent where stderr is none or CI is set."""
    return Progress(console=console, disable=not interactive(), transient=True)


def emit(
    result: Mapping[str, Any], *, as_json: bool, out: Path | None, overwrite: bool = False
) -> None:
    """The machine's result: one line of JSON on stdout, and / or a file."""
    text = json.dumps(result, allow_nan=False)
    if out is not None:
        write_new(out, text + "\n", overwrite=overwrite)
        say(f"Wrote {out}")
    if as_json:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Nothing is overwritten without being told to."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already. Pass --overwrite to replace it.")


def write_new(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a whole file or none of it."""
    refuse_existing(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
