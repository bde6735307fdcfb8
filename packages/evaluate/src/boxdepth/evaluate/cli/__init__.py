"""The `evaluate` command."""

from boxdepth.evaluate.cli.app import app
from boxdepth.evaluate.cli.main import main

__all__ = ["app", "main"]
