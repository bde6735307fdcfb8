"""FCOS's terms and CondInst's auxiliary semantic term."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from boxdepth.trainer.assign import (
    centerness,
    flatten_levels,
    gather_rows,
    positive_rows,
    regression_targets,
)
from boxdepth.trainer.criterion.spec import LossSpec, Normaliser, Terms
from boxdepth.trainer.losses.focal import sigmoid_focal_sum
from boxdepth.trainer.losses.iou import box_losses, smoothed_ious
from boxdepth.trainer.losses.quality import quality_sum
from boxdepth.trainer.structures import FPN_STRIDES, Batch, DenseOutputs, Targets


def detection_terms(
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


def semantic_term(outputs: DenseOutputs, batch: Batch, spec: LossSpec) -> Terms:
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
