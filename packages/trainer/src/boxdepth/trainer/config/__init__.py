"""Everything a run can be told: the values, the named presets, and what a user writes over them."""

from boxdepth.trainer.config.run import (
    Backbone,
    FcosHead,
    MaskBranch,
    Model,
    RunConfig,
)
from boxdepth.trainer.criterion.rules import Losses
from boxdepth.trainer.data.rules import Data
from boxdepth.trainer.distill.rules import Distillation
from boxdepth.trainer.engine.rules import Checkpoints, Optimizer
from boxdepth.trainer.engine.schedule import Schedule
from boxdepth.trainer.model.rules import MaskHead
from boxdepth.trainer.predict.rules import Inference

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
