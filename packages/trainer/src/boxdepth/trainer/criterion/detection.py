"""FCOS's terms and CondInst's auxiliary semantic term."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from boxdepth.trainer.criterion.rules import LossRules
from boxdepth.trainer.geometry.constants import constant
from boxdepth.trainer.geometry.levels import flatten_levels, gather_rows
from boxdepth.trainer.losses.focal import sigmoid_focal_sum
from boxdepth.trainer.losses.iou import box_losses, smoothed_ious
from boxdepth.trainer.losses.quality import quality_sum
from boxdepth.trainer.structures import FPN_STRIDES, Batch, DenseOutputs, Targets
from boxdepth.trainer.targets.assign import centerness, regression_targets

Terms = dict[str, Tensor]
Normaliser = Callable[[Tensor], Tensor]
"""Mean over all ranks of a number of this rank; the identity without other ranks."""


def detection_terms(
    outputs: DenseOutputs, batch: Batch, targets: Targets, rules: LossRules, normaliser: Normaliser
) -> Terms:
    """FCOS: classification, box and quality (condinst.md 2.2)."""
    rows = targets.positives
    level = targets.level[rows]
    positives = normaliser(_number(len(rows), rows.device)).clamp(min=1)
    logits = flatten_levels(outputs.class_logits).float()
    by_locations = rules.losses.class_normalizer == "locations"
    normalizer = normaliser(_number(len(logits), rows.device)) if by_locations else positives
    stride = constant(tuple(map(float, FPN_STRIDES)), rows.device)[level][:, None]
    ltrb = gather_rows(outputs.ltrb, rows, level).float() / stride
    target_ltrb = regression_targets(targets, batch.boxes_xyxy) / stride
    iou, giou = smoothed_ious(ltrb, target_ltrb)
    losses = box_losses(iou, giou, rules.losses.box_loss)
    quality_logits = gather_rows(outputs.quality_logits, rows, level).float()[:, 0]
    if rules.quality == "centerness":
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


def semantic_term(outputs: DenseOutputs, batch: Batch, rules: LossRules) -> Terms:
    """CondInst's auxiliary semantic loss (condinst.md 3); needs masks."""
    if not rules.losses.semantic or outputs.semantic_logits is None:
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


def _number(value: int, device: torch.device) -> Tensor:
    """On the device, without waiting for it."""
    return torch.full((), float(value), device=device)


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
    if not len(labels):
        return out
    order = areas.argsort(descending=True)
    place = torch.arange(len(order), device=order.device)
    rank = torch.empty_like(order).index_copy_(0, order, place)
    # The smallest mask over a cell is the one of the highest rank; -1 where there is none.
    ranks = torch.where(masks, rank[:, None, None], -1)
    for image in range(num_images):
        own = (image_index == image)[:, None, None]
        top = torch.where(own, ranks, -1).amax(dim=0)
        out[image] = torch.where(top >= 0, labels[order][top.clamp(min=0)], num_classes)
    return out
