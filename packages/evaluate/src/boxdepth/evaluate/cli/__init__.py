"""The `evaluate` command."""

from boxdepth.evaluate.cli.main import main

__all__ = ["main"]
