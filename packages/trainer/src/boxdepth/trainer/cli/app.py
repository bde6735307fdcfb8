"""The typer application that every subcommand registers with, and what all of them share."""

import json
import logging
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.logging import RichHandler

from boxdepth.trainer.config.overrides import ConfigError

app = typer.Typer(
    name="trainer",
    help="Learn instance masks from boxes, with pseudo-depth as the extra sense.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
console = Console(stderr=True, highlight=False)
logger = logging.getLogger("boxdepth")

Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel="Machine")
]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")]


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"trainer {version('boxdepth-trainer')}")
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
    logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
    logger.handlers = [RichHandler(console=console, show_path=False, show_time=False)]
    console.quiet = quiet


def is_verbose() -> bool:
    """Whether `-v` was given."""
    return logger.level == logging.DEBUG


def say(text: object = "", *, style: str | None = None) -> None:
    """Human text: to stderr, markup off, nothing cut."""
    console.print(text, markup=False, soft_wrap=True, style=style)


def bar_wanted() -> bool:
    """False where stderr is no terminal or CI is set."""
    return console.is_terminal and not os.environ.get("CI") and not console.quiet


def emit(result: Mapping[str, Any], *, as_json: bool) -> None:
    """The machine's result: one line of JSON on stdout."""
    if as_json:
        sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
        sys.stdout.flush()


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Nothing is overwritten without being told to.

    Raises:
        ConfigError: the file is there.
    """
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists already; --overwrite replaces it")


def choose_device(name: str, *, local_rank: int = 0) -> torch.device:
    """The device a person means.

    Raises:
        ConfigError: no such device, or none here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name!r}: expected auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"--device {name}: this machine (or this torch) has no CUDA")
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        torch.cuda.set_device(device)
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device mps: this machine (or this torch) has no MPS")
    elif device.type not in ("cpu", "mps"):
        raise ConfigError(f"--device {name!r}: expected auto, cpu, cuda, cuda:N or mps")
    return device
