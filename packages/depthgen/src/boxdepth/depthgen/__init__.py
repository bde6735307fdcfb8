"""Pseudo-depth for detection datasets, in stores that are whole and verified, or do not open.

``open_store`` and ``StoreDataset`` read a store with numpy, zarr and Pillow alone; ``generate`` and
``load_predictor`` bring torch and transformers with them, when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from boxdepth.depthgen.store import (
    DepthgenError,
    Store,
    StoreDataset,
    StoreError,
    open_store,
    verify_store,
    write_store,
)

if TYPE_CHECKING:
    from boxdepth.depthgen.generate import Job, Summary, generate
    from boxdepth.depthgen.predictor import load_predictor

_LATER = {
    "Job": "boxdepth.depthgen.generate",
    "Summary": "boxdepth.depthgen.generate",
    "generate": "boxdepth.depthgen.generate",
    "load_predictor": "boxdepth.depthgen.predictor",
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


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
