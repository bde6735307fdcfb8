"""How a box finds its candidate: by depth-aware matching, or BoxTeacher's greedy assignment."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxdepth.trainer.distill.box_teacher import assign_greedily, pseudo_mask_weights
from boxdepth.trainer.distill.candidates import Candidates, GivenBoxes
from boxdepth.trainer.distill.matching import (
    BetaSchedule,
    BoxOverlap,
    DepthScore,
    depth_scores,
    depth_smoothness,
    match,
    matching_scores,
    weights_at,
)
from boxdepth.trainer.predict.scores import mask_quality, rescored


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The candidate of each box of one image."""

    index: Int64[Tensor, " g"]
    """-1: none."""
    score: Float[Tensor, " g"]
    """-1 without a candidate."""
    keep: Bool[Tensor, " g"]
    weight: Float[Tensor, " g"]


class Matcher(Protocol):
    """Chooses a candidate for each box."""

    def __call__(self, given: GivenBoxes, candidates: Candidates, /, *, progress: float) -> Matches:
        """The matches when the share ``progress`` of the run is over."""


def match_by_depth(
    given: GivenBoxes,
    candidates: Candidates,
    *,
    progress: float,
    alpha: float = 0.8,
    beta: float = 0.2,
    beta_schedule: BetaSchedule = "constant",
    overlap: BoxOverlap = "iou",
    depth_score: DepthScore = "eq8",
    reliability: float = 0.8,
    mask_threshold: float = 0.5,
    theta: float = 2.0,
) -> Matches:
    """Depth-aware matching (arXiv 2403.01214, Eq. 7-9): kept above ``reliability``, weight 1."""
    weights = weights_at(alpha=alpha, beta=beta, beta_schedule=beta_schedule, progress=progress)
    if not given.depth_valid:
        weights = weights.without_depth()
    depth = depth_scores(
        given.box_masks.float(),
        (candidates.masks > mask_threshold).float(),
        depth_smoothness(given.inverse_depth, size=given.size, theta=theta),
        kind=depth_score,
    )
    scores = matching_scores(
        boxes_xyxy=given.boxes_xyxy,
        candidate_boxes_xyxy=candidates.boxes_xyxy,
        candidate_scores=candidates.scores,
        depth=depth,
        weights=weights,
        overlap=overlap,
    )
    index = match(scores)
    score = _chosen(scores.T, index, missing=-1.0)
    keep = score > reliability
    return Matches(index=index, score=score, keep=keep, weight=torch.ones_like(score))


def match_like_box_teacher(
    given: GivenBoxes,
    candidates: Candidates,
    *,
    progress: float,
    min_iou: float = 0.5,
    mask_threshold: float = 0.5,
    first_is_free: bool = False,
) -> Matches:
    """BoxTeacher's greedy assignment (arXiv 2210.05174): all matches kept, weighted by quality."""
    quality = mask_quality(candidates.masks, threshold=mask_threshold)
    ranking = rescored(candidates.scores, quality)
    index = assign_greedily(
        boxes_xyxy=given.boxes_xyxy,
        candidate_boxes_xyxy=candidates.boxes_xyxy,
        ranking=ranking,
        min_iou=min_iou,
        first_is_free=first_is_free,
    )
    weights = pseudo_mask_weights(candidates.scores, quality)
    boxes = len(given.boxes_xyxy)
    return Matches(
        index=index,
        score=_chosen(ranking[:, None].expand(-1, boxes), index, missing=-1.0),
        keep=index >= 0,
        weight=_chosen(weights[:, None].expand(-1, boxes), index, missing=0.0),
    )


def _chosen(
    values: Float[Tensor, "p g"], index: Int64[Tensor, " g"], *, missing: float
) -> Float[Tensor, " g"]:
    """``values[index[g], g]`` of each box, ``missing`` where the index is -1."""
    matched = index >= 0
    out = values.new_full(index.shape, missing)
    out[matched] = values[index[matched], matched.nonzero()[:, 0]]
    return out
