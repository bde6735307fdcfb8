"""What may learn from what: targets, affinities and teacher never; the depth layer from masks."""

from dataclasses import replace

import pytest
import torch
from tests.trainer.distill.test_pseudo import MODEL, make_batch

from boxdepth.trainer import config
from boxdepth.trainer.build import build_model, mask_head_spec
from boxdepth.trainer.criterion.rules import LossRules
from boxdepth.trainer.criterion.terms import MaskTargets, StudentPass, compute_losses
from boxdepth.trainer.geometry.neighbours import neighbour_offsets
from boxdepth.trainer.losses.mask_affinity import mask_affinity
from boxdepth.trainer.model.dynamic_mask_head import mask_outputs, split_params
from boxdepth.trainer.structures import Batch, LossTerms, Positives, PseudoMasks
from boxdepth.trainer.targets.assign import assign_targets
from boxdepth.trainer.targets.mask_grid import mask_grid
from boxdepth.trainer.targets.pairs import trusted_pairs
from boxdepth.trainer.targets.rules import Assignment, PairRule, Sampling
from boxdepth.trainer.targets.sampling import select_positives

STEP = 30_000
"""All warm-ups are over."""


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Depth that would take a gradient if anything let it through."""
    plain = make_batch()
    return replace(plain, inverse_depth=plain.inverse_depth.requires_grad_())


def _pseudo(batch: Batch) -> PseudoMasks:
    mask = torch.rand((3, 24, 32), generator=torch.Generator().manual_seed(2))
    return PseudoMasks(
        mask=mask.requires_grad_(),
        score=torch.full((3,), 0.9),
        keep=torch.ones(3, dtype=torch.bool),
        weight=torch.ones(3),
    )


def _losses(
    batch: Batch, pseudo: PseudoMasks, *, supervision: str = "boxes"
) -> tuple[LossTerms, Positives]:
    torch.manual_seed(3)
    model = build_model(MODEL)
    outputs = model(batch.images, batch.sizes)
    targets = assign_targets(
        batch.ground_truth, outputs.level_shapes, Assignment(), num_classes=outputs.num_classes
    )
    positives = select_positives(targets, outputs, Sampling(), num_boxes=3)
    params = (positives.params + 0.5 * torch.randn_like(positives.params)).detach()
    positives = replace(positives, params=params.requires_grad_())
    student = StudentPass(
        outputs=outputs,
        targets=targets,
        positives=positives,
        masks=mask_outputs(outputs.mask_features, positives, mask_head_spec(MODEL)),
    )
    grid = mask_grid(batch)
    learns = MaskTargets(grid=grid, sources=trusted_pairs(grid, PairRule()), pseudo=(pseudo,))
    rules = LossRules(
        pseudo=config.Distillation(method="depth_matching", mask_affinity=0.1),
        supervision=supervision,  # type: ignore[arg-type]
    )
    return compute_losses(student, batch, learns, rules=rules, step=STEP), positives


def _depth_layer(gradient: torch.Tensor) -> torch.Tensor:
    weights, biases = split_params(gradient, mask_head_spec(MODEL))
    return torch.cat([weights[2].flatten(1), biases[2]], dim=1)


def _mask_layer(gradient: torch.Tensor) -> torch.Tensor:
    weights, biases = split_params(gradient, mask_head_spec(MODEL))
    return torch.cat([weights[3].flatten(1), biases[3]], dim=1)


def test_targets_take_no_gradient(batch: Batch) -> None:
    pseudo = _pseudo(batch)
    terms, _ = _losses(batch, pseudo)
    terms.total().backward()
    assert batch.inverse_depth.grad is None
    assert pseudo.mask.grad is None


def test_affinities_take_no_gradient(batch: Batch) -> None:
    for trusted in trusted_pairs(mask_grid(batch), PairRule()):
        assert not trusted.pairs.requires_grad
    soft = torch.rand(1, 8, 8, requires_grad=True)
    assert not mask_affinity(
        soft, torch.ones(1, 8, 8, dtype=torch.bool), neighbour_offsets(3, 2)
    ).requires_grad


@pytest.mark.parametrize("term", ["projection", "color", "consistency", "pseudo_mask"])
def test_mask_losses_train_the_depth_layer(batch: Batch, term: str) -> None:
    """Eq. 1 multiplies the mask logit by the predicted depth, without detaching either."""
    terms, positives = _losses(batch, _pseudo(batch))
    terms.values[term].backward()
    assert positives.params.grad is not None
    assert _depth_layer(positives.params.grad).abs().sum() > 0
    assert _mask_layer(positives.params.grad).abs().sum() > 0


def test_depth_loss_leaves_the_mask_layer_alone(batch: Batch) -> None:
    terms, positives = _losses(batch, _pseudo(batch))
    terms.values["depth"].backward()
    assert positives.params.grad is not None
    assert _depth_layer(positives.params.grad).abs().sum() > 0
    assert _mask_layer(positives.params.grad).count_nonzero() == 0


def test_unreliable_pseudo_masks_teach_nothing(batch: Batch) -> None:
    pseudo = replace(_pseudo(batch), keep=torch.zeros(3, dtype=torch.bool))
    terms, positives = _losses(batch, pseudo)
    assert terms.values["pseudo_mask"].item() == 0
    terms.values["pseudo_mask"].backward()
    assert positives.params.grad is not None
    assert positives.params.grad.count_nonzero() == 0


def test_boxes_with_a_true_mask_need_no_pseudo_mask(batch: Batch) -> None:
    annotated = replace(
        batch,
        masks=torch.ones(3, 24, 32, dtype=torch.bool),
        has_mask=torch.tensor([True, False, True]),
    )
    for supervision, taught in (("boxes", True), ("mixed", False)):
        pseudo = replace(_pseudo(batch), keep=torch.tensor([True, False, True]))
        terms, _ = _losses(annotated, pseudo, supervision=supervision)
        assert (terms.values["pseudo_mask"].item() > 0) == taught


def test_config_default_is_the_paper() -> None:
    distillation = config.Distillation()
    assert (distillation.momentum, distillation.gamma, distillation.reliability) == (0.999, 4, 0.8)
    assert (distillation.matching.alpha, distillation.matching.beta) == (0.8, 0.2)
    assert (distillation.teacher_short_side, distillation.teacher_max_size) == (800, 1333)
