"""The command ``depthgen``."""

from boxdepth.depthgen.cli import exchange  # noqa: F401  (registers export and import)
from boxdepth.depthgen.cli.main import main

__all__ = ["main"]
