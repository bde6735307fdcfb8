"""AP for anybody's predictions: COCO and official Cityscapes protocols, without torch."""

from boxdepth.evaluate.coco_ap import CocoNumbers, CocoReport, CocoSummary, evaluate_coco
from boxdepth.evaluate.results import DataError, EvaluateError, UsageError

__all__ = [
    "CocoNumbers",
    "CocoReport",
    "CocoSummary",
    "DataError",
    "EvaluateError",
    "UsageError",
    "evaluate_coco",
]
