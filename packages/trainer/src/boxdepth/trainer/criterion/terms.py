"""Outputs, batch and step -> loss terms; weights and warm-ups are applied here and nowhere else."""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from boxdepth.trainer.criterion.detection import Normaliser, detection_terms, semantic_term
from boxdepth.trainer.criterion.masks import (
    box_mask_terms,
    depth_term,
    mask_samples,
    pseudo_mask_terms,
    supervised_mask_term,
)
from boxdepth.trainer.criterion.rules import LossRules, factors_at
from boxdepth.trainer.structures import (
    Batch,
    DenseOutputs,
    LossTerms,
    MaskGrid,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentPass:
    """What the student says of a batch, and which of it is looked at."""

    outputs: DenseOutputs
    targets: Targets
    positives: Positives
    masks: MaskOutputs


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskTargets:
    """What the masks of a batch are learnt from."""

    grid: MaskGrid
    sources: Sequence[TrustedPairs] = ()
    """Empty where no pairwise term is wanted."""
    pseudo: Sequence[PseudoMasks] = ()
    """One entry a teacher; empty before self-distillation begins: its terms are then zero."""


def compute_losses(
    student: StudentPass,
    batch: Batch,
    learns: MaskTargets,
    *,
    rules: LossRules,
    step: int,
    normaliser: Normaliser = lambda number: number,
) -> LossTerms:
    """All loss terms of a forward pass, in fp32, and the factor of each at this step.

    Terms whose weight is 0 are left out.  All others are always there: without positives as a
    zero that is part of the graph.

    Args:
        rules: `LossRules.begun` leaves out what has no factor yet.
        step: 0-based iteration; the papers' t is step + 1.
        normaliser: mean over ranks.  FCOS terms are divided by means over ranks, mask terms by
            numbers of this rank (condinst.md, section 8, 18).
    """
    outputs = student.outputs
    grid = learns.grid
    with torch.autocast(batch.images.device.type, enabled=False):
        values = detection_terms(outputs, batch, student.targets, rules, normaliser)
        samples = mask_samples(batch, grid, student.positives, student.masks, rules)
        values |= supervised_mask_term(samples, batch, rules)
        values |= box_mask_terms(samples, batch, learns.sources, rules)
        values |= depth_term(samples, grid, rules)
        values |= pseudo_mask_terms(samples, batch, grid, learns.pseudo, rules)
        values |= semantic_term(outputs, batch, rules)
        factors = factors_at(rules, step)
        factors = {name: factors[name] for name in values}
        return LossTerms(
            values=values,
            factors=factors,
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
        (MASK_TERMS, (*outputs.controller.tensors, outputs.mask_features)),
    )
    unread = [maps.float().sum() for names, head in readers if not names & active for maps in head]
    return 0 * torch.stack(unread).sum() if unread else None
