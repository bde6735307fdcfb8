"""Depth models outside transformers, a small module each: ``--model adapter:MODULE:FOLDER``.

Such a module has

- ``KIND``: ``"inverse"`` (relative, large = near) or ``"metric"`` (metres);
- ``load(folder, *, device)``: the model, from the files in ``folder``.

What ``load`` returns has ``predict(images)``: from a list of RGB images, uint8 [h w 3] of one size,
to a list of depth maps, float32 [rows columns] of any size, each over the whole image. The module
is code of yours, or that you trust: it is imported and run.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

import numpy as np

from boxdepth.depthgen.store.errors import ConfigError, DataError, MissingExtraError

_KINDS: Final = ("inverse", "metric")


class DepthModel(Protocol):
    """What an adapter's ``load`` returns."""

    def predict(self, images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Depth of images of one size, each alone: no image may change the depth of another."""
        ...


def import_adapter(module: str) -> ModuleType:
    """Import an adapter by its dotted name, or from a ``.py`` file.

    Raises:
        ConfigError: There is no such module, or it is no adapter.
        MissingExtraError: Something that it needs is not installed.
    """
    try:
        found = (
            _from_file(Path(module)) if module.endswith(".py") else importlib.import_module(module)
        )
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            raise ConfigError(f"adapter {module}: there is no such module") from error
        raise MissingExtraError(f"adapter {module} needs {error.name}: install it first") from error
    if getattr(found, "KIND", None) not in _KINDS or not callable(getattr(found, "load", None)):
        raise ConfigError(
            f"adapter {module}: KIND ('inverse' or 'metric') and load(folder, *, device) expected"
        )
    return found


def load_adapted(module: str, folder: Path, *, device: str) -> DepthModel:
    """Load the model of an adapter.

    Raises:
        ConfigError: As ``import_adapter`` has it.
        DataError: Its own loader fails.
    """
    adapter = import_adapter(module)
    try:
        model: Any = adapter.load(folder, device=device)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"adapter {module} needs {error.name}: install it first") from error
    except Exception as error:  # whatever the module makes of a wrong folder
        raise DataError(f"adapter {module}: cannot load {folder} ({error!r})") from error
    if not callable(getattr(model, "predict", None)):
        raise ConfigError(f"adapter {module}: what load returns has no predict(images)")
    loaded: DepthModel = model
    return loaded


def predict_adapted(
    model: DepthModel, images: Sequence[np.ndarray], *, label: str
) -> list[np.ndarray]:
    """Depth maps of an adapter's model, float32 [rows columns], checked.

    Raises:
        DataError: Not one map of two axes for each image.
    """
    maps = [np.asarray(item, dtype=np.float32) for item in model.predict(list(images))]
    if len(maps) != len(images) or not all(item.ndim == 2 and item.size for item in maps):
        shapes = ", ".join(str(item.shape) for item in maps[:4])
        raise DataError(
            f"model {label}: predict gave {len(maps)} maps ({shapes}) for {len(images)} images; "
            "one of [rows columns] each is expected"
        )
    return maps


def _from_file(file: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"adapter_{file.stem}", file)
    if specification is None or specification.loader is None or not file.is_file():
        raise ConfigError(f"adapter {file}: there is no such file")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
