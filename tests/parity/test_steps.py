"""Whole training steps and whole inference against the recorded reference."""

from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from tests.parity.conftest import centers_within
from torch import Tensor

from boxdepth.trainer.criterion.detection import semantic_labels
from boxdepth.trainer.criterion.rules import Losses, LossRules
from boxdepth.trainer.criterion.terms import MaskTargets, StudentPass, compute_losses
from boxdepth.trainer.engine.optim import make_optimizer, parameter_groups
from boxdepth.trainer.geometry.boxes import box_bitmaps
from boxdepth.trainer.model.condinst import CondInst
from boxdepth.trainer.model.detections import detect
from boxdepth.trainer.model.dynamic_mask_head import mask_outputs, mask_probabilities
from boxdepth.trainer.model.rules import DetectionLimits
from boxdepth.trainer.predict.masks import predict_masks
from boxdepth.trainer.structures import Batch, LossTerms, Positives
from boxdepth.trainer.targets.assign import assign_targets
from boxdepth.trainer.targets.mask_grid import mask_grid
from boxdepth.trainer.targets.pairs import trusted_pairs
from boxdepth.trainer.targets.rules import Assignment, PairRule, Sampling
from boxdepth.trainer.targets.sampling import select_positives

CLASSES = 5
STEP = 4999
BOXINST = LossRules(losses=Losses(consistency=0, depth=0))
CONDINST = LossRules(supervision="masks", losses=Losses(depth=0))
NAMES = {
    "classification": "loss_fcos_cls",
    "box": "loss_fcos_loc",
    "quality": "loss_fcos_ctr",
    "projection": "loss_prj",
    "color": "loss_pairwise",
    "mask": "loss_mask",
    "semantic": "loss_sem",
}


@pytest.fixture(autouse=True)
def _plain_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's convolutions round more coarsely: up to 9e-4 in gradients that nearly cancel."""
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


def forward(
    model: CondInst, batch: Batch, rules: LossRules, step: int = STEP, **sampling: int | None
) -> tuple[StudentPass, LossTerms]:
    outputs = model(batch.images, batch.sizes)
    targets = assign_targets(
        batch.ground_truth, outputs.level_shapes, Assignment(), num_classes=CLASSES
    )
    positives = select_positives(
        targets, outputs, Sampling(**sampling), num_boxes=len(batch.labels)
    )
    masks = mask_outputs(outputs.mask_features, positives, model.mask_head)
    student = StudentPass(outputs=outputs, targets=targets, positives=positives, masks=masks)
    grid = mask_grid(batch)
    learns = MaskTargets(grid=grid, sources=trusted_pairs(grid, PairRule()))
    return student, compute_losses(student, batch, learns, rules=rules, step=step)


def make_batch(d: Mapping[str, np.ndarray], rgb_batch: Any, masks: np.ndarray | None) -> Batch:
    """The recorded images and boxes; masks at full size, if any."""
    images, sizes = rgb_batch(d["image/0"], d["image/1"])
    size = (images.shape[-2], images.shape[-1])
    boxes = torch.from_numpy(np.concatenate([d["boxes/0"], d["boxes/1"]]))
    valid = torch.zeros(2, *size, dtype=torch.bool)
    for i, (height, width) in enumerate(sizes.tolist()):
        valid[i, : height - int(10 * height / d[f"orig_size/{i}"][0]), :width] = True
    has_mask = torch.full((len(boxes),), masks is not None)
    return Batch(
        images=images,
        sizes=sizes,
        valid=valid,
        inverse_depth=torch.zeros(2, 1, *size),
        depth_valid=torch.zeros(2, dtype=torch.bool),
        boxes_xyxy=boxes,
        labels=torch.from_numpy(np.concatenate([d["classes/0"], d["classes/1"]])),
        image_index=torch.tensor([i for i in range(2) for _ in d[f"boxes/{i}"]]),
        centers_xy=centers_within(boxes, size) if masks is None else centroids(masks),
        semantic_labels=None if masks is None else semantic_targets(d, masks),
        masks=None if masks is None else torch.from_numpy(masks[:, 2::4, 2::4]).bool(),
        has_mask=has_mask,
        image_ids=(0, 1),
    )


def frames_of(sizes: Tensor) -> list[tuple[int, int]]:
    return [(int(height), int(width)) for height, width in sizes.tolist()]


def semantic_targets(d: Mapping[str, np.ndarray], masks: np.ndarray) -> Tensor:
    """The class of the smallest mask at the pixels (8i + 4, 8j + 4)."""
    bitmaps = torch.from_numpy(masks).bool()
    return semantic_labels(
        bitmaps[:, 4::8, 4::8],
        torch.from_numpy(np.concatenate([d["classes/0"], d["classes/1"]])),
        torch.tensor([i for i in range(2) for _ in d[f"boxes/{i}"]]),
        areas=bitmaps.sum(dim=(1, 2)),
        num_images=2,
        num_classes=CLASSES,
    )


def full_masks(d: Mapping[str, np.ndarray]) -> np.ndarray:
    packed = np.concatenate([d["gt_bitmasks_full/0"], d["gt_bitmasks_full/1"]])
    return np.unpackbits(packed, axis=-1)[..., :128]


def centroids(masks: np.ndarray) -> Tensor:
    area = masks.sum(axis=(1, 2))
    x = (masks.sum(axis=1) * np.arange(masks.shape[2])).sum(axis=1) / area
    y = (masks.sum(axis=2) * np.arange(masks.shape[1])).sum(axis=1) / area
    return torch.from_numpy(np.stack([x, y], axis=1)).float()


def compare_losses(
    compare: Any, d: Mapping[str, np.ndarray], terms: LossTerms, prefix: str
) -> None:
    for name, value in terms.values.items():
        theirs = NAMES[name]
        if f"{prefix}{theirs}" not in d and name == "quality":
            theirs = "loss_fcos_iou"
        compare.close(terms.factors[name] * value, d[prefix + theirs], what=prefix + theirs)


def compare_kept(compare: Any, d: Mapping[str, np.ndarray], kept: Positives, prefix: str) -> None:
    compare.close(kept.image_index, d[f"{prefix}kept/im_inds"], what="im_inds")
    compare.close(kept.box_index, d[f"{prefix}kept/gt_inds"], what="gt_inds")
    compare.close(kept.level, d[f"{prefix}kept/fpn_levels"], what="fpn_levels")
    compare.close(kept.location_xy, d[f"{prefix}kept/locations"], what="locations")


def compare_gradients(
    compare: Any, d: Mapping[str, np.ndarray], model: CondInst, gradient_of: Any
) -> None:
    norms = np.array([float(gradient_of(model, name).norm()) for name in d["grad_names"]])
    compare.close(norms, d["grad_norms"], 1e-4, what="grad_norms")
    np.testing.assert_allclose(norms, d["grad_norms"], rtol=1e-4, atol=1e-7)
    for name in (name for name in d if name.startswith("grad/")):
        ours = gradient_of(model, name.removeprefix("grad/"))
        compare.close(ours, d[name], 1e-4, what=name)


def compare_three_steps(
    compare: Any,
    d: Mapping[str, np.ndarray],
    model: CondInst,
    batch: Batch,
    spec: LossRules,
    value_of: Any,
    **sampling: int | None,
) -> None:
    groups = parameter_groups(model, weight_decay=1e-4, norm_weight_decay=0)
    optimizer = make_optimizer(groups, name="sgd", learning_rate=0.001, momentum=0.9)
    columns = {name: i for i, name in enumerate(d["sgd/loss_names"])}
    losses = np.zeros((3, len(columns)))
    for i in range(3):
        _, terms = forward(model, batch, spec, step=STEP + i, **sampling)
        for name, value in terms.values.items():
            losses[i, columns[NAMES[name]]] = terms.factors[name] * float(value.detach())
        optimizer.zero_grad()
        terms.total().backward()
        optimizer.step()
    compare.close(losses, d["sgd/losses"], 1e-4, what="sgd/losses")
    for name in (name for name in d if name.startswith("sgd/after/")):
        flat = value_of(model, name.removeprefix("sgd/after/")).flatten()
        picked = np.linspace(0, len(flat) - 1, min(len(flat), 64)).astype(int)
        compare.close(flat[picked], d[name], 1e-4, what=name)


def test_boxinst_step(
    recorded: Any, tiny_model: Any, rgb_batch: Any, compare: Any, gradient_of: Any
) -> None:
    d = recorded("train_step_boxinst")
    model, batch = tiny_model(), make_batch(d, rgb_batch, None)
    done, terms = forward(model, batch, BOXINST)
    compare_losses(compare, d, terms, "")
    compare_kept(compare, d, done.positives, "")
    compare.close((done.targets.box_index >= 0).sum(), d["n_positives"], what="n_positives")
    compare.close(done.targets.label, d["labels"], what="labels")
    compare.close(done.outputs.mask_features, d["mask_feats"], what="mask_feats")
    compare.close(done.masks.logits, d["mask_logits"], what="mask_logits")
    bitmaps = box_bitmaps(batch.boxes_xyxy, grid=(24, 32), stride=4)
    pairs = trusted_pairs(mask_grid(batch), PairRule())[0].pairs
    for i in range(2):
        own = bitmaps[batch.image_index == i]
        compare.close(own, d[f"gt_bitmasks/{i}"], what=f"gt_bitmasks/{i}")
        compare.close(pairs[i], d[f"similarity/{i}"] >= 0.3, what=f"similarity/{i}")
    terms.total().backward()
    compare_gradients(compare, d, model, gradient_of)


def test_boxinst_step_with_few_samples(
    recorded: Any, tiny_model: Any, rgb_batch: Any, compare: Any
) -> None:
    d = recorded("train_step_boxinst")
    done, terms = forward(tiny_model(), make_batch(d, rgb_batch, None), BOXINST, per_image=8)
    compare_losses(compare, d, terms, "topk8/")
    compare_kept(compare, d, done.positives, "topk8/")


def test_three_boxinst_steps(
    recorded: Any, tiny_model: Any, rgb_batch: Any, compare: Any, value_of: Any
) -> None:
    d = recorded("train_step_boxinst")
    batch = make_batch(d, rgb_batch, None)
    compare_three_steps(compare, d, tiny_model(), batch, BOXINST, value_of)


def test_condinst_step(
    recorded: Any, tiny_model: Any, rgb_batch: Any, compare: Any, gradient_of: Any
) -> None:
    d = recorded("train_step_condinst")
    model, batch = tiny_model("condinst"), make_batch(d, rgb_batch, full_masks(d))
    done, terms = forward(model, batch, CONDINST, per_image=None, per_batch=500)
    compare_losses(compare, d, terms, "")
    compare_kept(compare, d, done.positives, "")
    compare.close((done.targets.box_index >= 0).sum(), d["n_positives"], what="n_positives")
    compare.close(done.targets.label, d["labels"], what="labels")
    compare.close(done.masks.logits, d["mask_logits"], what="mask_logits")
    assert batch.masks is not None
    for i in range(2):
        own = batch.masks[batch.image_index == i]
        compare.close(own, d[f"gt_bitmasks/{i}"], what=f"gt_bitmasks/{i}")
    terms.total().backward()
    compare_gradients(compare, d, model, gradient_of)


def test_recorded_polygons_rasterise_alike(recorded: Any, compare: Any) -> None:
    d = recorded("train_step_condinst")
    for i in range(2):
        rles = [
            coco_mask.merge(coco_mask.frPyObjects([polygon.astype(float).tolist()], 96, 128))
            for polygon in d[f"polygons/{i}"]
        ]
        ours = np.stack([coco_mask.decode(rle) for rle in rles])
        theirs = np.unpackbits(d[f"gt_bitmasks_full/{i}"], axis=-1)[..., :128]
        compare.close(ours, theirs, what=f"gt_bitmasks_full/{i}")


def test_condinst_step_with_semantic_loss(
    recorded: Any, tiny_model: Any, rgb_batch: Any, compare: Any, recipe: ModuleType
) -> None:
    d = recorded("train_step_condinst")
    batch = make_batch(d, rgb_batch, full_masks(d))
    shapes = {"logits.weight": (5, 16, 1, 1), "logits.bias": (5,)}
    for i, inputs in enumerate((64, 16)):
        shapes[f"seg_head.{i}.0.weight"] = (16, inputs, 3, 3)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"seg_head.{i}.1.{leaf}"] = (16,)
    weights = recipe.fill_state_dict({f"mask_branch.{k}": v for k, v in shapes.items()})
    extra = {name: torch.from_numpy(value) for name, value in weights.items()}
    model = tiny_model("condinst", extra_weights=extra)
    spec = CONDINST
    _, terms = forward(model, batch, spec, per_image=None, per_batch=500)
    compare_losses(compare, d, terms, "sem/")


def test_condinst_step_with_iou_quality(
    recorded: Any, tiny_model: Any, rgb_batch: Any, compare: Any
) -> None:
    d = recorded("train_step_condinst")
    batch = make_batch(d, rgb_batch, full_masks(d))
    spec = replace(CONDINST, quality="iou")
    _, terms = forward(tiny_model("condinst"), batch, spec, per_image=None, per_batch=500)
    compare_losses(compare, d, terms, "iou/")


def test_condinst_step_with_random_samples(
    recorded: Any, tiny_model: Any, rgb_batch: Any, compare: Any
) -> None:
    d = recorded("train_step_condinst")
    batch = make_batch(d, rgb_batch, full_masks(d))
    model = tiny_model("condinst")
    torch.manual_seed(7)
    done, terms = forward(model, batch, CONDINST, per_image=None, per_batch=20)
    compare_losses(compare, d, terms, "max20/")
    compare_kept(compare, d, done.positives, "max20/")


def test_three_condinst_steps(
    recorded: Any, tiny_model: Any, rgb_batch: Any, compare: Any, value_of: Any
) -> None:
    d = recorded("train_step_condinst")
    batch = make_batch(d, rgb_batch, full_masks(d))
    model = tiny_model("condinst")
    sampling = {"per_image": None, "per_batch": 500}
    compare_three_steps(compare, d, model, batch, CONDINST, value_of, **sampling)


@pytest.mark.parametrize("kind", ["boxinst", "condinst"])
@torch.no_grad()
def test_inference(recorded: Any, tiny_model: Any, rgb_batch: Any, compare: Any, kind: str) -> None:
    d = {k.removeprefix(f"{kind}/"): v for k, v in recorded("inference").items()}
    model = tiny_model(kind).eval()
    images, sizes = rgb_batch(d["image"])
    outputs = model(images, sizes)
    (found,) = detect(outputs, frames_of(sizes), DetectionLimits())
    compare.close(found.boxes_xyxy, d["raw_boxes"], what="raw_boxes")
    features = outputs.mask_features
    probabilities = torch.cat(list(mask_probabilities(features, found, model.mask_head)))
    compare.close(probabilities[:, None], d["mask_probs"], 1e-4, what="mask_probs")
    original = (150, 200)
    (instances,) = predict_masks(outputs, [found], model.mask_head, original_sizes=[original])
    compare.close(instances.boxes_xyxy, d["boxes"], what="boxes")
    compare.close(instances.scores, d["scores"], what="scores")
    compare.close(instances.labels, d["classes"], what="classes")
    decoded = np.stack([coco_mask.decode(mask) for mask in instances.masks])
    compare.close(np.array(decoded.shape), d["masks_shape"], what="masks_shape")
    theirs = np.unpackbits(d["masks"], axis=-1)[..., :200]
    compare.masks(decoded, theirs, what="masks")
    areas = coco_mask.area(list(instances.masks)).astype(float)
    compare.close(areas, d["mask_areas"].astype(float), 1e-3, what="mask_areas")


@torch.no_grad()
def test_inference_without_detections(
    recorded: Any, tiny_model: Any, rgb_batch: Any, compare: Any
) -> None:
    """The reference then gives no masks at all (condinst.md 8, 4); ours is an empty answer."""
    d = recorded("inference")
    model = tiny_model().eval()
    images, sizes = rgb_batch(d["boxinst/image"])
    outputs = model(images, sizes)
    found = detect(outputs, frames_of(sizes), DetectionLimits(score_threshold=0.9999))
    (instances,) = predict_masks(outputs, found, model.mask_head, original_sizes=[(150, 200)])
    compare.close(len(instances.masks), d["none/count"], what="count")
    assert instances.boxes_xyxy.shape == (0, 4)
