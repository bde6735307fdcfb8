"""What the network can be told, and what predicting with it."""

from typing import Annotated, Literal

from pydantic import Field

from boxdepth.trainer.config.settings import Fraction, Positive, Settings
from boxdepth.trainer.geometry.rules import Tiles


class MaskHead(Settings):
    """Layers of the dynamic network."""

    layers: Annotated[int, Field(ge=2)] = 3
    channels: Positive = 8
    relative_coordinates: bool = True
    depth: Literal["off", "product", "sum"] = "product"
    """How the depth layer joins the mask logit (arXiv 2403.01214, Eq. 1)."""


class DetectionLimits(Settings):
    """Which of the predicted boxes are detections (condinst.md 2.3)."""

    score_threshold: Fraction = 0.05
    """On class score x quality, before the square root."""
    threshold_with_quality: bool = True
    """False: the threshold looks at the class score alone."""
    pre_nms: Positive = 1000
    """(location, class) pairs kept per level, or four for each of `max_detections`."""
    nms_iou: Fraction = 0.6
    max_detections: Positive = 100

    @property
    def candidates(self) -> int:
        """(location, class) pairs that a level hands to NMS: a dense image needs more of them."""
        return max(self.pre_nms, 4 * self.max_detections)


class Inference(DetectionLimits, Tiles):
    """How a run predicts."""

    short_side: Positive = 800
    max_size: Positive = 1333
    mask_threshold: Fraction = 0.5
    rescore: bool = False
    """Scores become sqrt(score x mask quality), as BoxTeacher's."""
    batch_size: Positive = 1
    """Images at hand together; those that are padded alike share a forward pass."""
