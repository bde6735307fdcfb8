"""The terms of the mask head: from masks, from boxes and pairs, from depth, from a teacher."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxdepth.trainer.criterion.detection import Terms
from boxdepth.trainer.criterion.rules import LossRules
from boxdepth.trainer.losses.depth import depth_loss
from boxdepth.trainer.losses.dice import dice_losses
from boxdepth.trainer.losses.mask_affinity import mask_affinity
from boxdepth.trainer.losses.pairwise import pairwise_sums
from boxdepth.trainer.losses.projection import projection_losses
from boxdepth.trainer.structures import (
    Batch,
    MaskGrid,
    MaskOutputs,
    Positives,
    PseudoMasks,
    TrustedPairs,
)

AFFINITY_THRESHOLD = 0.5
"""Least mask affinity of a pair that counts (arXiv 2210.05174)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSamples:
    """What the mask terms of a batch share: one row per sampled location."""

    logits: Float[Tensor, "p 1 hm wm"]
    depth: Float[Tensor, "p 1 hm wm"] | None
    bitmaps: Bool[Tensor, "m hm wm"]
    """Of the boxes, not of the samples."""
    box_index: Int64[Tensor, " p"]
    image_index: Int64[Tensor, " p"]
    by_box: Bool[Tensor, " p"]
    """True: learns from its box; False: from its ground-truth mask."""


def mask_samples(
    batch: Batch, grid: MaskGrid, positives: Positives, masks: MaskOutputs, rules: LossRules
) -> MaskSamples:
    """The sampled masks of a batch and what each learns from."""
    has_mask = batch.has_mask if rules.supervision != "boxes" else torch.zeros_like(batch.has_mask)
    return MaskSamples(
        logits=masks.logits.float(),
        depth=None if masks.depth is None else masks.depth.float(),
        bitmaps=grid.box_bitmaps,
        box_index=positives.box_index,
        image_index=positives.image_index,
        by_box=~has_mask[positives.box_index],
    )


def supervised_mask_term(samples: MaskSamples, batch: Batch, rules: LossRules) -> Terms:
    """CondInst's dice, for the samples whose annotation has a mask."""
    if rules.supervision == "boxes" or not rules.losses.mask:
        return {}
    if batch.masks is None:
        return {"mask": 0 * samples.logits.sum()}
    scores = samples.logits.flatten(1).sigmoid()
    losses = dice_losses(scores, batch.masks[samples.box_index].flatten(1).to(scores.dtype))
    return {"mask": _mean_over(losses, ~samples.by_box)}


def box_mask_terms(
    samples: MaskSamples, batch: Batch, sources: Sequence[TrustedPairs], rules: LossRules
) -> Terms:
    """Projection and one pairwise term a source of pairs, for samples that learn from boxes."""
    terms: Terms = {}
    if rules.supervision == "masks":
        return terms
    if rules.losses.projection:
        losses = projection_losses(samples.logits, samples.bitmaps, samples.box_index, batch.cut)
        terms["projection"] = _mean_over(losses, samples.by_box)
    for trusted in sources:
        if getattr(rules.losses, trusted.term):
            terms[trusted.term] = _pairwise_mean(samples, batch, trusted, rules)
    return terms


def depth_term(samples: MaskSamples, grid: MaskGrid, rules: LossRules) -> Terms:
    """The depth layer's target, for all samples: a mask says nothing about depth."""
    if not rules.losses.depth or samples.depth is None:
        return {}
    usable = grid.depth_valid[:, None, None] & ~grid.inverse_depth[:, 0].isnan()
    loss = depth_loss(
        samples.depth,
        (grid.inverse_depth.nan_to_num(0.0) / 255)[samples.image_index],
        samples.bitmaps[samples.box_index] & usable[samples.image_index],
        reduction=rules.losses.depth_reduction,
    )
    return {"depth": loss}


def pseudo_mask_terms(
    samples: MaskSamples,
    batch: Batch,
    grid: MaskGrid,
    pseudo: Sequence[PseudoMasks],
    rules: LossRules,
) -> Terms:
    """Dice (and BoxTeacher's affinity) with each teacher's masks, for the boxes it is sure of."""
    wanted = [name for name, weight in rules.pseudo.weights().items() if weight]
    if not pseudo:
        return {name: 0 * samples.logits.sum() for name in wanted}
    parts: dict[str, list[Tensor]] = {name: [] for name in wanted}
    for taught in pseudo:
        weight = (taught.weight * taught.keep)[samples.box_index] * samples.by_box
        learning = (weight > 0).sum().clamp(min=1)
        if "pseudo_mask" in parts:
            scores = samples.logits.flatten(1).sigmoid()
            losses = dice_losses(scores, taught.mask[samples.box_index].flatten(1))
            parts["pseudo_mask"].append((weight * losses).sum() / learning)
        if "mask_affinity" in parts:
            means = _affinity_means(samples, batch, grid, taught, rules)
            parts["mask_affinity"].append((weight * means).sum() / learning)
    return {name: torch.stack(terms).sum() for name, terms in parts.items()}


def _affinity_means(
    samples: MaskSamples, batch: Batch, grid: MaskGrid, taught: PseudoMasks, rules: LossRules
) -> Float[Tensor, " p"]:
    """Mean of the pairwise term over the pairs that each sample's pseudo mask puts together."""
    offsets = rules.losses.pairs.offsets
    affinity = mask_affinity(taught.mask, grid.valid[batch.image_index], offsets)
    counted = (affinity >= AFFINITY_THRESHOLD) & samples.bitmaps[:, None]
    sums, numbers = pairwise_sums(samples.logits, counted, samples.box_index, offsets)
    return sums / numbers.clamp(min=1)


def _pairwise_mean(
    samples: MaskSamples, batch: Batch, trusted: TrustedPairs, rules: LossRules
) -> Float[Tensor, ""]:
    """One mean over all counted pairs of the samples that learn from boxes."""
    if trusted.term != "consistency" or rules.losses.consistency_region == "box":
        counted = trusted.pairs[batch.image_index] & samples.bitmaps[:, None]
        index = samples.box_index
    else:
        counted, index = trusted.pairs, samples.image_index
    sums, numbers = pairwise_sums(samples.logits, counted, index, rules.losses.pairs.offsets)
    return (sums * samples.by_box).sum() / (numbers * samples.by_box).sum().clamp(min=1)


def _mean_over(losses: Float[Tensor, " p"], chosen: Bool[Tensor, " p"]) -> Float[Tensor, ""]:
    """Mean of the chosen rows; 0, in the graph, if there are none."""
    return (losses * chosen).sum() / chosen.sum().clamp(min=1)
