"""Backbone, FPN, FCOS head and mask branch against the recorded reference."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from boxdepth.trainer.criterion.detection import semantic_labels
from boxdepth.trainer.geometry.resize import aligned_bilinear
from boxdepth.trainer.losses.focal import sigmoid_focal_sum
from boxdepth.trainer.structures import FPN_STRIDES

LEVELS = ("p3", "p4", "p5", "p6", "p7")


def test_backbone_and_fpn(recorded: Any, tiny_model: Any, rgb_batch: Any, compare: Any) -> None:
    d = recorded("backbone_fpn")
    model = tiny_model()
    batch = model.normalized(*rgb_batch(d["image/0"], d["image/1"]))
    compare.close(batch, d["batch"], what="batch")
    features = model.backbone(batch)
    for name, feature in zip(("res3", "res4", "res5"), features, strict=True):
        compare.close(feature, d[name], what=name)
    for name, level in zip(LEVELS, model.fpn(features), strict=True):
        compare.close(level, d[name], what=name)


def test_fcos_head_and_controller(
    recorded: Any,
    tiny_model: Any,
    compare: Any,
    random_like: Callable[[str, Tensor], Tensor],
    gradient_of: Any,
) -> None:
    d = recorded("fcos_head")
    model = tiny_model()
    features = [torch.from_numpy(d[f"feat/{p}"]).requires_grad_() for p in LEVELS]
    head = model.head(features)
    outputs = {
        "cls_logits": head.class_logits,
        "bbox_reg": [x / s for x, s in zip(head.ltrb, FPN_STRIDES, strict=True)],
        "ctrness": head.quality_logits,
        "controller": [model.controller(x) for x in head.box_features],
    }
    total = torch.zeros(())
    for j, (name, levels) in enumerate(outputs.items()):
        for i, (p, out) in enumerate(zip(LEVELS, levels, strict=True)):
            compare.close(out, d[f"{name}/{p}"], what=f"{name}/{p}")
            total = total + (out * random_like(f"fcos_head.g{j}.{i}", out)).sum()
    total.backward()
    norms = [gradient_of(model, name).norm() for name in d["grad_names"]]
    for name, ours, theirs in zip(d["grad_names"], norms, d["grad_norms"], strict=True):
        compare.close(ours, theirs, 1e-4, what=f"gradient of {name}")
    compare.close(features[2].grad, d["grad_feat/p5"], 1e-4, what="gradient of p5")


def test_mask_branch(
    recorded: Any, tiny_model: Any, compare: Any, random_like: Callable[[str, Tensor], Tensor]
) -> None:
    d = recorded("mask_branch")
    branch = tiny_model().mask_branch
    features = [torch.from_numpy(d[f"feat/{p}"]).requires_grad_() for p in LEVELS[:3]]
    compare.close(branch.eval()(features), d["out_eval"], what="out_eval")
    out = branch.train()(features)
    compare.close(out, d["out_train"], what="out_train")
    (out * random_like("mask_branch.g", out)).sum().backward()
    compare.close(features[2].grad, d["grad_p5"], 1e-4, what="grad_p5")
    norm = branch.refine[0][1]
    compare.close(norm.running_mean, d["refine0_bn_running_mean_after"], what="running mean")
    compare.close(norm.running_var, d["refine0_bn_running_var_after"], what="running variance")


def test_semantic_head_and_loss(recorded: Any, tiny_model: Any, compare: Any) -> None:
    d = recorded("mask_branch")
    prefix = "sem_weights/"
    extra = {k[len(prefix) :]: torch.from_numpy(v) for k, v in d.items() if k.startswith(prefix)}
    head = tiny_model(extra_weights=extra).semantic_head
    assert head is not None
    logits = head(torch.from_numpy(d["feat/p3"]))
    full = [np.unpackbits(d[f"sem_bitmasks/{i}"], axis=-1)[..., :128] for i in range(2)]
    masks = torch.from_numpy(np.concatenate(full)).bool()
    labels = semantic_labels(
        masks[:, 4::8, 4::8],
        torch.from_numpy(np.concatenate([d["sem_classes/0"], d["sem_classes/1"]])),
        torch.tensor([0] * 4 + [1] * 4),
        areas=masks.sum(dim=(1, 2)),
        num_images=2,
        num_classes=5,
    ).flatten()
    rows = logits.permute(0, 2, 3, 1).flatten(0, 2)
    loss = sigmoid_focal_sum(rows, labels) / (labels < 5).sum()
    compare.close(loss, d["loss_sem"], what="loss_sem")
    loss.backward()
    compare.close(head.output.bias.grad, d["grad_sem_logits_bias"], 1e-4, what="bias")
    compare.close(head.output.weight.grad, d["grad_sem_logits_weight"], 1e-4, what="weight")


@pytest.mark.parametrize("name", list("abcdef"))
def test_aligned_bilinear(
    recorded: Any, compare: Any, random_like: Callable[[str, Tensor], Tensor], name: str
) -> None:
    d = recorded("aligned_bilinear")
    maps = torch.from_numpy(d[f"{name}/in"]).requires_grad_()
    out = aligned_bilinear(maps, int(d[f"{name}/factor"]))
    compare.close(out, d[f"{name}/out"], what="out")
    (out * random_like(f"aligned.g.{name}", out)).sum().backward()
    compare.close(maps.grad, d[f"{name}/grad"], 1e-4, what="gradient")
