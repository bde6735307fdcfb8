"""The typer application that every subcommand registers with, and what all of them share."""

import json
import logging
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

app = typer.Typer(
    name="depthgen",
    help="Pseudo-depth for a whole detection dataset, in resumable, verified zarr stores.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
console = Console(stderr=True, highlight=False)
logger = logging.getLogger("boxdepth")

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def _print_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"depthgen {version('boxdepth-depthgen')}")
        raise typer.Exit


@app.callback()
def _common(
    _version: Annotated[
        bool | None,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Log more; show tracebacks.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors.")] = False,
) -> None:
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    if not logger.handlers:
        logger.addHandler(RichHandler(console=console, show_time=False, show_path=False))
    console.quiet = quiet


def is_verbose() -> bool:
    """Whether ``-v`` was given."""
    return logger.level == logging.DEBUG


def interactive() -> bool:
    """Whether a moving bar makes sense: a terminal, and nobody's log file."""
    return console.is_terminal and not os.environ.get("CI") and not console.quiet


def say(text: object = "", *, style: str | None = None) -> None:
    """Human text: to stderr, markup off, nothing cut."""
    console.print(text, markup=False, soft_wrap=True, style=style)


def warn(text: str) -> None:
    """One yellow line."""
    say(f"warning: {text}", style="yellow")


def emit(result: Mapping[str, Any]) -> None:
    """The machine's result: one line of JSON on stdout."""
    sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
    sys.stdout.flush()
