"""The typer application that every subcommand registers with, and what all of them share."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from boxdepth.trainer.cli.conventions import (
    App,
    console,
    interactive,
    is_verbose,
    logger,
    say,
    warn,
)
from boxdepth.trainer.config.overrides import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = [
    "AsJson",
    "Device",
    "app",
    "choose_device",
    "console",
    "emit",
    "interactive",
    "is_verbose",
    "logger",
    "refuse_existing",
    "say",
    "warn",
]

app = App(
    "trainer",
    about="Learn instance masks from boxes, with pseudo-depth as the extra sense.",
    distribution="boxdepth-trainer",
)

Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel="Machine")
]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")]


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


def choose_device(name: str, *, local_rank: int = 0) -> "torch.device":
    """The device a person means.

    Raises:
        ConfigError: no such device, or none here.
    """
    import torch

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
