"""What people ask beside AP: F1, confusion, calibration, fragmentation, slices, a row per image."""

from boxdepth.evaluate.measures.calibration import Calibration, calibrate
from boxdepth.evaluate.measures.confusion import ConfusionMatrix, confusion_matrix
from boxdepth.evaluate.measures.draws import drawn_ece, drawn_f1
from boxdepth.evaluate.measures.fragmentation import Fragmentation, fragmentation
from boxdepth.evaluate.measures.measuring import Measures, measure, measure_matched
from boxdepth.evaluate.measures.operating_point import (
    OperatingPoint,
    OperatingPoints,
    best_operating_points,
    best_point,
)
from boxdepth.evaluate.measures.outcomes import Outcomes, outcomes_of
from boxdepth.evaluate.measures.per_image import PerImage, per_image
from boxdepth.evaluate.measures.slices import DepthSign, Slice, measure_slices

__all__ = [
    "Calibration",
    "ConfusionMatrix",
    "DepthSign",
    "Fragmentation",
    "Measures",
    "OperatingPoint",
    "OperatingPoints",
    "Outcomes",
    "PerImage",
    "Slice",
    "best_operating_points",
    "best_point",
    "calibrate",
    "confusion_matrix",
    "drawn_ece",
    "drawn_f1",
    "fragmentation",
    "measure",
    "measure_matched",
    "measure_slices",
    "outcomes_of",
    "per_image",
]
