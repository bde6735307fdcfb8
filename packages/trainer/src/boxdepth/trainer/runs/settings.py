"""The settings of a run as Python code asks for them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides, choose_preset, load_config
from boxdepth.trainer.config.presets import PRESETS
from boxdepth.trainer.errors import ConfigError
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


def chosen_config(
    name: str | None = None, file: Path | None = None, *, resumed: Path | None = None
) -> RunConfig:
    """A preset, the settings in a file, or those of a run folder that is gone on with.

    Args:
        resumed: whose settings are meant where neither preset nor file is given, if it has any.

    Raises:
        ConfigError: a preset and a file, no such preset, or a file that can't be read.
    """
    if name is not None and file is not None:
        raise ConfigError("give a preset or --config, not both")
    if file is not None:
        return load_config(file)
    if name is None and resumed is not None and (resumed / CONFIG).is_file():
        return load_config(resumed / CONFIG)
    return choose_preset(PRESETS, name or "coco_r50_1x")


def saved_config(run: str | Path) -> RunConfig:
    """The resolved settings in a run folder, to go on with or to start from.

    Raises:
        ConfigError: there are none, or they can't be read.
    """
    return load_config(Path(run) / CONFIG)


def tile_settings(size: int | None, overlap: int) -> list[str]:
    """What tiles of this size mean, as ``--set`` takes it: a run predicts as it learnt."""
    if size is None:
        return []
    return [
        f"{section}.{name}={value}"
        for section in ("data.augmentation", "inference")
        for name, value in (("tile", size), ("overlap", overlap))
    ]


def flag_settings(flags: Mapping[str, object]) -> list[str]:
    """What has an option of its own, as ``--set`` takes it.

    Args:
        flags: by path; None: not given.
    """
    return [f"{path}={value}" for path, value in flags.items() if value is not None]


def trained_on(run: Path) -> Path:
    """The store that a run learnt from: its boxes are meant where no other store is named.

    Raises:
        ConfigError: nobody knows, or it is gone.
    """
    from boxdepth.depthgen.store import is_remote  # brings zarr; the rest of this file needs none

    saved = run / CONFIG
    store = load_config(saved).data.train if saved.is_file() else None
    if store is None or not (is_remote(store) or store.exists()):
        which = "not known" if store is None else f"{store}, which is not there"
        raise ConfigError(
            f"--boxes store: the store that {run} learnt from is {which}; give it with --store"
        )
    return store
