"""A run from its first check to its last evaluation: how it starts, what it leaves behind."""

from boxdepth.trainer.runs.plan import Plan, plan_run
from boxdepth.trainer.runs.start import Start
from boxdepth.trainer.runs.training import Fitted, fit, train

__all__ = ["Fitted", "Plan", "Start", "fit", "plan_run", "train"]
