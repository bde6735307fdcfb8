"""Dice loss with squared denominators (arXiv 1606.04797; arXiv 2003.05664, section 3)."""

from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-5


def dice_losses(scores: Float[Tensor, "p n"], targets: Float[Tensor, "p n"]) -> Float[Tensor, " p"]:
    """1 - 2 sum(x y) / (sum(x^2) + sum(y^2) + 1e-5) of each row; scores after the sigmoid."""
    targets = targets.detach()
    overlap = (scores * targets).sum(dim=1)
    total = scores.square().sum(dim=1) + targets.square().sum(dim=1)
    return 1 - 2 * overlap / (total + EPSILON)
