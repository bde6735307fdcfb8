"""Weights, warm-ups and kinds of supervision."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from boxdepth.trainer import build, config
from boxdepth.trainer.criterion.detection import semantic_labels
from boxdepth.trainer.criterion.rules import Losses, LossRules, PseudoTerms, factors_at
from boxdepth.trainer.criterion.terms import MaskTargets, StudentPass, compute_losses
from boxdepth.trainer.model.controller import ParameterMaps
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec, mask_outputs
from boxdepth.trainer.structures import Batch, DenseOutputs, LossTerms, PseudoMasks
from boxdepth.trainer.targets.assign import assign_targets
from boxdepth.trainer.targets.mask_grid import mask_grid
from boxdepth.trainer.targets.pairs import trusted_pairs
from boxdepth.trainer.targets.rules import Assignment, PairRule, Sampling
from boxdepth.trainer.targets.sampling import select_positives

SPEC = MaskHeadSpec(features=8)
SIZE = (64, 96)
GRID = (16, 24)
SHAPES = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
BOXES = torch.tensor([[8.0, 8, 56, 56], [30, 10, 90, 60], [2, 2, 40, 30], [50, 20, 80, 60]])


def make_batch(masks: Tensor | None = None, has_mask: list[bool] | None = None) -> Batch:
    torch.manual_seed(0)
    blocks = torch.randint(0, 40, (2, 3, 16, 24), dtype=torch.uint8)
    return Batch(
        images=blocks.repeat_interleave(4, -1).repeat_interleave(4, -2),
        sizes=torch.tensor([[64, 96], [64, 96]]),
        valid=torch.ones(2, *SIZE, dtype=torch.bool),
        inverse_depth=torch.linspace(0, 255, 96).expand(2, 1, *SIZE).contiguous(),
        depth_valid=torch.tensor([True, True]),
        boxes_xyxy=BOXES,
        labels=torch.tensor([0, 1, 2, 0]),
        image_index=torch.tensor([0, 0, 1, 1]),
        centers_xy=(BOXES[:, :2] + BOXES[:, 2:]) / 2,
        masks=masks,
        has_mask=torch.tensor(has_mask or [masks is not None] * 4),
        image_ids=(1, 2),
    )


def random_masks() -> Tensor:
    return torch.rand(4, *GRID) > 0.5


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def dense(seed: int = 1) -> DenseOutputs:
    torch.manual_seed(seed)
    return DenseOutputs(
        class_logits=tuple(leaf(2, 3, *s) for s in SHAPES),
        ltrb=tuple((20 * torch.rand(2, 4, *s)).requires_grad_() for s in SHAPES),
        quality_logits=tuple(leaf(2, 1, *s) for s in SHAPES),
        controller=ParameterMaps(maps=tuple(leaf(2, SPEC.num_params, *s) for s in SHAPES)),
        mask_features=leaf(2, 8, 8, 12),
    )


def rules(
    *,
    supervision: Any = "boxes",
    pseudo_mask: float = 0.0,
    mask_affinity: float = 0.0,
    **weights: Any,
) -> LossRules:
    method = "depth_matching" if pseudo_mask or mask_affinity else "off"
    terms = PseudoTerms(method=method, gamma=pseudo_mask, mask_affinity=mask_affinity)
    return LossRules(losses=Losses(**weights), pseudo=terms, supervision=supervision)


def losses(
    batch: Batch,
    spec: LossRules | None = None,
    *,
    outputs: DenseOutputs | None = None,
    step: int = 50_000,
    pseudo: PseudoMasks | None = None,
    **options: Any,
) -> LossTerms:
    outputs = outputs or dense()
    targets = assign_targets(batch.ground_truth, SHAPES, Assignment(), num_classes=3)
    positives = select_positives(targets, outputs, Sampling(), num_boxes=len(batch.labels))
    grid = mask_grid(batch)
    student = StudentPass(
        outputs=outputs,
        targets=targets,
        positives=positives,
        masks=mask_outputs(outputs.mask_features, positives, SPEC),
    )
    learns = MaskTargets(
        grid=grid,
        sources=trusted_pairs(grid, PairRule()),
        pseudo=() if pseudo is None else (pseudo,),
    )
    return compute_losses(student, batch, learns, rules=spec or rules(), step=step, **options)


def numbers(terms: LossTerms) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in terms.values.items()}


@pytest.mark.parametrize(
    ("iteration", "color", "consistency"),
    [
        (5000, 0.5, 0),
        (10_000, 1, 0),
        (10_001, 1, 1e-4),
        (15_000, 1, 0.5),
        (20_000, 1, 1),
        (90_000, 1, 1),
    ],
)
def test_warm_ups_of_the_worked_example(iteration: int, color: float, consistency: float) -> None:
    """method.md, golden vector 12; iterations count from 1, steps from 0."""
    factors = factors_at(rules(), iteration - 1)
    assert factors["color"] == pytest.approx(color)
    assert factors["consistency"] == pytest.approx(consistency)
    assert factors["projection"] == factors["depth"] == 1


def test_warm_ups_can_be_switched_off() -> None:
    at_once = rules(warmup_iterations=0)
    assert factors_at(at_once, 0)["color"] == factors_at(at_once, 0)["consistency"] == 1
    no_wait = rules(consistency_warmup="none")
    assert factors_at(no_wait, 0)["consistency"] == 1


def test_pseudo_masks_count_fully_at_once_or_ramp_up() -> None:
    assert factors_at(rules(pseudo_mask=4.0), 0)["pseudo_mask"] == 4
    pseudo = PseudoTerms(method="box_teacher", start=100, gamma=0.5)
    ramped = LossRules(losses=Losses(warmup_iterations=10), pseudo=pseudo)
    assert [factors_at(ramped, step)["pseudo_mask"] for step in (99, 104, 200)] == [0, 0.25, 0.5]


def test_total_is_the_weighted_sum() -> None:
    terms = losses(make_batch(), rules(box=2.0, depth=0.5))
    values = numbers(terms)
    expected = sum(terms.factors[name] * value for name, value in values.items())
    assert float(terms.total().detach()) == pytest.approx(expected, rel=1e-5)
    assert set(values) == {
        "classification", "box", "quality", "projection", "color", "consistency", "depth",
    }  # fmt: skip


def test_a_weight_of_zero_leaves_its_term_out() -> None:
    values = losses(make_batch(), rules(color=0, depth=0)).values
    assert "color" not in values
    assert "depth" not in values


def test_masks_never_reach_a_training_from_boxes() -> None:
    """Wrong masks are planted; every loss stays what it was."""
    clean = numbers(losses(make_batch()))
    planted = numbers(losses(make_batch(random_masks())))
    assert planted == clean


def test_mixed_supervision_takes_masks_where_there_are_some() -> None:
    mixed = rules(supervision="mixed")
    some = make_batch(random_masks(), [True, False, False, True])
    terms = numbers(losses(some, mixed))
    assert terms["mask"] > 0
    assert terms["projection"] > 0
    changed = replace(some, masks=some.masks ^ torch.tensor([0, 1, 1, 0]).bool()[:, None, None])  # type: ignore[operator]
    assert numbers(losses(changed, mixed)) == terms, "masks of boxes without mask don't count"


def test_mixed_supervision_has_boxes_and_masks_as_its_ends() -> None:
    mixed = rules(supervision="mixed")
    none = numbers(losses(make_batch(random_masks(), [False] * 4), mixed))
    boxes = numbers(losses(make_batch()))
    assert {k: v for k, v in none.items() if k != "mask"} == boxes
    assert none["mask"] == 0
    masks = make_batch(random_masks(), [True] * 4)
    everything = numbers(losses(masks, mixed))
    only_masks = numbers(losses(masks, rules(supervision="masks")))
    assert everything["mask"] == only_masks["mask"]
    assert everything["projection"] == everything["color"] == everything["consistency"] == 0


def no_boxes() -> Batch:
    batch = make_batch()
    return replace(
        batch,
        boxes_xyxy=batch.boxes_xyxy[:0],
        labels=batch.labels[:0],
        image_index=batch.image_index[:0],
        centers_xy=batch.centers_xy[:0],
        has_mask=batch.has_mask[:0],
        counts=(),
    )


@pytest.mark.parametrize("supervision", ["boxes", "masks", "mixed"])
def test_without_boxes_every_term_is_a_zero_with_a_graph(supervision: Any) -> None:
    spec = rules(supervision=supervision, pseudo_mask=4.0)
    outputs = dense()
    terms = losses(no_boxes(), spec, outputs=outputs)
    for name, value in terms.values.items():
        assert value.requires_grad, name
        if name != "classification":
            assert value == 0, name
    terms.total().backward()
    leaves = (*outputs.class_logits, *outputs.ltrb, *outputs.quality_logits)
    for tensor in (*leaves, *outputs.controller.tensors, outputs.mask_features):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


def test_depth_terms_skip_images_without_depth() -> None:
    batch = replace(make_batch(), depth_valid=torch.tensor([False, False]))
    terms = numbers(losses(batch))
    assert terms["depth"] == terms["consistency"] == 0
    first = replace(make_batch(), depth_valid=torch.tensor([True, False]))
    wrong = first.inverse_depth.clone()
    wrong[1] = 7
    assert numbers(losses(first)) == numbers(losses(replace(first, inverse_depth=wrong)))


def test_consistency_can_be_taken_over_the_whole_image() -> None:
    inside = numbers(losses(make_batch()))["consistency"]
    everywhere = rules(consistency_region="image")
    assert numbers(losses(make_batch(), everywhere))["consistency"] != inside


def pseudo(mask: Tensor, keep: list[bool], weight: float = 1.0) -> PseudoMasks:
    kept = torch.tensor(keep)
    return PseudoMasks(
        mask=mask.float(), score=kept.float(), keep=kept, weight=torch.full((4,), weight)
    )


def test_pseudo_masks_are_learnt_where_they_are_kept() -> None:
    spec = rules(pseudo_mask=4.0, mask_affinity=0.1)
    mask = random_masks()
    some = numbers(losses(make_batch(), spec, pseudo=pseudo(mask, [True, False, True, False])))
    flipped = mask ^ torch.tensor([0, 1, 0, 1]).bool()[:, None, None]
    same = numbers(losses(make_batch(), spec, pseudo=pseudo(flipped, [True, False, True, False])))
    assert some == same
    assert some["pseudo_mask"] > 0
    assert some["mask_affinity"] > 0
    none = numbers(losses(make_batch(), spec, pseudo=pseudo(mask, [False] * 4)))
    assert none["pseudo_mask"] == none["mask_affinity"] == 0
    before = numbers(losses(make_batch(), spec, pseudo=None))
    assert before == none


def test_weights_of_pseudo_masks_scale_their_terms() -> None:
    spec = rules(pseudo_mask=1.0, mask_affinity=1.0)
    mask, keep = random_masks(), [True] * 4
    full = numbers(losses(make_batch(), spec, pseudo=pseudo(mask, keep)))
    half = numbers(losses(make_batch(), spec, pseudo=pseudo(mask, keep, weight=0.5)))
    for name in ("pseudo_mask", "mask_affinity"):
        assert half[name] == pytest.approx(full[name] / 2, rel=1e-5)


def test_fcos_terms_are_divided_by_the_mean_over_ranks() -> None:
    alone = numbers(losses(make_batch()))
    crowd = numbers(losses(make_batch(), normaliser=lambda number: 4 * number))
    for name in ("classification", "box", "quality"):
        assert crowd[name] == pytest.approx(alone[name] / 4, rel=1e-5)
    assert crowd["projection"] == alone["projection"]


def test_losses_are_computed_in_fp32_under_autocast() -> None:
    plain = numbers(losses(make_batch()))
    with torch.autocast("cpu", torch.bfloat16):
        cast = losses(make_batch())
    assert all(value.dtype == torch.float32 for value in cast.values.values())
    assert numbers(cast) == pytest.approx(plain, rel=1e-5)


def test_half_precision_outputs_and_huge_logits_stay_finite() -> None:
    outputs = dense()
    half = replace(
        outputs,
        class_logits=tuple((1000 * x).half() for x in outputs.class_logits),
        quality_logits=tuple((1000 * x).half() for x in outputs.quality_logits),
        controller=ParameterMaps(maps=tuple((30 * x).half() for x in outputs.controller.tensors)),
        mask_features=(30 * outputs.mask_features).half(),
    )
    terms = losses(make_batch(), outputs=half)
    assert all(torch.isfinite(value) for value in terms.values.values())
    terms.total().backward()
    assert torch.isfinite(outputs.mask_features.grad).all()  # type: ignore[arg-type]


def test_rules_follow_the_run() -> None:
    run = config.RunConfig(
        name="x",
        distillation=config.Distillation(method="box_teacher", start=7, gamma=0.5),
        losses=Losses(warmup_iterations=10),
    )
    factors = factors_at(build.loss_rules(run), 11)
    assert factors["pseudo_mask"] == pytest.approx(0.25)
    plain = factors_at(build.loss_rules(config.RunConfig(name="x")), 11)
    assert (plain["depth"], plain["pseudo_mask"], plain["mask_affinity"]) == (1, 0, 0)


def test_two_teachers_both_teach() -> None:
    spec = rules(pseudo_mask=1.0)
    one, other = (pseudo(random_masks(), [True] * 4) for _ in range(2))
    apart = [numbers(losses(make_batch(), spec, pseudo=p))["pseudo_mask"] for p in (one, other)]
    batch, outputs = make_batch(), dense()
    targets = assign_targets(batch.ground_truth, SHAPES, Assignment(), num_classes=3)
    positives = select_positives(targets, outputs, Sampling(), num_boxes=4)
    student = StudentPass(
        outputs=outputs,
        targets=targets,
        positives=positives,
        masks=mask_outputs(outputs.mask_features, positives, SPEC),
    )
    learns = MaskTargets(grid=mask_grid(batch), pseudo=(one, other))
    both = numbers(compute_losses(student, batch, learns, rules=spec, step=0))["pseudo_mask"]
    assert both == pytest.approx(sum(apart), rel=1e-5)


def test_outputs_that_no_active_term_reads_still_get_a_gradient() -> None:
    """Data parallel waits for a gradient of every parameter."""
    off = rules(projection=0, color=0, consistency=0, depth=0, quality=0)
    outputs = dense()
    losses(make_batch(), off, outputs=outputs).total().backward()
    for tensor in (*outputs.controller.tensors, outputs.mask_features, *outputs.quality_logits):
        assert tensor.grad is not None
        assert tensor.grad.count_nonzero() == 0
    assert outputs.class_logits[0].grad.count_nonzero() > 0  # type: ignore[union-attr]


def test_a_term_whose_warm_up_has_yet_to_begin_is_left_out_of_the_work() -> None:
    """And nothing else changes: not the total, not a gradient."""
    width = rules().losses.warmup_iterations
    for step, late in ((0, {"consistency"}), (width, set())):
        totals = []
        for spec in (rules(), rules().begun(step)):
            outputs = dense()
            terms = losses(make_batch(), spec, outputs=outputs, step=step)
            terms.total().backward()
            totals.append((terms, outputs.mask_features.grad))
        (whole, gradient), (begun, same) = totals
        assert whole.values.keys() - begun.values.keys() == late
        assert begun.factors == {n: f for n, f in whole.factors.items() if n not in late}
        torch.testing.assert_close(begun.total(), whole.total())
        torch.testing.assert_close(same, gradient)
    assert rules().begun(0).pair_terms == ("color",)


def test_box_teachers_terms_begin_with_the_teacher() -> None:
    pseudo = PseudoTerms(method="box_teacher", start=7, gamma=0.5, mask_affinity=0.1)
    spec = LossRules(pseudo=pseudo)
    assert spec.begun(6).pseudo.weights() == {"pseudo_mask": 0, "mask_affinity": 0}
    assert spec.begun(7).pseudo == pseudo


def test_semantic_labels_are_the_smallest_masks_class() -> None:
    masks = torch.zeros(4, 4, 4, dtype=torch.bool)
    masks[0, :, :], masks[1, :2, :2], masks[2, :1, :1], masks[3, 3:, 3:] = True, True, True, True
    labels = semantic_labels(
        masks,
        torch.tensor([5, 6, 7, 8]),
        torch.tensor([0, 0, 0, 1]),
        areas=masks.sum(dim=(1, 2)),
        num_images=3,
        num_classes=9,
    )
    assert labels[0].tolist() == [[7, 6, 5, 5], [6, 6, 5, 5], [5, 5, 5, 5], [5, 5, 5, 5]]
    assert labels[1].unique().tolist() == [8, 9]
    assert labels[2].unique().tolist() == [9]
