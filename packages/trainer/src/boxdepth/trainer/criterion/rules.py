"""What the criterion can be told, and the factor of each term at a step."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from boxdepth.trainer.config.settings import NonNegative, Settings, Supervision, Weight
from boxdepth.trainer.losses.rules import BoxLoss, Reduction
from boxdepth.trainer.targets.rules import PAIR_TERMS, PairRule, Sampling

Quality = Literal["centerness", "iou"]

_SETTING_OF = {"pseudo_mask": "gamma", "mask_affinity": "mask_affinity"}
"""Where the weight of a teacher's term stands in its settings."""


class Losses(Settings):
    """Weights and warm-ups; a weight of 0 switches a term off."""

    classification: Weight = 1.0
    box: Weight = 1.0
    quality: Weight = 1.0
    semantic: Weight = 1.0
    mask: Weight = 1.0
    """Dice with the ground-truth mask, where masks are supervised."""
    projection: Weight = 1.0
    color: Weight = 1.0
    depth: Weight = 1.0
    """L_depth: the depth layer against the pseudo depth, inside the box."""
    consistency: Weight = 1.0
    """L_cons: the pairwise term over depth-trusted pairs."""
    box_loss: BoxLoss = "giou"
    class_normalizer: Literal["positives", "locations"] = "positives"
    warmup_iterations: NonNegative = 10_000
    """W: colour ramps up over 0..W, consistency over W..2W."""
    consistency_warmup: Literal["after_color", "none"] = "after_color"
    consistency_region: Literal["box", "image"] = "box"
    depth_reduction: Reduction = "pixels"
    """Mean over all in-box pixels of the batch, or of each instance first."""
    sampling: Sampling = Sampling()
    pairs: PairRule = PairRule()


class PseudoTerms(Settings):
    """Weights of what is learnt from a teacher's masks, and from when on."""

    method: Literal["off", "depth_matching", "box_teacher"] = "off"
    start: NonNegative = 65_000
    """t0: first step (0-based) with a teacher."""
    gamma: Weight = 4.0
    """Weight of the dice loss with the pseudo masks (arXiv 2403.01214, section 3.4)."""
    mask_affinity: Weight = 0.0
    """Weight of BoxTeacher's mask affinity term."""

    def weights(self) -> dict[str, float]:
        """Of the two terms; 0 without a teacher."""
        on = self.method != "off"
        return {"pseudo_mask": self.gamma * on, "mask_affinity": self.mask_affinity * on}


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRules:
    """All that decides which terms there are and what they weigh."""

    losses: Losses = field(default_factory=Losses)
    pseudo: PseudoTerms = field(default_factory=PseudoTerms)
    supervision: Supervision = "boxes"
    quality: Quality = "centerness"

    @property
    def pair_terms(self) -> tuple[str, ...]:
        """The terms that learn from trusted pairs."""
        if self.supervision == "masks":
            return ()
        return tuple(term for term in PAIR_TERMS if getattr(self.losses, term))

    def begun(self, step: int) -> "LossRules":
        """The same without the terms that weigh nothing yet at a 0-based step."""
        factors = factors_at(self, step)
        return _without(self, frozenset(name for name, factor in factors.items() if not factor))


def factors_at(rules: LossRules, step: int) -> dict[str, float]:
    """Weight times warm-up of every term at a 0-based step.

    Colour: min(t / W, 1).  Consistency: 0 up to W, then min((t - W) / W, 1) (method.md 4.4).
    BoxTeacher's terms ramp up from the teacher's first step on (arXiv 2210.05174).
    """
    losses, pseudo = rules.losses, rules.pseudo
    width = losses.warmup_iterations
    color, consistency, taught = _ramp(step + 1, width), 1.0, 1.0
    if losses.consistency_warmup == "after_color":
        consistency = _ramp(step + 1 - width, width)
    if pseudo.method == "box_teacher":
        taught = _ramp(step + 1 - pseudo.start, width)
    return {
        "classification": losses.classification,
        "box": losses.box,
        "quality": losses.quality,
        "semantic": losses.semantic,
        "mask": losses.mask,
        "projection": losses.projection,
        "color": losses.color * color,
        "depth": losses.depth,
        "consistency": losses.consistency * consistency,
        **{name: weight * taught for name, weight in pseudo.weights().items()},
    }


@lru_cache(maxsize=8)
def _without(rules: LossRules, terms: frozenset[str]) -> LossRules:
    """The same with these terms switched off."""
    losses = {name: 0.0 for name in terms if name in Losses.model_fields}
    pseudo = {_SETTING_OF[name]: 0.0 for name in terms if name in _SETTING_OF}
    return replace(
        rules, losses=rules.losses.changed(**losses), pseudo=rules.pseudo.changed(**pseudo)
    )


def _ramp(t: int, iterations: int) -> float:
    if iterations == 0:
        return 1.0
    return min(max(t / iterations, 0.0), 1.0)
