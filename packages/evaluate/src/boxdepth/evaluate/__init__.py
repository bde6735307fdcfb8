"""AP for anybody's predictions: COCO and official Cityscapes protocols, without torch.

Each name is imported when it is asked for, so that a command starts at once.
"""

import sys
from importlib import import_module
from types import ModuleType

TYPE_CHECKING = False  # typing is not loaded before Ctrl-C is looked after
if TYPE_CHECKING:
    from typing import Any

    from boxdepth.evaluate.check import CheckReport, Finding, check
    from boxdepth.evaluate.cityscapes_ap import CityscapesReport, evaluate_cityscapes
    from boxdepth.evaluate.coco_ap import (
        CocoNumbers,
        CocoReport,
        CocoSummary,
        RunningEvaluation,
        evaluate_coco,
    )
    from boxdepth.evaluate.compare import Comparison, Contender, Estimate, compare
    from boxdepth.evaluate.export import ExportReport, convert
    from boxdepth.evaluate.measures import Measures, measure
    from boxdepth.evaluate.results import DataError, EvaluateError, UsageError
    from boxdepth.evaluate.review import Review, review

_HOMES = {
    "CheckReport": "check",
    "CityscapesReport": "cityscapes_ap",
    "CocoNumbers": "coco_ap",
    "CocoReport": "coco_ap",
    "CocoSummary": "coco_ap",
    "Comparison": "compare",
    "Contender": "compare",
    "DataError": "results",
    "Estimate": "compare",
    "EvaluateError": "results",
    "ExportReport": "export",
    "Finding": "check",
    "Measures": "measures",
    "Review": "review",
    "RunningEvaluation": "coco_ap",
    "UsageError": "results",
    "check": "check",
    "compare": "compare",
    "convert": "export",
    "evaluate_cityscapes": "cityscapes_ap",
    "evaluate_coco": "coco_ap",
    "measure": "measures",
    "review": "review",
}

__all__ = [
    "CheckReport",
    "CityscapesReport",
    "CocoNumbers",
    "CocoReport",
    "CocoSummary",
    "Comparison",
    "Contender",
    "DataError",
    "Estimate",
    "EvaluateError",
    "ExportReport",
    "Finding",
    "Measures",
    "Review",
    "RunningEvaluation",
    "UsageError",
    "check",
    "compare",
    "convert",
    "evaluate_cityscapes",
    "evaluate_coco",
    "measure",
    "review",
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
