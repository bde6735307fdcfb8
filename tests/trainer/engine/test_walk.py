"""From the loop to the losses every call leads a static reader to a definition."""

import ast
import inspect
import textwrap
import typing
from collections.abc import Callable
from dataclasses import fields

import pytest

from boxdepth.trainer.criterion import detection, masks, terms
from boxdepth.trainer.distill import candidates, matchers, pseudo, teacher
from boxdepth.trainer.engine import loop, monitors, step, update
from boxdepth.trainer.losses import depth, dice, focal, iou, pairwise, projection
from boxdepth.trainer.model import detections, dynamic_mask_head
from boxdepth.trainer.runs import training
from boxdepth.trainer.targets import assign, mask_grid, pairs, sampling

CALLS: list[tuple[Callable, Callable]] = [
    (training.fit, training.train),
    (training.train, loop.run_loop),
    (loop.run_loop, update.learn_step),
    (update.learn_step, update._backward),
    (update._backward, step.step_losses),
    (step.step_losses, step._forward),
    (step.step_losses, assign.assign_targets),
    (step.step_losses, sampling.select_positives),
    (step.step_losses, dynamic_mask_head.mask_outputs),
    (step.step_losses, mask_grid.mask_grid),
    (step.step_losses, pairs.trusted_pairs),
    (step.step_losses, terms.compute_losses),
    (step.step_losses, monitors.watched),
    (teacher.Teacher.masks, pseudo.pseudo_masks),
    (pseudo.pseudo_masks, pseudo._taught),
    (pseudo._taught, detections.detect),
    (pseudo._taught, candidates.candidates_of),
    (pseudo._taught, matchers.matches_of),
    (terms.compute_losses, detection.detection_terms),
    (terms.compute_losses, masks.supervised_mask_term),
    (terms.compute_losses, masks.box_mask_terms),
    (terms.compute_losses, masks.depth_term),
    (terms.compute_losses, masks.pseudo_mask_terms),
    (detection.detection_terms, focal.sigmoid_focal_sum),
    (detection.detection_terms, iou.box_losses),
    (masks.supervised_mask_term, dice.dice_losses),
    (masks.box_mask_terms, projection.projection_losses),
    (masks._pairwise_mean, pairwise.pairwise_sums),
    (masks.depth_term, depth.depth_loss),
]


def called(function: Callable) -> list[ast.expr]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize(
    ("caller", "callee"), CALLS, ids=[f"{a.__qualname__}-{b.__name__}" for a, b in CALLS]
)
def test_a_call_names_what_it_calls(caller: Callable, callee: Callable) -> None:
    names = {node.id for node in called(caller) if isinstance(node, ast.Name)}
    assert callee.__name__ in names
    where = inspect.getmodule(caller)
    assert inspect.unwrap(getattr(where, callee.__name__)) is inspect.unwrap(callee)


def test_methods_on_the_way_belong_to_annotated_classes() -> None:
    """`teacher.masks` and `network(...)`: the one is a `Teacher`, the other a module."""
    hints = typing.get_type_hints(step.step_losses)
    assert teacher.Teacher in typing.get_args(hints["teacher"])
    learner = typing.get_type_hints(update.Learner)
    assert teacher.Teacher in typing.get_args(learner["teacher"])


def test_the_learner_holds_no_function_that_was_made_elsewhere() -> None:
    hints = typing.get_type_hints(update.Learner)
    origins = {f.name: typing.get_origin(hints[f.name]) for f in fields(update.Learner)}
    assert Callable not in origins.values()
    rules = typing.get_type_hints(step.StepRules)
    assert Callable not in {typing.get_origin(hint) for hint in rules.values()}
