"""What self-distillation can be told."""

from typing import Literal

from pydantic import model_validator

from boxdepth.trainer.config.settings import Fraction, Positive, Settings
from boxdepth.trainer.criterion.rules import PseudoTerms

DepthScore = Literal["eq8", "ratio", "ratio_and_edges"]
BoxOverlap = Literal["iou", "giou"]


class Matching(Settings):
    """S_match = alpha f_iou + beta S_dep + (1 - alpha - beta) S_pred (arXiv 2403.01214, Eq. 9)."""

    alpha: Fraction = 0.8
    beta: Fraction = 0.2
    beta_schedule: Literal["constant", "linear"] = "constant"
    """`linear`: beta falls to 0 over the run, the freed weight goes to the predicted score."""
    iou: BoxOverlap = "iou"
    depth_score: DepthScore = "eq8"
    """`eq8`: pixels weighted by their smoothness (arXiv 2403.01214, Eq. 8); `ratio`: unweighted;
    `ratio_and_edges`: pixels on sharp edges count as well."""

    @model_validator(mode="after")
    def _weights_leave_no_debt(self) -> "Matching":
        if self.alpha + self.beta > 1 + 1e-9:
            raise ValueError(f"alpha + beta must not exceed 1, got {self.alpha + self.beta}")
        return self


class Distillation(PseudoTerms):
    """Self-distillation by an EMA teacher."""

    momentum: Fraction = 0.999
    teacher_short_side: Positive | None = 800
    """None: the teacher sees the student's size."""
    teacher_max_size: Positive = 1333
    matching: Matching = Matching()
    reliability: Fraction = 0.8
    """tau_m: boxes whose matching score is not above it get no mask loss."""
    binarize: bool = True
    mask_threshold: Fraction = 0.5
    teacher_batch_stats: bool = True
    """BatchNorm of the teacher in training mode, as the authors and BoxTeacher do: its masks then
    depend on the whole batch.  Without, images share a forward pass only where they are padded
    alike, so that batch mates change nothing."""
