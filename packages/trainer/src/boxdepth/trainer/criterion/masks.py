"""The terms of the mask head: from masks, from boxes and pairs, from depth, from a teacher."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxdepth.trainer.criterion.spec import LossSpec, Terms
from boxdepth.trainer.geometry.boxes import box_bitmaps
from boxdepth.trainer.geometry.resize import pooled, subsampled
from boxdepth.trainer.losses.depth import depth_loss
from boxdepth.trainer.losses.dice import dice_losses
from boxdepth.trainer.losses.mask_affinity import mask_affinity
from boxdepth.trainer.losses.pairwise import pairwise_sums
from boxdepth.trainer.losses.projection import projection_losses
from boxdepth.trainer.structures import (
    MASK_STRIDE,
    Batch,
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
    batch: Batch, positives: Positives, masks: MaskOutputs, spec: LossSpec
) -> MaskSamples:
    grid = (masks.logits.shape[-2], masks.logits.shape[-1])
    has_mask = batch.has_mask if spec.supervision != "boxes" else torch.zeros_like(batch.has_mask)
    return MaskSamples(
        logits=masks.logits.float(),
        depth=None if masks.depth is None else masks.depth.float(),
        bitmaps=box_bitmaps(batch.boxes_xyxy, grid=grid, stride=MASK_STRIDE),
        box_index=positives.box_index,
        image_index=positives.image_index,
        by_box=~has_mask[positives.box_index],
    )


def supervised_mask_term(samples: MaskSamples, batch: Batch, spec: LossSpec) -> Terms:
    """CondInst's dice, for the samples whose annotation has a mask."""
    if spec.supervision == "boxes" or not spec.mask:
        return {}
    if batch.masks is None:
        return {"mask": 0 * samples.logits.sum()}
    scores = samples.logits.flatten(1).sigmoid()
    losses = dice_losses(scores, batch.masks[samples.box_index].flatten(1).to(scores.dtype))
    return {"mask": _mean_over(losses, ~samples.by_box)}


def box_mask_terms(
    samples: MaskSamples, batch: Batch, pairs: TrustedPairs | None, spec: LossSpec
) -> Terms:
    """BoxInst's projection and colour pairs, for the samples that learn from boxes."""
    terms: Terms = {}
    if spec.supervision == "masks":
        return terms
    if spec.projection:
        losses = projection_losses(samples.logits, samples.bitmaps, samples.box_index)
        terms["projection"] = _mean_over(losses, samples.by_box)
    if spec.color and pairs is not None:
        counted = pairs.color[batch.image_index] & samples.bitmaps[:, None]
        terms["color"] = _pairwise_mean(samples, counted, spec)
    return terms


def depth_terms(
    samples: MaskSamples, batch: Batch, pairs: TrustedPairs | None, spec: LossSpec
) -> Terms:
    """Consistency of depth pairs for the samples that learn from boxes; the depth layer's target.

    The depth layer is supervised for all samples: a mask says nothing about depth.
    """
    terms: Terms = {}
    if spec.consistency and spec.supervision != "masks" and pairs is not None:
        counted = pairs.depth[batch.image_index]
        if spec.consistency_region == "box":
            counted = counted & samples.bitmaps[:, None]
        terms["consistency"] = _pairwise_mean(samples, counted, spec)
    if spec.depth and samples.depth is not None:
        target = pooled(batch.inverse_depth.float(), MASK_STRIDE) / 255
        usable = batch.depth_valid[samples.image_index][:, None, None]
        terms["depth"] = depth_loss(
            samples.depth,
            target[samples.image_index],
            samples.bitmaps[samples.box_index] & usable,
            reduction=spec.depth_reduction,
        )
    return terms


def pseudo_mask_terms(
    samples: MaskSamples, batch: Batch, pseudo: PseudoMasks | None, spec: LossSpec
) -> Terms:
    """Dice (and BoxTeacher's affinity) with the teacher's masks, for the boxes it is sure of."""
    wanted = {"pseudo_mask": spec.pseudo_mask, "mask_affinity": spec.mask_affinity}
    if pseudo is None:
        return {name: 0 * samples.logits.sum() for name, weight in wanted.items() if weight}
    weight = (pseudo.weight * pseudo.keep)[samples.box_index] * samples.by_box
    learning = (weight > 0).sum().clamp(min=1)
    terms: Terms = {}
    if spec.pseudo_mask:
        scores = samples.logits.flatten(1).sigmoid()
        losses = dice_losses(scores, pseudo.mask[samples.box_index].flatten(1))
        terms["pseudo_mask"] = (weight * losses).sum() / learning
    if spec.mask_affinity:
        means = _affinity_means(samples, batch, pseudo, spec)
        terms["mask_affinity"] = (weight * means).sum() / learning
    return terms


def _affinity_means(
    samples: MaskSamples, batch: Batch, pseudo: PseudoMasks, spec: LossSpec
) -> Float[Tensor, " p"]:
    """Mean of the pairwise term over the pairs that each sample's pseudo mask puts together."""
    affinity = mask_affinity(
        pseudo.mask,
        subsampled(batch.valid, MASK_STRIDE)[batch.image_index],
        kernel_size=spec.kernel_size,
        dilation=spec.dilation,
    )
    sums, numbers = pairwise_sums(
        samples.logits,
        (affinity >= AFFINITY_THRESHOLD) & samples.bitmaps[:, None],
        samples.box_index,
        kernel_size=spec.kernel_size,
        dilation=spec.dilation,
    )
    return sums / numbers.clamp(min=1)


def _pairwise_mean(
    samples: MaskSamples, counted: Bool[Tensor, "m k hm wm"], spec: LossSpec
) -> Float[Tensor, ""]:
    """One mean over all counted pairs of the samples that learn from boxes."""
    sums, numbers = pairwise_sums(
        samples.logits,
        counted,
        samples.box_index,
        kernel_size=spec.kernel_size,
        dilation=spec.dilation,
    )
    return (sums * samples.by_box).sum() / (numbers * samples.by_box).sum().clamp(min=1)


def _mean_over(losses: Float[Tensor, " p"], chosen: Bool[Tensor, " p"]) -> Float[Tensor, ""]:
    """Mean of the chosen rows; 0, in the graph, if there are none."""
    return (losses * chosen).sum() / chosen.sum().clamp(min=1)
