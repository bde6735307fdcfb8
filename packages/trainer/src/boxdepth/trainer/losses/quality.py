"""Box quality: binary cross-entropy with the centre-ness or the IoU (arXiv 1904.01355, Eq. 3)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def quality_sum(logits: Float[Tensor, " p"], targets: Float[Tensor, " p"]) -> Float[Tensor, ""]:
    """Sum over positive locations; no gradient flows into the targets."""
    return F.binary_cross_entropy_with_logits(logits, targets.detach(), reduction="sum")
