"""COCO AP for boxes and masks: one interface, two backends that agree to 1e-12."""

from boxdepth.evaluate.coco_ap.evaluation import evaluate_coco, evaluate_tables
from boxdepth.evaluate.coco_ap.protocol import (
    Backend,
    CocoNumbers,
    CocoSummary,
    Curves,
    IouType,
)
from boxdepth.evaluate.coco_ap.report import CocoReport, CrossCheck
from boxdepth.evaluate.coco_ap.running import RunningEvaluation

__all__ = [
    "Backend",
    "CocoNumbers",
    "CocoReport",
    "CocoSummary",
    "CrossCheck",
    "Curves",
    "IouType",
    "RunningEvaluation",
    "evaluate_coco",
    "evaluate_tables",
]
