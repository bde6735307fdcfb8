"""The typer application that every subcommand registers with, and what all of them share."""

from typing import Annotated

import typer

from boxdepth.depthgen.cli.conventions import App, console, emit, interactive, logger, say, warn

__all__ = ["Json", "app", "console", "emit", "interactive", "logger", "say", "warn"]

app = App(
    "depthgen",
    about="Pseudo-depth for a whole detection dataset, in resumable, verified zarr stores.",
    distribution="boxdepth-depthgen",
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
