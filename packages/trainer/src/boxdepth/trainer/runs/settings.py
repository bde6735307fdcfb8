"""The settings of a run as Python code asks for them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides, choose_preset, load_config
from boxdepth.trainer.config.presets import PRESETS
from boxdepth.trainer.runs.start import CONFIG


def preset(name: str, settings: Mapping[str, Any] | None = None) -> RunConfig:
    """A named run with other values at some paths, as ``--set`` has it.

    Args:
        name: one of ``PRESETS``.
        settings: by dotted path, such as ``{"data.train": "train.zarr", "data.batch_size": 4}``.

    Raises:
        ConfigError: no such preset or path, or a value that a setting can't have.
    """
    texts = [f"{path}={json.dumps(value, default=str)}" for path, value in (settings or {}).items()]
    return apply_overrides(choose_preset(PRESETS, name), texts)


def saved_config(run: str | Path) -> RunConfig:
    """The resolved settings in a run folder, to go on with or to start from.

    Raises:
        ConfigError: there are none, or they can't be read.
    """
    return load_config(Path(run) / CONFIG)
