"""The entry point: fit to start before anything heavy is imported, then the application."""

import os
import sys

from boxdepth.trainer.cli import process

TYPE_CHECKING = False  # typing is not loaded before Ctrl-C is looked after
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Entry point of `trainer`."""
    process.prepare()
    sys.exit(_run())


def _run() -> int:
    from boxdepth.trainer.cli import conventions, fit, inspect, predict, weights  # noqa: F401
    from boxdepth.trainer.cli.app import app

    process.ready()
    if os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None):
        return conventions.fail(
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD lets checkpoints run code; unset it",
            conventions.USAGE,
        )
    return conventions.run(
        app,
        memory="lower data.batch_size or data.workers, raise data.accumulate (--set), "
        "or use --set precision=bf16",
    )
