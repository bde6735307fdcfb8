"""Detection scores that count how sure the mask is of itself (BoxTeacher, arXiv 2210.05174)."""

from jaxtyping import Float
from torch import Tensor


def mask_quality(
    probabilities: Float[Tensor, "p hm wm"], *, threshold: float = 0.5
) -> Float[Tensor, " p"]:
    """Mean probability inside each binarised mask, 0 for an empty one (its mask-aware score)."""
    inside = (probabilities > threshold).to(probabilities.dtype)
    area = inside.sum(dim=(1, 2))
    return (probabilities * inside).sum(dim=(1, 2)) / area.clamp(min=1)


def rescored(scores: Float[Tensor, " p"], quality: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """Geometric mean of detection score and mask quality."""
    return (scores * quality).sqrt()
