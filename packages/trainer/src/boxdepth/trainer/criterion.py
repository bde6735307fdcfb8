"""Outputs, batch and step -> loss terms; weights and warm-ups are applied here and nowhere else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxdepth.trainer.assign import (
    centerness,
    flatten_levels,
    gather_rows,
    positive_rows,
    regression_targets,
)
from boxdepth.trainer.geometry.boxes import box_bitmaps
from boxdepth.trainer.geometry.resize import pooled, subsampled
from boxdepth.trainer.losses.depth import depth_loss
from boxdepth.trainer.losses.dice import dice_losses
from boxdepth.trainer.losses.focal import sigmoid_focal_sum
from boxdepth.trainer.losses.iou import box_losses, smoothed_ious
from boxdepth.trainer.losses.mask_affinity import mask_affinity
from boxdepth.trainer.losses.pairwise import pairwise_sums
from boxdepth.trainer.losses.projection import projection_losses
from boxdepth.trainer.losses.quality import quality_sum
from boxdepth.trainer.structures import (
    FPN_STRIDES,
    MASK_STRIDE,
    Batch,
    DenseOutputs,
    LossTerms,
    MaskOutputs,
    Positives,
    PseudoMasks,
    Targets,
    TrustedPairs,
)

Terms = dict[str, Tensor]
Normaliser = Callable[[Tensor], Tensor]
"""Mean over all ranks of a number of this rank; the identity without other ranks."""

AFFINITY_THRESHOLD = 0.5
"""Least mask affinity of a pair that counts (arXiv 2210.05174)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSpec:
    """Weights, warm-ups and choices; a weight of 0 switches its term off."""

    supervision: Literal["boxes", "masks", "mixed"] = "boxes"
    classification: float = 1.0
    box: float = 1.0
    quality: float = 1.0
    semantic: float = 0.0
    mask: float = 1.0
    projection: float = 1.0
    color: float = 1.0
    depth: float = 1.0
    consistency: float = 1.0
    pseudo_mask: float = 0.0
    """gamma of arXiv 2403.01214, section 3.4."""
    mask_affinity: float = 0.0
    quality_target: Literal["centerness", "iou"] = "centerness"
    box_loss: Literal["giou", "iou", "linear_iou"] = "giou"
    class_normalizer: Literal["positives", "locations"] = "positives"
    warmup_iterations: int = 10_000
    consistency_warmup: Literal["after_color", "none"] = "after_color"
    consistency_region: Literal["box", "image"] = "box"
    depth_reduction: Literal["pixels", "instances"] = "pixels"
    pseudo_warmup_start: int | None = None
    """Step from which the pseudo-mask terms ramp up (BoxTeacher); None: full weight at once."""
    kernel_size: int = 3
    dilation: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _MaskSamples:
    """What the mask terms of a batch share: one row per sampled location."""

    logits: Float[Tensor, "p 1 hm wm"]
    depth: Float[Tensor, "p 1 hm wm"] | None
    bitmaps: Bool[Tensor, "m hm wm"]
    """Of the boxes, not of the samples."""
    box_index: Int64[Tensor, " p"]
    image_index: Int64[Tensor, " p"]
    by_box: Bool[Tensor, " p"]
    """True: learns from its box; False: from its ground-truth mask."""


def compute_losses(
    outputs: DenseOutputs,
    batch: Batch,
    *,
    spec: LossSpec,
    step: int,
    targets: Targets,
    positives: Positives,
    masks: MaskOutputs,
    pairs: TrustedPairs | None,
    pseudo: PseudoMasks | None = None,
    normaliser: Normaliser = lambda number: number,
) -> LossTerms:
    """All loss terms of a forward pass, in fp32, and the factor of each at this step.

    Terms whose weight is 0 are left out.  All others are always there: without positives as a
    zero that is part of the graph.

    Args:
        step: 0-based iteration; the papers' t is step + 1.
        pairs: None where no pairwise term is wanted.
        pseudo: None before self-distillation begins; its terms are then zero.
        normaliser: mean over ranks.  FCOS terms are divided by means over ranks, mask terms by
            numbers of this rank (condinst.md, section 8, 18).
    """
    with torch.autocast(batch.images.device.type, enabled=False):
        values = _detection_terms(outputs, batch, targets, spec, normaliser)
        samples = _mask_samples(batch, positives, masks, spec)
        values |= _supervised_mask_term(samples, batch, spec)
        values |= _box_mask_terms(samples, batch, pairs, spec)
        values |= _depth_terms(samples, batch, pairs, spec)
        values |= _pseudo_mask_terms(samples, batch, pseudo, spec)
        values |= _semantic_term(outputs, batch, spec)
        factors = factors_at(spec, step)
        return LossTerms(
            values=values,
            factors={name: factors[name] for name in values},
            monitors=_monitors(samples, targets),
        )


def factors_at(spec: LossSpec, step: int) -> dict[str, float]:
    """Weight times warm-up of every term at a 0-based step.

    Colour: min(t / W, 1).  Consistency: 0 up to W, then min((t - W) / W, 1) (method.md 4.4).
    """
    color = _ramp(step + 1, spec.warmup_iterations)
    consistency = 1.0
    if spec.consistency_warmup == "after_color":
        consistency = _ramp(step + 1 - spec.warmup_iterations, spec.warmup_iterations)
    pseudo = 1.0
    if spec.pseudo_warmup_start is not None:
        pseudo = _ramp(step + 1 - spec.pseudo_warmup_start, spec.warmup_iterations)
    return {
        "classification": spec.classification,
        "box": spec.box,
        "quality": spec.quality,
        "semantic": spec.semantic,
        "mask": spec.mask,
        "projection": spec.projection,
        "color": spec.color * color,
        "depth": spec.depth,
        "consistency": spec.consistency * consistency,
        "pseudo_mask": spec.pseudo_mask * pseudo,
        "mask_affinity": spec.mask_affinity * pseudo,
    }


def _ramp(t: int, iterations: int) -> float:
    if iterations == 0:
        return 1.0
    return min(max(t / iterations, 0.0), 1.0)


def _detection_terms(
    outputs: DenseOutputs, batch: Batch, targets: Targets, spec: LossSpec, normaliser: Normaliser
) -> Terms:
    """FCOS: classification, box and quality (condinst.md 2.2)."""
    rows = positive_rows(targets)
    level = targets.level[rows]
    positives = normaliser(rows.new_tensor(float(len(rows)), dtype=torch.float32)).clamp(min=1)
    logits = flatten_levels(outputs.class_logits).float()
    locations = normaliser(positives.new_tensor(float(len(logits))))
    normalizer = positives if spec.class_normalizer == "positives" else locations
    stride = positives.new_tensor(FPN_STRIDES)[level][:, None]
    ltrb = gather_rows(outputs.ltrb, rows, level).float() / stride
    target_ltrb = regression_targets(targets, rows, batch.boxes_xyxy) / stride
    iou, giou = smoothed_ious(ltrb, target_ltrb)
    losses = box_losses(iou, giou, spec.box_loss)
    quality_logits = gather_rows(outputs.quality_logits, rows, level).float()[:, 0]
    if spec.quality_target == "centerness":
        target = centerness(target_ltrb)
        box = (losses * target).sum() / normaliser(target.sum()).clamp(min=1e-6)
    else:
        target = iou
        box = losses.sum() / positives
    return {
        "classification": sigmoid_focal_sum(logits, targets.label) / normalizer,
        "box": box,
        "quality": quality_sum(quality_logits, target) / positives,
    }


def _mask_samples(
    batch: Batch, positives: Positives, masks: MaskOutputs, spec: LossSpec
) -> _MaskSamples:
    grid = (masks.logits.shape[-2], masks.logits.shape[-1])
    has_mask = batch.has_mask if spec.supervision != "boxes" else torch.zeros_like(batch.has_mask)
    return _MaskSamples(
        logits=masks.logits.float(),
        depth=None if masks.depth is None else masks.depth.float(),
        bitmaps=box_bitmaps(batch.boxes_xyxy, grid=grid, stride=MASK_STRIDE),
        box_index=positives.box_index,
        image_index=positives.image_index,
        by_box=~has_mask[positives.box_index],
    )


def _supervised_mask_term(samples: _MaskSamples, batch: Batch, spec: LossSpec) -> Terms:
    """CondInst's dice, for the samples whose annotation has a mask."""
    if spec.supervision == "boxes" or not spec.mask:
        return {}
    if batch.masks is None:
        return {"mask": 0 * samples.logits.sum()}
    scores = samples.logits.flatten(1).sigmoid()
    losses = dice_losses(scores, batch.masks[samples.box_index].flatten(1).to(scores.dtype))
    return {"mask": _mean_over(losses, ~samples.by_box)}


def _box_mask_terms(
    samples: _MaskSamples, batch: Batch, pairs: TrustedPairs | None, spec: LossSpec
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


def _depth_terms(
    samples: _MaskSamples, batch: Batch, pairs: TrustedPairs | None, spec: LossSpec
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


def _pairwise_mean(
    samples: _MaskSamples, counted: Bool[Tensor, "m k hm wm"], spec: LossSpec
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


def _pseudo_mask_terms(
    samples: _MaskSamples, batch: Batch, pseudo: PseudoMasks | None, spec: LossSpec
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
    samples: _MaskSamples, batch: Batch, pseudo: PseudoMasks, spec: LossSpec
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


def _semantic_term(outputs: DenseOutputs, batch: Batch, spec: LossSpec) -> Terms:
    """CondInst's auxiliary semantic loss (condinst.md 3); needs masks."""
    if not spec.semantic or outputs.semantic_logits is None:
        return {}
    logits = outputs.semantic_logits.float()
    labels = batch.semantic_labels
    if labels is None and batch.masks is None:
        return {"semantic": 0 * logits.sum()}
    if labels is None:
        labels = _labels_of_masks(batch, num_classes=logits.shape[1])
    rows = logits.permute(0, 2, 3, 1).flatten(0, 2)
    foreground = (labels < logits.shape[1]).sum().clamp(min=1)
    return {"semantic": sigmoid_focal_sum(rows, labels.flatten()) / foreground}


def _labels_of_masks(batch: Batch, *, num_classes: int) -> Int64[Tensor, "b h8 w8"]:
    assert batch.masks is not None
    return semantic_labels(
        batch.masks[:, ::2, ::2],
        batch.labels,
        batch.image_index,
        areas=batch.masks.sum(dim=(1, 2)),
        num_images=len(batch.images),
        num_classes=num_classes,
    )


def semantic_labels(
    masks: Bool[Tensor, "m h8 w8"],
    labels: Int64[Tensor, " m"],
    image_index: Int64[Tensor, " m"],
    *,
    areas: Int64[Tensor, " m"],
    num_images: int,
    num_classes: int,
) -> Int64[Tensor, "b h8 w8"]:
    """Class of the smallest mask over each cell; ``num_classes`` where there is none."""
    out = labels.new_full((num_images, *masks.shape[1:]), num_classes)
    for index in areas.argsort(descending=True).tolist():
        image = image_index[index]
        out[image] = torch.where(masks[index], labels[index], out[image])
    return out


def _mean_over(losses: Float[Tensor, " p"], chosen: Bool[Tensor, " p"]) -> Float[Tensor, ""]:
    """Mean of the chosen rows; 0, in the graph, if there are none."""
    return (losses * chosen).sum() / chosen.sum().clamp(min=1)


@torch.no_grad()
def _monitors(samples: _MaskSamples, targets: Targets) -> Terms:
    """Numbers worth watching: positives, samples, mask area by box area."""
    area = (samples.logits > 0).sum().float()
    box_area = samples.bitmaps.sum(dim=(1, 2))[samples.box_index].sum()
    return {
        "positives": (targets.box_index >= 0).sum().float(),
        "mask_samples": area.new_tensor(float(len(samples.logits))),
        "mask_by_box_area": area / box_area.clamp(min=1),
    }
