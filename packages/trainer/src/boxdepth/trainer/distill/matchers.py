"""How a box finds its candidate: by depth-aware matching, or BoxTeacher's greedy assignment."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxdepth.trainer.distill.box_teacher import MIN_IOU, assign_greedily, pseudo_mask_weights
from boxdepth.trainer.distill.candidates import Candidates, GivenBoxes
from boxdepth.trainer.distill.matching import (
    box_overlaps,
    depth_scores,
    depth_smoothness,
    match,
    matching_scores,
    weights_at,
)
from boxdepth.trainer.distill.rules import Distillation
from boxdepth.trainer.model.scores import mask_quality, rescored


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The candidate of each box of one image."""

    index: Int64[Tensor, " g"]
    """-1: none."""
    score: Float[Tensor, " g"]
    """-1 without a candidate."""
    keep: Bool[Tensor, " g"]
    weight: Float[Tensor, " g"]


def matches_of(
    given: GivenBoxes,
    candidates: Candidates,
    settings: Distillation,
    *,
    theta: float,
    progress: float,
) -> Matches:
    """The matches of one image when the share ``progress`` of the run is over."""
    if settings.method == "box_teacher":
        return match_like_box_teacher(given, candidates, settings)
    return match_by_depth(given, candidates, settings, theta=theta, progress=progress)


def match_by_depth(
    given: GivenBoxes,
    candidates: Candidates,
    settings: Distillation,
    *,
    theta: float,
    progress: float,
) -> Matches:
    """Depth-aware matching (arXiv 2403.01214, Eq. 7-9): kept above ``reliability``, weight 1."""
    if given.depth_steps is None:
        raise ValueError("matching by depth needs depth_steps, which this batch does not carry")
    depth = depth_scores(
        given.box_masks.float(),
        (candidates.masks > settings.mask_threshold).float(),
        depth_smoothness(given.depth_steps, size=given.size, theta=theta),
        kind=settings.matching.depth_score,
    )
    overlaps = box_overlaps(given.boxes_xyxy, candidates.boxes_xyxy, kind=settings.matching.iou)
    weights = weights_at(settings.matching, progress)
    with_depth, without = (
        matching_scores(
            overlaps=overlaps,
            depth=depth,
            candidate_scores=candidates.scores,
            weights=chosen,
        )
        for chosen in (weights, weights.without_depth())
    )
    scores = torch.where(given.depth_valid, with_depth, without)
    index = match(scores)
    score = _chosen(scores.T, index, missing=-1.0)
    keep = score > settings.reliability
    return Matches(index=index, score=score, keep=keep, weight=torch.ones_like(score))


def match_like_box_teacher(
    given: GivenBoxes, candidates: Candidates, settings: Distillation, *, min_iou: float = MIN_IOU
) -> Matches:
    """BoxTeacher's greedy assignment (arXiv 2210.05174): all matches kept, weighted by quality."""
    quality = mask_quality(candidates.masks, threshold=settings.mask_threshold)
    ranking = rescored(candidates.scores, quality)
    index = assign_greedily(
        boxes_xyxy=given.boxes_xyxy,
        candidate_boxes_xyxy=candidates.boxes_xyxy,
        ranking=ranking,
        min_iou=min_iou,
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
    if not len(values):
        return values.new_full(index.shape, missing)
    own = values.gather(0, index.clamp(min=0)[None])[0]
    return torch.where(index >= 0, own, missing)
