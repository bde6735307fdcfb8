"""What the data of a run can be told."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from boxdepth.trainer.config.settings import Fraction, NonNegative, Positive, Settings, Supervision
from boxdepth.trainer.geometry.rules import Tiles

Resize = Literal["fast", "pillow"]
ColorChange = Literal["none", "strong", "strong_blur"]


class Augmentation(Tiles):
    """Resize of the shorter side and horizontal flip, of image, boxes and depth together."""

    short_sides: Annotated[tuple[Positive, ...], Field(min_length=1)] = (
        640, 672, 704, 736, 768, 800,
    )  # fmt: skip
    max_size: Positive = 1333
    flip: Fraction = 0.5
    resize: Resize = "fast"
    """`pillow`: as Pillow does it, byte by byte; `fast`: three times as fast, one level of 255 off
    here and there (photographs: less than 1 value in 1000)."""
    color: ColorChange = "none"
    """Colour jitter and greyscale, with blur or without, for the student's eyes only: the teacher
    and the colour pairs see the image as it is (BoxTeacher)."""


class Data(Settings):
    """Where a run learns from, what of it, and in which batches."""

    train: Path | None = None
    """Store to learn from; the command's --train, else the preset's default store."""
    val: Path | None = None
    """Store to evaluate on; None: no evaluation."""
    val_annotations: Path | None = None
    """COCO annotation file of the val store's images, for scoring the predictions."""
    supervision: Supervision = "boxes"
    """`boxes`: masks are never read. `mixed`: a mask where the annotation has one."""
    batch_size: Positive = 16
    """Images a step, over all ranks and accumulation steps together."""
    accumulate: Positive = 1
    """Forward passes that make one step; divides the batch size of a rank."""
    workers: NonNegative = 4
    """Threads that decode and augment ahead of the model; 0: in the main thread."""
    timeout_seconds: Positive = 300
    """A batch that takes longer to load is an error that names its images."""
    augmentation: Augmentation = Augmentation()
    group_aspect: bool = True
    """Batches hold only landscape or only portrait images: less padding."""
    keep_empty: bool = False
    """Keep images without a (non-crowd) box in training."""
    bottom_rows_removed: NonNegative = 10
    """Rows at the bottom of the original image in which no pair is trusted (BoxInst on COCO)."""
    mask_fraction: Fraction = 1.0
    """With `mixed`: share of the annotations whose mask may be used, chosen by annotation id."""
