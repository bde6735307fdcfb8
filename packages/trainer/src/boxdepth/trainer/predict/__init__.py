"""Dense outputs -> detections -> masks at the original size -> COCO results."""

from boxdepth.trainer.predict.detections import (
    DetectionLimits,
    chosen_rows,
    detect,
    detect_in_boxes,
)
from boxdepth.trainer.predict.masks import mask_probabilities, predict_masks
from boxdepth.trainer.predict.results import Instances, Rle, encode_rle, to_coco_results

__all__ = [
    "DetectionLimits",
    "Instances",
    "Rle",
    "chosen_rows",
    "detect",
    "detect_in_boxes",
    "encode_rle",
    "mask_probabilities",
    "predict_masks",
    "to_coco_results",
]
