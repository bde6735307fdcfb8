"""A run from its first check to its last evaluation: how it starts, what it leaves behind."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from boxdepth.trainer.runs.start import Start

if TYPE_CHECKING:
    from boxdepth.trainer.runs.plan import Plan, plan_run
    from boxdepth.trainer.runs.training import Fitted, fit, train

_LATER = {
    "Fitted": "training",
    "Plan": "plan",
    "fit": "training",
    "plan_run": "plan",
    "train": "training",
}

__all__ = ["Fitted", "Plan", "Start", "fit", "plan_run", "train"]


def __getattr__(name: str) -> Any:
    """Torch comes with the first name that needs it."""
    if name in _LATER:
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
