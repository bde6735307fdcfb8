"""Instance masks learnt from boxes, with pseudo-depth as the extra sense.

``fit`` trains a run, ``load_predictor`` opens one to predict with; ``preset`` and ``RunConfig`` say
what a run is. Importing this module costs nothing: torch comes with the first name that needs it.
"""

from importlib import import_module

from boxdepth.trainer.errors import TrainerError

TYPE_CHECKING = False  # typing is not loaded before Ctrl-C is looked after
if TYPE_CHECKING:
    from typing import Any

    from boxdepth.trainer.config import RunConfig
    from boxdepth.trainer.config.presets import PRESETS
    from boxdepth.trainer.predict.predictor import Predictor, load_predictor
    from boxdepth.trainer.predict.results import Instances
    from boxdepth.trainer.runs import Fitted, Start, fit
    from boxdepth.trainer.runs.settings import preset, saved_config

_LATER = {
    "Fitted": "boxdepth.trainer.runs",
    "Instances": "boxdepth.trainer.predict.results",
    "PRESETS": "boxdepth.trainer.config.presets",
    "Predictor": "boxdepth.trainer.predict.predictor",
    "RunConfig": "boxdepth.trainer.config",
    "Start": "boxdepth.trainer.runs",
    "fit": "boxdepth.trainer.runs",
    "load_predictor": "boxdepth.trainer.predict.predictor",
    "preset": "boxdepth.trainer.runs.settings",
    "saved_config": "boxdepth.trainer.runs.settings",
}

__all__ = [
    "PRESETS",
    "Fitted",
    "Instances",
    "Predictor",
    "RunConfig",
    "Start",
    "TrainerError",
    "fit",
    "load_predictor",
    "preset",
    "saved_config",
]


def __getattr__(name: str) -> "Any":
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
