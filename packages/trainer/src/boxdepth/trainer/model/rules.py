"""What the network can be told, and what predicting with it."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from boxdepth.trainer.config.settings import Fraction, NonNegative, Positive, Settings

if TYPE_CHECKING:
    from boxdepth.trainer.geometry.tiles import Tiling


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


class Inference(DetectionLimits):
    """How a run predicts."""

    short_side: Positive = 800
    max_size: Positive = 1333
    mask_threshold: Fraction = 0.5
    rescore: bool = False
    """Scores become sqrt(score x mask quality), as BoxTeacher's."""
    batch_size: Positive = 1
    """Images at hand together; those that are padded alike share a forward pass."""
    tile: Positive | None = None
    """Side of the square tiles in which larger images are looked at, in pixels of the image; None:
    as a whole."""
    overlap: NonNegative = 128
    """Pixels of the image that neighbouring tiles share: objects up to it are whole in one."""

    @model_validator(mode="after")
    def _tiles_advance(self) -> "Inference":
        if self.tile is not None and not self.overlap < self.tile / 2:
            raise ValueError(
                f"an overlap of {self.overlap} pixels for tiles of {self.tile}: expected less than "
                "half a tile"
            )
        return self

    @property
    def tiling(self) -> "Tiling | None":
        """Where the tiles of an image lie; None: it is seen as a whole."""
        from boxdepth.trainer.geometry.tiles import Tiling

        return None if self.tile is None else Tiling(size=self.tile, overlap=self.overlap)
