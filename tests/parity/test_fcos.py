"""FCOS targets, losses and decoding against the recorded reference."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from tests.parity.conftest import centers_within
from torch import Tensor

from boxdepth.trainer.criterion.rules import Losses, LossRules
from boxdepth.trainer.criterion.terms import MaskTargets, StudentPass, compute_losses
from boxdepth.trainer.geometry.grid import pyramid_locations
from boxdepth.trainer.geometry.levels import gather_rows
from boxdepth.trainer.losses.focal import sigmoid_focal_sum
from boxdepth.trainer.losses.iou import smoothed_ious
from boxdepth.trainer.model.controller import ParameterMaps
from boxdepth.trainer.model.detections import detect
from boxdepth.trainer.model.rules import DetectionLimits
from boxdepth.trainer.structures import (
    FPN_STRIDES,
    Batch,
    DenseOutputs,
    GroundTruth,
    LossTerms,
    MaskOutputs,
    Positives,
    Targets,
)
from boxdepth.trainer.targets.assign import assign_targets, centerness, regression_targets
from boxdepth.trainer.targets.mask_grid import mask_grid
from boxdepth.trainer.targets.rules import Assignment

LEVELS = ("p3", "p4", "p5", "p6", "p7")
CLASSES = 5
SIZE = (256, 320)
SHAPES = [(32, 40), (16, 20), (8, 10), (4, 5), (2, 3)]


def boxes_of(d: Mapping[str, np.ndarray], *images: int | None) -> dict[str, Tensor]:
    """Boxes, labels and images of a batch; None: an image without boxes."""
    some = [(row, image) for row, image in enumerate(images) if image is not None]
    boxes = np.concatenate([d[f"boxes/{image}"] for _, image in some])
    return {
        "boxes_xyxy": torch.from_numpy(boxes),
        "labels": torch.from_numpy(np.concatenate([d[f"classes/{i}"] for _, i in some])),
        "image_index": torch.tensor([r for r, i in some for _ in d[f"boxes/{i}"]]),
    }


def box_centers(boxes_xyxy: Tensor) -> Tensor:
    """(x, y) of each box's middle."""
    return (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2


def assigned(boxes: dict[str, Tensor], centers: Tensor, **options: Any) -> Targets:
    truth = GroundTruth(**boxes, centers_xy=centers, num_images=options.pop("num_images", 2))
    return assign_targets(truth, SHAPES, Assignment(**options), num_classes=CLASSES)


def compare_targets(
    compare: Any, d: Mapping[str, np.ndarray], case: str, targets: Targets, boxes: Tensor
) -> None:
    """Labels everywhere; what only a positive location has, there."""
    rows = targets.positives
    strides = torch.tensor(FPN_STRIDES)[targets.level[rows]][:, None]
    ltrb = regression_targets(targets, boxes) / strides
    compare.close(targets.label, d[f"{case}/labels"], what=f"{case}/labels")
    compare.close(targets.box_index[rows], d[f"{case}/target_inds"][rows], what="target_inds")
    compare.close(ltrb, d[f"{case}/reg_targets"][rows], what=f"{case}/reg_targets")
    compare.close(centerness(ltrb), d[f"{case}/ctrness_targets"], what="ctrness_targets")


def test_locations(recorded: Any, compare: Any) -> None:
    d = recorded("fcos_targets")
    assert d["level_shapes"].tolist() == [list(shape) for shape in SHAPES]
    locations, _ = pyramid_locations(SHAPES, strides=FPN_STRIDES)
    compare.close(locations, d["locations"], what="locations")


def test_targets_around_box_centers(recorded: Any, compare: Any) -> None:
    d = recorded("fcos_targets")
    boxes = boxes_of(d, 0, 1)
    targets = assigned(boxes, box_centers(boxes["boxes_xyxy"]))
    compare_targets(compare, d, "boxes", targets, boxes["boxes_xyxy"])
    compare.close(targets.image_index, d["im_inds"], what="im_inds")
    compare.close(targets.level, d["fpn_levels"], what="fpn_levels")


def test_targets_with_an_image_without_boxes(recorded: Any, compare: Any) -> None:
    d = recorded("fcos_targets")
    boxes = boxes_of(d, 0, None, 1)
    targets = assigned(boxes, box_centers(boxes["boxes_xyxy"]), num_images=3)
    compare_targets(compare, d, "with_empty", targets, boxes["boxes_xyxy"])


def test_targets_without_center_sampling(recorded: Any, compare: Any) -> None:
    d = recorded("fcos_targets")
    boxes = boxes_of(d, 0, 1)
    centers = box_centers(boxes["boxes_xyxy"])
    targets = assigned(boxes, centers, center_radius=None)
    compare_targets(compare, d, "no_center_sampling", targets, boxes["boxes_xyxy"])


def test_targets_around_centers_of_rasterised_boxes(recorded: Any, compare: Any) -> None:
    d = recorded("fcos_targets")
    boxes = boxes_of(d, 0, 1)
    targets = assigned(boxes, centers_within(boxes["boxes_xyxy"], SIZE))
    compare_targets(compare, d, "boxinst", targets, boxes["boxes_xyxy"])


def polygon_centroids(d: Mapping[str, np.ndarray], compare: Any) -> Tensor:
    masks = []
    for polygon in [*d["polygons/0"], *d["polygons/1"]]:
        rle = coco_mask.merge(coco_mask.frPyObjects([polygon.astype(float).tolist()], *SIZE))
        masks.append(coco_mask.decode(rle))
    bitmaps = torch.from_numpy(np.stack(masks)).double()
    area = bitmaps.sum(dim=(1, 2))
    compare.close(area, d["condinst/mask_areas"], what="condinst/mask_areas")
    x = (bitmaps.sum(dim=1) * torch.arange(SIZE[1])).sum(dim=1) / area.clamp(min=1e-6)
    y = (bitmaps.sum(dim=2) * torch.arange(SIZE[0])).sum(dim=1) / area.clamp(min=1e-6)
    return torch.stack([x, y], dim=1).float()


def test_targets_around_mask_centroids(recorded: Any, compare: Any) -> None:
    d = recorded("fcos_targets")
    boxes = boxes_of(d, 0, 1)
    targets = assigned(boxes, polygon_centroids(d, compare))
    compare_targets(compare, d, "condinst", targets, boxes["boxes_xyxy"])


def test_an_empty_first_mask_costs_the_reference_its_image_but_not_us(
    recorded: Any, compare: Any
) -> None:
    """The reference gives up image 0 (condinst.md 8, 1); ours drops that one box."""
    d = recorded("fcos_targets")
    boxes = boxes_of(d, 0, 1)
    centers = polygon_centroids(d, compare)
    second = boxes["image_index"] == 1
    targets = assigned({k: v[second] for k, v in boxes.items()}, centers[second])
    rows = targets.positives
    compare.close(targets.label, d["first_mask_empty/labels"], what="labels")
    skipped = int((~second).sum())
    compare.close(
        targets.box_index[rows] + skipped, d["first_mask_empty/target_inds"][rows], what="inds"
    )
    ltrb = regression_targets(targets, boxes["boxes_xyxy"][second])
    ltrb = ltrb / torch.tensor(FPN_STRIDES)[targets.level[rows]][:, None]
    compare.close(ltrb, d["first_mask_empty/reg_targets"][rows], what="reg_targets")
    compare.close(centerness(ltrb), d["first_mask_empty/ctrness_targets"], what="ctrness")
    ours = assigned({k: v[1:] for k, v in boxes.items()}, centers[1:])
    assert ((ours.box_index >= 0) & (ours.image_index == 0)).sum() > 20


def fcos_batch(boxes: dict[str, Tensor]) -> Batch:
    """Only boxes matter here."""
    m = len(boxes["labels"])
    return Batch(
        images=torch.zeros(2, 3, *SIZE, dtype=torch.uint8),
        sizes=torch.tensor([SIZE, SIZE]),
        valid=torch.ones(2, *SIZE, dtype=torch.bool),
        inverse_depth=torch.zeros(2, 1, *SIZE),
        depth_valid=torch.zeros(2, dtype=torch.bool),
        **boxes,
        centers_xy=torch.zeros(m, 2),
        masks=None,
        has_mask=torch.zeros(m, dtype=torch.bool),
        image_ids=(0, 1),
    )


def detection_losses(
    boxes: dict[str, Tensor],
    leaves: dict[str, list[Tensor]],
    **spec: Any,
) -> tuple[LossTerms, Targets]:
    outputs = DenseOutputs(
        class_logits=tuple(leaves["cls_logits"]),
        ltrb=tuple(x * s for x, s in zip(leaves["bbox_reg"], FPN_STRIDES, strict=True)),
        quality_logits=tuple(leaves["ctrness"]),
        controller=ParameterMaps(maps=tuple(torch.zeros(2, 1, *shape) for shape in SHAPES)),
        mask_features=torch.zeros(2, 1, 32, 40),
    )
    targets = assigned(boxes, box_centers(boxes["boxes_xyxy"]))
    nothing = torch.zeros(0, dtype=torch.int64)
    positives = Positives(
        location_xy=torch.zeros(0, 2),
        level=nothing,
        box_index=nothing,
        image_index=nothing,
        params=torch.zeros(0, 1),
    )
    student = StudentPass(
        outputs=outputs,
        targets=targets,
        positives=positives,
        masks=MaskOutputs(logits=torch.zeros(0, 1, 64, 80), depth=None),
    )
    batch, quality = fcos_batch(boxes), spec.pop("quality_target", "centerness")
    weights = Losses(projection=0, color=0, consistency=0, depth=0, **spec)
    rules = LossRules(losses=weights, quality=quality)
    learns = MaskTargets(grid=mask_grid(batch))
    terms = compute_losses(student, batch, learns, rules=rules, step=0)
    return terms, targets


def leaves_of(d: Mapping[str, np.ndarray]) -> dict[str, list[Tensor]]:
    return {
        name: [torch.from_numpy(d[f"{name}/{p}"]).requires_grad_() for p in LEVELS]
        for name in ("cls_logits", "bbox_reg", "ctrness")
    }


@pytest.mark.parametrize(
    ("case", "spec"),
    [
        ("ctrness_giou", {}),
        ("iou_giou", {"quality_target": "iou"}),
        ("ctrness_iou", {"box_loss": "iou"}),
        ("ctrness_linear_iou", {"box_loss": "linear_iou"}),
        ("normalizer_all", {"class_normalizer": "locations"}),
    ],
)
def test_losses(recorded: Any, compare: Any, case: str, spec: dict[str, str]) -> None:
    d, g = recorded("fcos_losses"), recorded("fcos_targets")
    leaves = leaves_of(d)
    terms, targets = detection_losses(boxes_of(g, 0, 1), leaves, **spec)
    names = {"classification": "cls", "box": "loc", "quality": "ctr"}
    if case == "iou_giou":
        names["quality"] = "iou"
    for ours, theirs in names.items():
        compare.close(terms.values[ours], d[f"{case}/loss_fcos_{theirs}"], what=f"{case}/{theirs}")
    if f"{case}/grad_cls_logits/p3" not in d:
        return
    terms.total().backward()
    for name, levels in leaves.items():
        for p, leaf in zip(LEVELS, levels, strict=True):
            compare.close(leaf.grad, d[f"{case}/grad_{name}/{p}"], 1e-4, what=f"grad {name}/{p}")
    rows = targets.positives
    strides = torch.tensor(FPN_STRIDES)[targets.level[rows]][:, None]
    predicted = gather_rows(leaves["bbox_reg"], rows, targets.level[rows])
    boxes = boxes_of(g, 0, 1)["boxes_xyxy"]
    target = regression_targets(targets, boxes) / strides
    iou, giou = smoothed_ious(predicted, target)
    compare.close(iou, d[f"{case}/iou"], what="iou")
    compare.close(giou, d[f"{case}/giou"], what="giou")
    compare.close(rows, d[f"{case}/pos_inds"], what="pos_inds")
    compare.close(targets.box_index[rows], d[f"{case}/gt_inds"], what="gt_inds")
    if f"{case}/loss_denorm" in d:
        compare.close(centerness(target).sum(), d[f"{case}/loss_denorm"], what="loss_denorm")


def test_a_weight_scales_its_term(recorded: Any, compare: Any) -> None:
    d, g = recorded("fcos_losses"), recorded("fcos_targets")
    terms, _ = detection_losses(boxes_of(g, 0, 1), leaves_of(d), classification=2.0)
    weighted = terms.factors["classification"] * terms.values["classification"]
    compare.close(weighted, d["cls_weight_2/loss_fcos_cls"], what="cls")
    compare.close(terms.values["box"], d["cls_weight_2/loss_fcos_loc"], what="loc")
    compare.close(terms.values["quality"], d["cls_weight_2/loss_fcos_ctr"], what="ctr")


def test_losses_by_a_moving_number_of_positives(recorded: Any, compare: Any) -> None:
    """Not an option of ours: any normaliser can be had from the sum."""
    d, g = recorded("fcos_losses"), recorded("fcos_targets")
    leaves = leaves_of(d)
    terms, targets = detection_losses(boxes_of(g, 0, 1), leaves)
    rows = torch.cat([x.permute(0, 2, 3, 1).flatten(0, 2) for x in leaves["cls_logits"]])
    moving = 0.9 * 100 + 0.1 * len(targets.positives)
    loss = sigmoid_focal_sum(rows, targets.label) / moving
    compare.close(loss, d["normalizer_moving_fg/loss_fcos_cls"], what="cls")
    compare.close(terms.values["box"], d["normalizer_moving_fg/loss_fcos_loc"], what="loc")
    compare.close(terms.values["quality"], d["normalizer_moving_fg/loss_fcos_ctr"], what="ctr")


def test_losses_without_positives(recorded: Any, compare: Any) -> None:
    d, g = recorded("fcos_losses"), recorded("fcos_targets")
    nothing = {name: values[:0] for name, values in boxes_of(g, 0, 1).items()}
    terms, _ = detection_losses(nothing, leaves_of(d))
    for ours, theirs in {"classification": "cls", "box": "loc", "quality": "ctr"}.items():
        compare.close(terms.values[ours], d[f"no_positives/loss_fcos_{theirs}"], what=theirs)


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("condinst_defaults", {}),
        ("fcos_defaults", {"threshold_with_quality": False}),
        ("small_topk", {"pre_nms": 40, "max_detections": 15}),
        ("condinst_all", {"max_detections": 10_000}),
        ("fcos_all", {"threshold_with_quality": False, "max_detections": 10_000}),
        ("high_thresh", {"score_threshold": 0.9999}),
    ],
)
def test_decoding(recorded: Any, compare: Any, case: str, options: dict[str, Any]) -> None:
    d = recorded("decode_nms")
    levels = {
        name: tuple(torch.from_numpy(d[f"{name}/{p}"]) for p in LEVELS)
        for name in ("cls_logits", "bbox_reg", "ctrness", "top_feat")
    }
    outputs = DenseOutputs(
        class_logits=levels["cls_logits"],
        ltrb=tuple(x * s for x, s in zip(levels["bbox_reg"], FPN_STRIDES, strict=True)),
        quality_logits=levels["ctrness"],
        controller=ParameterMaps(maps=levels["top_feat"]),
        mask_features=torch.zeros(2, 1, 12, 16),
    )
    for i, found in enumerate(detect(outputs, [(96, 128)] * 2, DetectionLimits(**options))):
        for name, ours in {
            "boxes": found.boxes_xyxy,
            "scores": found.scores,
            "classes": found.labels,
            "locations": found.location_xy,
            "fpn_levels": found.level,
            "top_feat": found.params,
        }.items():
            compare.close(ours, d[f"{case}/{i}/{name}"], what=f"{case}/{i}/{name}")
