"""Sigmoid focal loss (arXiv 1708.02002, Eq. 5)."""

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


def sigmoid_focal_sum(
    logits: Float[Tensor, "r cls"],
    labels: Int64[Tensor, " r"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, ""]:
    """Sum over all rows and classes of -alpha_t (1 - p_t)^gamma log p_t.

    Every entry is taken as a negative first; the one positive of a foreground row is then put
    right, which spares the one-hot targets.

    Args:
        labels: class of each row; the number of classes for background.
    """
    background = logits.shape[1]
    negative = (1 - alpha) * _term(logits, gamma).sum()
    foreground = labels < background
    own = logits.gather(1, labels.clamp(max=background - 1)[:, None])[:, 0]
    correction = alpha * _term(-own, gamma) - (1 - alpha) * _term(own, gamma)
    return negative + (correction * foreground).sum()


def _term(logits: Tensor, gamma: float) -> Tensor:
    """-p^gamma log(1 - p), stable for any logit."""
    return logits.sigmoid() ** gamma * F.softplus(logits)
