"""The guarded input layer: whatever leaves it is checked, columnar and safe for compiled code."""

from boxdepth.evaluate.results import rle
from boxdepth.evaluate.results.annotations import GroundTruth, read_annotations
from boxdepth.evaluate.results.json_document import JsonLimits, load_json
from boxdepth.evaluate.results.masks import MaskTable
from boxdepth.evaluate.results.prediction_reader import read_predictions
from boxdepth.evaluate.results.predictions import Predictions
from boxdepth.evaluate.results.problems import (
    DataError,
    EvaluateError,
    GateError,
    MissingExtraError,
    Problems,
    UsageError,
)

__all__ = [
    "DataError",
    "EvaluateError",
    "GateError",
    "GroundTruth",
    "JsonLimits",
    "MaskTable",
    "MissingExtraError",
    "Predictions",
    "Problems",
    "UsageError",
    "load_json",
    "read_annotations",
    "read_predictions",
    "rle",
]
