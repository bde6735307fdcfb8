"""The command ``depthgen``."""

from boxdepth.depthgen.cli.main import main

__all__ = ["main"]
