"""The `trainer` command."""

from boxdepth.trainer.cli.main import main

__all__ = ["main"]
