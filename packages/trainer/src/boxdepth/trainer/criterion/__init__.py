"""Outputs, batch and step -> loss terms; weights and warm-ups are applied here and nowhere else."""

from collections.abc import Set

import torch
from torch import Tensor

from boxdepth.trainer.criterion.detection import detection_terms, semantic_labels, semantic_term
from boxdepth.trainer.criterion.masks import (
    MaskSamples,
    box_mask_terms,
    depth_terms,
    mask_samples,
    pseudo_mask_terms,
    supervised_mask_term,
)
from boxdepth.trainer.criterion.spec import LossSpec, Normaliser, Terms, factors_at
from boxdepth.trainer.structures import (
    Batch,
    DenseOutputs,
    LossTerms,
    MaskOutputs,
    Positives,
    PseudoMasks,
    Targets,
    TrustedPairs,
)

MASK_TERMS = {
    "mask", "projection", "color", "consistency", "depth", "pseudo_mask", "mask_affinity",
}  # fmt: skip
"""Terms that read the dynamic mask head, and so the controller and the mask features."""

__all__ = ["LossSpec", "Normaliser", "compute_losses", "factors_at", "semantic_labels"]


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
        values = detection_terms(outputs, batch, targets, spec, normaliser)
        samples = mask_samples(batch, positives, masks, spec)
        values |= supervised_mask_term(samples, batch, spec)
        values |= box_mask_terms(samples, batch, pairs, spec)
        values |= depth_terms(samples, batch, pairs, spec)
        values |= pseudo_mask_terms(samples, batch, pseudo, spec)
        values |= semantic_term(outputs, batch, spec)
        factors = factors_at(spec, step)
        factors = {name: factors[name] for name in values}
        return LossTerms(
            values=values,
            factors=factors,
            monitors=_monitors(samples, targets),
            idle=_idle(outputs, {name for name, factor in factors.items() if factor}),
        )


def _idle(outputs: DenseOutputs, active: Set[str]) -> Tensor | None:
    """0 times the outputs that no active term reaches.

    Data parallel waits for a gradient of every parameter, and a layer whose gradient is 0 on many
    ranks must be so on one: switching a term off must not change what decays.
    """
    semantic = () if outputs.semantic_logits is None else (outputs.semantic_logits,)
    readers = (
        ({"classification"}, outputs.class_logits),
        ({"box"}, outputs.ltrb),
        ({"quality"}, outputs.quality_logits),
        ({"semantic"}, semantic),
        (MASK_TERMS, (*outputs.controller, outputs.mask_features)),
    )
    unread = [maps.float().sum() for names, head in readers if not names & active for maps in head]
    return 0 * torch.stack(unread).sum() if unread else None


@torch.no_grad()
def _monitors(samples: MaskSamples, targets: Targets) -> Terms:
    """Numbers worth watching: positives, samples, mask area by box area."""
    area = (samples.logits > 0).sum().float()
    box_area = samples.bitmaps.sum(dim=(1, 2))[samples.box_index].sum()
    return {
        "positives": (targets.box_index >= 0).sum().float(),
        "mask_samples": area.new_tensor(float(len(samples.logits))),
        "mask_by_box_area": area / box_area.clamp(min=1),
    }
