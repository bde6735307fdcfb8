"""Pseudo-depth for detection datasets, in stores that are whole and verified, or do not open.

``open_store`` and ``StoreDataset`` read a store with numpy, zarr and Pillow alone; ``generate`` and
``load_predictor`` bring torch and transformers with them. Each name is imported when it is asked
for, so that a command starts at once.
"""

import sys
from importlib import import_module
from types import ModuleType

TYPE_CHECKING = False  # typing is not loaded before Ctrl-C is looked after
if TYPE_CHECKING:
    from typing import Any

    from boxdepth.depthgen.generate import Job, Summary, generate
    from boxdepth.depthgen.predictor import load_predictor
    from boxdepth.depthgen.store import (
        DepthgenError,
        Store,
        StoreDataset,
        StoreError,
        open_store,
        verify_store,
        write_store,
    )

_HOMES = {
    "DepthgenError": "store",
    "Job": "generate",
    "Store": "store",
    "StoreDataset": "store",
    "StoreError": "store",
    "Summary": "generate",
    "generate": "generate",
    "load_predictor": "predictor",
    "open_store": "store",
    "verify_store": "store",
    "write_store": "store",
}

__all__ = [
    "DepthgenError",
    "Job",
    "Store",
    "StoreDataset",
    "StoreError",
    "Summary",
    "generate",
    "load_predictor",
    "open_store",
    "verify_store",
    "write_store",
]


class _Package(ModuleType):
    """Keeps its public names where a submodule of the same name is imported, too."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _HOMES):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> "Any":
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
