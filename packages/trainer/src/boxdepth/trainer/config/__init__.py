"""Everything a run can be told: the values, the named presets, and what a user writes over them.

``settings`` holds the base of all values and is what each part's ``rules`` are made of; ``run`` is
made of those rules. So the names here come when they are asked for, ``run`` above every part.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boxdepth.trainer.config.run import Backbone, FcosHead, MaskBranch, Model, RunConfig
    from boxdepth.trainer.criterion.rules import Losses
    from boxdepth.trainer.data.rules import Data
    from boxdepth.trainer.distill.rules import Distillation
    from boxdepth.trainer.engine.rules import Checkpoints, Optimizer
    from boxdepth.trainer.engine.schedule import Schedule
    from boxdepth.trainer.model.rules import Inference, MaskHead

__all__ = [
    "Backbone",
    "Checkpoints",
    "Data",
    "Distillation",
    "FcosHead",
    "Inference",
    "Losses",
    "MaskBranch",
    "MaskHead",
    "Model",
    "Optimizer",
    "RunConfig",
    "Schedule",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"{__name__}.run"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
