"""What a batch is learnt as: which locations, which pairs."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator, model_validator

from boxdepth.trainer.config.settings import Ascending, Fraction, Positive, Scale, Settings

if TYPE_CHECKING:
    from boxdepth.trainer.geometry.neighbours import Offset

PAIR_TERMS = ("color", "consistency")
"""The loss terms that learn from pairs."""


class Assignment(Settings):
    """Where and how large a box must be for a location to learn it."""

    center_radius: Scale | None = 1.5
    """In strides; the sampling region's half side.  None: the whole box."""
    level_ranges: Annotated[Ascending, Field(min_length=4, max_length=4)] = (64, 128, 256, 512)
    """Borders in pixels between the sizes that p3..p7 regress."""


class PairRule(Settings):
    """Neighbour pairs on the mask grid that are believed to share a label."""

    kernel_size: Positive = 3
    dilation: Positive = 2
    color_threshold: Fraction = 0.3
    """0.3 admits a LAB distance of at most 2.41."""
    depth_threshold: Fraction = 0.5
    """tau_d of arXiv 2403.01214; 0.5 admits a difference of 1.386 of 255."""
    theta: Scale = 2.0
    """Similarity = exp(-difference / theta), colour in LAB, depth in 0..255 units."""

    @field_validator("kernel_size")
    @classmethod
    def _has_a_middle_and_neighbours(cls, value: int) -> int:
        if value < 3 or value % 2 == 0:
            raise ValueError("expected an odd number of at least 3")
        return value

    @property
    def offsets(self) -> "tuple[Offset, ...]":
        """The neighbours of a cell, in the order of every ``k`` axis."""
        from boxdepth.trainer.geometry.neighbours import neighbour_offsets

        return neighbour_offsets(self.kernel_size, self.dilation)


class Sampling(Settings):
    """Which positive locations get a mask loss; both limits null: all (condinst.md 4.1)."""

    per_image: Positive | None = 64
    """BoxInst: each box of an image keeps its best locations by class score x quality,
    max(per_image // boxes with a positive, 1) of them."""
    per_batch: Positive | None = None
    """CondInst: random positives of the rank, this many at most."""

    @model_validator(mode="after")
    def _one_limit(self) -> "Sampling":
        if self.per_image is not None and self.per_batch is not None:
            raise ValueError(
                f"per_image ({self.per_image}) and per_batch ({self.per_batch}) exclude each "
                "other: set the one that is not wanted to null"
            )
        return self
