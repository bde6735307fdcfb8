"""The typer application every subcommand registers with, and what all of them share."""

import json
import logging
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from boxdepth.evaluate.results import UsageError

app = typer.Typer(
    name="evaluate",
    help="COCO and official Cityscapes AP for anybody's predictions.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
# Away from a terminal tables must not be cut to 80 columns.
console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 140)
logger = logging.getLogger("boxdepth")


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"evaluate {version('boxdepth-evaluate')}")
        raise typer.Exit
    return wanted


@app.callback()
def _common(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Log more; show tracebacks.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors.")] = False,
) -> None:
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    console.quiet = quiet


def is_verbose() -> bool:
    """Whether `-v` was given."""
    return logger.level == logging.DEBUG


def say(text: object = "") -> None:
    """Human text: to stderr, markup off, nothing cut."""
    console.print(text, markup=False, soft_wrap=True)


def warn(warnings: tuple[str, ...] | list[str]) -> None:
    """One yellow line for each warning."""
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)


def progress() -> Progress:
    """A bar on a terminal; silent where stderr is none or CI is set."""
    hidden = not console.is_terminal or bool(os.environ.get("CI")) or console.quiet
    return Progress(console=console, disable=hidden, transient=True)


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
