"""One forward pass: forward, assign, mask logits, trusted pairs, pseudo masks, criterion."""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from boxdepth.trainer.criterion.rules import LossRules
from boxdepth.trainer.criterion.terms import MaskTargets, StudentPass, compute_losses
from boxdepth.trainer.distill.teacher import Teacher
from boxdepth.trainer.engine.distributed import mean_over_ranks
from boxdepth.trainer.engine.monitors import watched
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec, mask_outputs
from boxdepth.trainer.structures import Batch, DenseOutputs, LossTerms
from boxdepth.trainer.targets.assign import assign_targets
from boxdepth.trainer.targets.mask_grid import mask_grid
from boxdepth.trainer.targets.pairs import trusted_pairs
from boxdepth.trainer.targets.rules import PAIR_TERMS, Assignment
from boxdepth.trainer.targets.sampling import select_positives


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRules:
    """Everything a forward pass needs to know apart from the network and the batch."""

    mask_head: MaskHeadSpec
    losses: LossRules = field(default_factory=LossRules)
    assignment: Assignment = field(default_factory=Assignment)
    autocast: torch.dtype | None = None
    """Precision of the network; losses are computed in fp32 whatever it is."""


def step_losses(
    network: nn.Module,
    batch: Batch,
    rules: StepRules,
    *,
    step: int,
    teacher: Teacher | None = None,
    watching: bool = False,
) -> LossTerms:
    """Loss terms of one batch, with gradient to the network's parameters.

    Args:
        watching: look at the health of the run, and at the terms that weigh nothing yet, too; a
            device is waited for.
    """
    outputs = _forward(network, batch, rules)
    terms = rules.losses if watching else rules.losses.begun(step)
    sampling = terms.losses.sampling
    targets = assign_targets(
        batch.ground_truth,
        outputs.level_shapes,
        rules.assignment,
        num_classes=outputs.num_classes,
    )
    positives = select_positives(targets, outputs, sampling, num_boxes=len(batch.boxes_xyxy))
    masks = mask_outputs(outputs.mask_features, positives, rules.mask_head)
    student = StudentPass(outputs=outputs, targets=targets, positives=positives, masks=masks)
    grid = mask_grid(batch)
    pair_terms = PAIR_TERMS if watching and terms.pair_terms else terms.pair_terms
    pairs = trusted_pairs(grid, terms.losses.pairs, pair_terms)
    pseudo = teacher.masks(batch, grid, step) if teacher is not None else None
    learns = MaskTargets(grid=grid, sources=pairs, pseudo=() if pseudo is None else (pseudo,))
    values = compute_losses(
        student, batch, learns, rules=terms, step=step, normaliser=mean_over_ranks
    )
    return replace(values, monitors=watched(student, batch, learns)) if watching else values


def _forward(network: nn.Module, batch: Batch, rules: StepRules) -> DenseOutputs:
    images = batch.images if batch.student_images is None else batch.student_images
    device, dtype = images.device.type, rules.autocast
    with torch.autocast(device, dtype=dtype) if dtype is not None else nullcontext():
        outputs: DenseOutputs = network(images, batch.sizes)
    return outputs
