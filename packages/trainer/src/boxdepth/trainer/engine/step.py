"""One forward pass: forward, assign, mask logits, trusted pairs, pseudo masks, criterion."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from boxdepth.trainer.affinity import trusted_pairs
from boxdepth.trainer.assign import assign_targets, select_positives
from boxdepth.trainer.criterion import LossSpec, compute_losses
from boxdepth.trainer.engine.distributed import mean_over_ranks
from boxdepth.trainer.engine.monitors import health
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec, mask_outputs
from boxdepth.trainer.structures import Batch, DenseOutputs, LossTerms, PseudoMasks, TrustedPairs

Teach = Callable[[Batch, int], PseudoMasks | None]
"""(batch, step) -> the teacher's masks; None before self-distillation begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSpec:
    """Which neighbour pairs are trusted; see ``config.Pairs``."""

    color_threshold: float = 0.3
    depth_threshold: float = 0.5
    kernel_size: int = 3
    dilation: int = 2
    theta: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """Everything a forward pass needs to know apart from the network and the batch."""

    num_classes: int
    mask_head: MaskHeadSpec
    losses: LossSpec
    pairs: PairSpec = field(default_factory=PairSpec)
    center_radius: float | None = 1.5
    level_ranges: tuple[int, ...] = (64, 128, 256, 512)
    per_image: int | None = 64
    per_batch: int | None = None
    autocast: torch.dtype | None = None
    """Precision of the network; losses are computed in fp32 whatever it is."""


def step_losses(
    network: nn.Module, batch: Batch, *, spec: StepSpec, step: int, teach: Teach
) -> LossTerms:
    """Loss terms of one batch, with gradient to the network's parameters."""
    outputs = _forward(network, batch, spec)
    targets = assign_targets(
        batch.boxes_xyxy,
        batch.labels,
        batch.image_index,
        batch.centers_xy,
        num_images=len(batch.images),
        num_classes=spec.num_classes,
        level_shapes=outputs.level_shapes,
        center_radius=spec.center_radius,
        level_ranges=spec.level_ranges,
    )
    positives = select_positives(
        targets,
        outputs,
        num_boxes=len(batch.boxes_xyxy),
        per_image=spec.per_image,
        per_batch=spec.per_batch,
    )
    masks = mask_outputs(outputs.mask_features, positives, spec.mask_head)
    pairs, pseudo = _pairs(batch, spec), teach(batch, step)
    terms = compute_losses(
        outputs,
        batch,
        spec=spec.losses,
        step=step,
        targets=targets,
        positives=positives,
        masks=masks,
        pairs=pairs,
        pseudo=pseudo,
        normaliser=mean_over_ranks,
    )
    watched = health(batch, positives, masks, pairs=pairs, pseudo=pseudo)
    return replace(terms, monitors={**terms.monitors, **watched})


def _forward(network: nn.Module, batch: Batch, spec: StepSpec) -> DenseOutputs:
    images = batch.images if batch.student_images is None else batch.student_images
    device = images.device.type
    wanted = spec.autocast is not None
    with torch.autocast(device, dtype=spec.autocast) if wanted else nullcontext():
        outputs: DenseOutputs = network(images, batch.sizes)
    return outputs


def _pairs(batch: Batch, spec: StepSpec) -> TrustedPairs | None:
    losses = spec.losses
    if losses.supervision == "masks" or not (losses.color or losses.consistency):
        return None
    return trusted_pairs(
        batch,
        color_threshold=spec.pairs.color_threshold,
        depth_threshold=spec.pairs.depth_threshold,
        kernel_size=spec.pairs.kernel_size,
        dilation=spec.pairs.dilation,
        theta=spec.pairs.theta,
    )
