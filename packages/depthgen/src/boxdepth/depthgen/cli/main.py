"""The entry point: fit to start before anything heavy is imported, then the application."""

import sys

from boxdepth.depthgen.cli import process

TYPE_CHECKING = False  # typing is not loaded before Ctrl-C is looked after
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Entry point of ``depthgen``."""
    process.prepare()
    sys.exit(_run())


def _run() -> int:
    from boxdepth.depthgen.cli import conventions, exchange, look, run, sample  # noqa: F401
    from boxdepth.depthgen.cli.app import app

    process.ready()
    return conventions.run(
        app,
        stopped="; what is finished stays, repeat the command to go on",
        memory="use a smaller --batch-size",
    )
