"""Which of the teacher's candidates is which box's object: depth-aware matching of one image.

Letters: ``g`` ground-truth boxes of the image, ``p`` candidates of the teacher, ``hm wm`` the mask
grid.  Nothing here has a gradient, and no tensor has the shape ``g p hm wm``: the depth score is
two matrix products.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou

from boxdepth.trainer.distill.rules import BoxOverlap, DepthScore, Matching
from boxdepth.trainer.structures import DEPTH_STEP, MASK_STRIDE

SMOOTH = 0.5
"""Depth consistency above which a pixel counts as lying on one surface with its neighbour."""

EDGE = 0.1
"""Depth consistency below which a pixel counts as lying on a sharp edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchingWeights:
    """Weights of box overlap, depth consistency and predicted score in the matching score."""

    overlap: float
    depth: float
    prediction: float

    def without_depth(self) -> "MatchingWeights":
        """The same weights for an image whose depth is missing, again with sum 1."""
        rest = self.overlap + self.prediction
        if rest <= 0:
            return replace(self, overlap=1.0, depth=0.0, prediction=0.0)
        return replace(
            self, overlap=self.overlap / rest, depth=0.0, prediction=self.prediction / rest
        )


def weights_at(matching: Matching, progress: float) -> MatchingWeights:
    """Weights when the share ``progress`` (0..1) of the run is over.

    ``linear`` lowers ``beta`` to 0 over the run; the freed weight goes to the predicted score.
    """
    linear = matching.beta_schedule == "linear"
    depth = matching.beta * (1 - progress) if linear else matching.beta
    return MatchingWeights(
        overlap=matching.alpha, depth=depth, prediction=1 - matching.alpha - depth
    )


def depth_steps(inverse_depth: Float[Tensor, "1 h w"]) -> Float[Tensor, "2 hm wm"]:
    """d(x, y) and d(x + 2, y) at every (4i + 2, 4j + 2); 0 beyond the last column."""
    start, step = MASK_STRIDE // 2, MASK_STRIDE
    rows = inverse_depth[0, start::step]
    here, right = rows[:, start::step], rows[:, start + DEPTH_STEP :: step]
    return torch.stack([here, F.pad(right, (0, here.shape[1] - right.shape[1]))])


def depth_smoothness(
    depth_steps: Float[Tensor, "2 hm wm"], *, size: tuple[int, int], theta: float
) -> Float[Tensor, "hm wm"]:
    """How alike the depth of a pixel and of its neighbour two pixels to the right are.

    s(x, y) = exp(-|d(x, y) - d(x + 2, y)| / theta), read at every (4i + 2, 4j + 2): arXiv
    2403.01214 leaves the per-pixel form of Eq. 8 open, this is the authors' (method.md 6.4).

    Args:
        depth_steps: d(x, y) and d(x + 2, y), 0..255 units, at the student's resolution, padded.
        size: (height, width) of the unpadded image; 0 outside and in its last two columns, and
            where one of the two was not measured (NaN).
        theta: scale of the similarity, in depth units.
    """
    height, width = size
    start, step = MASK_STRIDE // 2, MASK_STRIDE
    here, right = depth_steps
    smoothness = torch.exp(-(here - right).abs() / theta).nan_to_num(0.0)
    rows = step * torch.arange(len(here), device=here.device) + start < height
    columns = step * torch.arange(here.shape[1], device=here.device) + start < width - DEPTH_STEP
    return smoothness * (rows[:, None] & columns[None, :])


def depth_scores(
    box_masks: Float[Tensor, "g hm wm"],
    candidates: Float[Tensor, "p hm wm"],
    smoothness: Float[Tensor, "hm wm"],
    *,
    kind: DepthScore,
) -> Float[Tensor, "g p"]:
    """Share of each candidate's pixels inside each box that lie on one surface (S_dep).

    ``eq8``: pixels weighted by their smoothness (arXiv 2403.01214, Eq. 8); ``ratio``: unweighted;
    ``ratio_and_edges``: pixels on sharp edges count as well.  0 where a candidate has no pixel in
    the box.
    """
    boxes = box_masks.flatten(1)
    weight = smoothness.flatten() if kind == "eq8" else torch.ones_like(smoothness).flatten()
    good = smoothness.flatten() > SMOOTH
    if kind == "ratio_and_edges":
        good |= smoothness.flatten() < EDGE
    weighted = boxes * weight  # there are fewer boxes than candidates
    both = torch.cat([weighted, weighted * good]) @ candidates.flatten(1).T
    total, agreeing = both.chunk(2)
    return agreeing / total.clamp(min=torch.finfo(total.dtype).tiny)


def box_overlaps(
    boxes_xyxy: Float[Tensor, "g 4"], candidates_xyxy: Float[Tensor, "p 4"], *, kind: BoxOverlap
) -> Float[Tensor, "g p"]:
    """f_iou: IoU in 0..1, or generalised IoU (arXiv 1902.09630) in -1..1."""
    measure = box_iou if kind == "iou" else generalized_box_iou
    overlaps: Tensor = measure(boxes_xyxy, candidates_xyxy)
    return overlaps


def matching_scores(
    *,
    overlaps: Float[Tensor, "g p"],
    depth: Float[Tensor, "g p"],
    candidate_scores: Float[Tensor, " p"],
    weights: MatchingWeights,
) -> Float[Tensor, "g p"]:
    """S_match = alpha f_iou + beta S_dep + (1 - alpha - beta) S_pred (arXiv 2403.01214, Eq. 9)."""
    return (
        weights.overlap * overlaps
        + weights.depth * depth
        + weights.prediction * candidate_scores[None, :]
    )


def match(scores: Float[Tensor, "g p"]) -> Int64[Tensor, " g"]:
    """The candidate of each box in the one-to-one matching of largest total score; -1: none.

    With fewer candidates than boxes each candidate may serve two boxes; boxes beyond that stay
    without (method.md D12).
    """
    boxes, candidates = scores.shape
    if boxes == 0 or candidates == 0:
        return torch.full((boxes,), -1, dtype=torch.int64, device=scores.device)
    from scipy.optimize import linear_sum_assignment  # half a second: only who distils pays it

    columns = torch.cat([scores, scores], dim=1) if candidates < boxes else scores
    rows, chosen = linear_sum_assignment(columns.double().cpu().numpy(), maximize=True)
    matched = np.full(boxes, -1, dtype=np.int64)
    matched[rows] = chosen % candidates
    return torch.from_numpy(matched).to(scores.device, non_blocking=True)
