"""BoxTeacher's units equal its recorded numbers (boxteacher_units, all 40 arrays)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from boxdepth.trainer.criterion.rules import Losses, LossRules, PseudoTerms
from boxdepth.trainer.criterion.terms import MaskTargets, StudentPass, compute_losses
from boxdepth.trainer.distill.box_teacher import assign_greedily
from boxdepth.trainer.distill.ema import teacher_momentum
from boxdepth.trainer.geometry.lab import rgb_to_lab
from boxdepth.trainer.geometry.neighbours import neighbour_offsets
from boxdepth.trainer.losses.mask_affinity import mask_affinity
from boxdepth.trainer.model.controller import ParameterMaps
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec, mask_outputs
from boxdepth.trainer.structures import (
    Batch,
    DenseOutputs,
    LossTerms,
    Positives,
    PseudoMasks,
    Targets,
    TrustedPairs,
)
from boxdepth.trainer.targets.mask_grid import mask_grid

Arrays = dict[str, torch.Tensor]
LOSSES = {
    "projection": "loss_prj",
    "color": "loss_pairwise",
    "pseudo_mask": "loss_mask",
    "mask_affinity": "loss_mask_affinity",
}
"""Our terms and the reference's names."""


@pytest.fixture(scope="module")
def units(recorded: Callable[[str], dict[str, np.ndarray]]) -> Arrays:
    arrays = recorded("boxteacher_units")
    return {name: torch.from_numpy(np.asarray(values)) for name, values in arrays.items()}


def _assign(units: Arrays, case: str, *, first_is_free: bool) -> torch.Tensor:
    return assign_greedily(
        boxes_xyxy=units[f"assign/{case}/gt_boxes"],
        candidate_boxes_xyxy=units[f"assign/{case}/pred_boxes"],
        ranking=units[f"assign/{case}/scores"],
        first_is_free=first_is_free,
    )


def test_lab(units: Arrays, compare: Any) -> None:
    compare.close(rgb_to_lab(units["lab/rgb"]), units["lab/lab"], what="lab/lab")


@pytest.mark.parametrize("case", ["a", "b", "first_prediction"])
def test_assignment(units: Arrays, compare: Any, case: str) -> None:
    assigned = _assign(units, case, first_is_free=True)
    name = f"assign/{case}"
    compare.close(assigned, units[f"{name}/assigned"], what=f"{name}/assigned")
    weights = units[f"{name}/mask_score"][assigned]
    compare.close(weights, units[f"{name}/weights"], what=f"{name}/weights")


def test_our_assignment_leaves_the_best_prediction_its_box(units: Arrays) -> None:
    assert units["assign/first_prediction/assigned"].tolist() == [1], "the reference's bug"
    assert _assign(units, "first_prediction", first_is_free=False).tolist() == [0]


def test_affinity(units: Arrays, compare: Any) -> None:
    valid = units["affinity/valid"].bool().expand(4, -1, -1)
    affinity = mask_affinity(units["affinity/masks"].float(), valid, neighbour_offsets(3, 2))
    compare.close(affinity, units["affinity/out"], what="affinity/out")


def test_momentum(units: Arrays, compare: Any) -> None:
    ours = [teacher_momentum(int(step), ramp=True) for step in units["ema/iterations"]]
    compare.close(ours, units["ema/momentum"], 1e-12, what="ema/momentum")


def test_mask_losses(units: Arrays, compare: Any) -> None:
    terms = _terms(units)
    for ours, name in LOSSES.items():
        weighted = terms.factors[ours] * terms.values[ours]
        compare.close(weighted, units[f"losses/{name}"], what=f"losses/{name}")


def test_gradients_of_the_mask_losses(units: Arrays, compare: Any) -> None:
    features = units["losses/mask_feats"].clone().requires_grad_()
    params = units["losses/params"].clone().requires_grad_()
    terms = _terms(units, features=features, params=params)
    torch.stack([terms.factors[name] * terms.values[name] for name in LOSSES]).sum().backward()
    for gradient, name in ((features.grad, "grad_feats"), (params.grad, "grad_params")):
        compare.close(gradient, units[f"losses/{name}"], 2e-4, what=f"losses/{name}")


def _terms(
    units: Arrays, *, features: torch.Tensor | None = None, params: torch.Tensor | None = None
) -> LossTerms:
    """Our criterion on the recorded instances, at the recorded 5000th step (t = step + 1).

    The stand-in similarities differ by box, so each box is an image of its own to the criterion.
    """
    features = units["losses/mask_feats"] if features is None else features
    positives = Positives(
        location_xy=units["losses/locations"],
        level=units["losses/fpn_levels"],
        box_index=units["losses/gt_inds"],
        image_index=units["losses/im_inds"],
        params=units["losses/params"] if params is None else params,
    )
    boxes = units["losses/box_bitmasks"].bool()
    weights = units["losses/weights"]
    trusted = units["losses/color_similarity"] >= 0.3
    batch = _batch(boxes, valid=units["affinity/valid"].bool())
    student = StudentPass(
        outputs=_nothing_detected(),
        targets=_background(),
        positives=replace(positives, image_index=positives.box_index),
        masks=mask_outputs(features, positives, MaskHeadSpec(depth="off")),
    )
    taught = PseudoMasks(
        mask=units["affinity/masks"].float() * boxes * (weights > 0)[:, None, None],
        score=weights,
        keep=weights > 0,
        weight=weights,
    )
    learns = MaskTargets(
        grid=mask_grid(batch),
        sources=(TrustedPairs(source="color", term="color", pairs=trusted),),
        pseudo=(taught,),
    )
    pseudo = PseudoTerms(method="box_teacher", start=0, gamma=0.5, mask_affinity=0.1)
    rules = LossRules(losses=Losses(depth=0), pseudo=pseudo)
    return compute_losses(student, batch, learns, rules=rules, step=4999)


def _batch(bitmaps: torch.Tensor, *, valid: torch.Tensor) -> Batch:
    """Boxes that rasterise to the recorded bitmaps at stride 4."""
    count, height, width = bitmaps.shape
    boxes = []
    for bitmap in bitmaps:
        rows, columns = bitmap.any(dim=1).nonzero()[:, 0], bitmap.any(dim=0).nonzero()[:, 0]
        corners = [columns[0] * 4, rows[0] * 4, columns[-1] * 4 + 3, rows[-1] * 4 + 3]
        boxes.append(torch.stack(corners).float())
    size = (4 * height, 4 * width)
    fine = valid.repeat_interleave(4, dim=0).repeat_interleave(4, dim=1)
    return Batch(
        images=torch.zeros(count, 3, *size, dtype=torch.uint8),
        sizes=torch.tensor([size] * count),
        valid=fine.expand(count, -1, -1),
        inverse_depth=torch.zeros(count, 1, *size),
        depth_valid=torch.ones(count, dtype=torch.bool),
        boxes_xyxy=torch.stack(boxes),
        labels=torch.zeros(count, dtype=torch.int64),
        image_index=torch.arange(count),
        centers_xy=torch.zeros(count, 2),
        masks=None,
        has_mask=torch.zeros(count, dtype=torch.bool),
        image_ids=tuple(range(count)),
    )


def _nothing_detected() -> DenseOutputs:
    maps = [torch.zeros(1, channels, 1, 1) for channels in (1, 4, 1, 233)]
    levels = [(one,) * 5 for one in maps]
    return DenseOutputs(
        class_logits=levels[0],
        ltrb=levels[1],
        quality_logits=levels[2],
        controller=ParameterMaps(maps=levels[3]),
        mask_features=torch.zeros(1, 16, 1, 1),
    )


def _background() -> Targets:
    five = torch.arange(5)
    return Targets(
        label=torch.ones_like(five),
        box_index=torch.full_like(five, -1),
        positives=five[:0],
        location_xy=torch.zeros(5, 2),
        level=five,
        image_index=torch.zeros_like(five),
    )
