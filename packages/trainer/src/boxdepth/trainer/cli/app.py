"""The typer application that every subcommand registers with, and what all of them share."""

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from boxdepth.trainer.cli.conventions import App, console, interactive, say

__all__ = ["AsJson", "Device", "app", "console", "emit", "interactive", "say"]

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
