"""The presets under their public path; they are made in ``config/presets.py``."""

from boxdepth.trainer.config.presets import PRESETS, Preset

__all__ = ["PRESETS", "Preset"]
