"""COCO AP for boxes and masks: one interface, two backends that agree to 1e-9."""

from boxdepth.evaluate.coco_ap.evaluation import evaluate_coco, evaluate_tables
from boxdepth.evaluate.coco_ap.protocol import (
    Backend,
    CocoNumbers,
    CocoReport,
    CocoSummary,
    Curves,
    IouType,
)

__all__ = [
    "Backend",
    "CocoNumbers",
    "CocoReport",
    "CocoSummary",
    "Curves",
    "IouType",
    "evaluate_coco",
    "evaluate_tables",
]
