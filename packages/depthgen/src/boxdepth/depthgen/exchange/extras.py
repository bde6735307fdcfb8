"""Optional packages, named when they are missed."""

from importlib import import_module
from typing import Any

from boxdepth.depthgen.store.errors import MissingExtraError


def need(module: str, *, extra: str, purpose: str) -> Any:
    """Import an optional package.

    Raises:
        MissingExtraError: It is not installed; the message names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs {module}: pip install 'boxdepth-depthgen[{extra}]'"
        ) from error
