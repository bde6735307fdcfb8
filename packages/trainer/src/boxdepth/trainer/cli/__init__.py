"""The `trainer` command."""

from boxdepth.trainer.cli.app import app
from boxdepth.trainer.cli.main import main

__all__ = ["app", "main"]
