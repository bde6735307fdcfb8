"""The entry point: fit to start before anything heavy is imported, then the application."""

import sys

from boxdepth.evaluate.cli import process

TYPE_CHECKING = False  # typing is not loaded before Ctrl-C is looked after
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Entry point of `evaluate`."""
    process.prepare()
    sys.exit(_run())


def _run() -> int:
    from boxdepth.evaluate.cli import (  # noqa: F401  (each registers its subcommand)
        ap,
        check,
        compare,
        conventions,
        convert,
        proxies,
        report,
        review,
    )
    from boxdepth.evaluate.cli.app import app

    process.ready()
    return conventions.run(app, memory="split the files, or run on a larger machine")
