"""AP for anybody's predictions: COCO and official Cityscapes protocols, without torch."""

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
from boxdepth.evaluate.results import DataError, EvaluateError, UsageError

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
    "Finding",
    "RunningEvaluation",
    "UsageError",
    "check",
    "compare",
    "evaluate_cityscapes",
    "evaluate_coco",
]
