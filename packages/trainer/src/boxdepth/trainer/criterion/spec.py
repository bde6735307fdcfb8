"""What the criterion can be told, and the factor of each term at a step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Terms = dict[str, Tensor]
Normaliser = Callable[[Tensor], Tensor]
"""Mean over all ranks of a number of this rank; the identity without other ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSpec:
    """Weights, warm-ups and choices; a weight of 0 switches its term off."""

    supervision: Literal["boxes", "masks", "mixed"] = "boxes"
    classification: float = 1.0
    box: float = 1.0
    quality: float = 1.0
    semantic: float = 0.0
    mask: float = 1.0
    projection: float = 1.0
    color: float = 1.0
    depth: float = 1.0
    consistency: float = 1.0
    pseudo_mask: float = 0.0
    """gamma of arXiv 2403.01214, section 3.4."""
    mask_affinity: float = 0.0
    quality_target: Literal["centerness", "iou"] = "centerness"
    box_loss: Literal["giou", "iou", "linear_iou"] = "giou"
    class_normalizer: Literal["positives", "locations"] = "positives"
    warmup_iterations: int = 10_000
    consistency_warmup: Literal["after_color", "none"] = "after_color"
    consistency_region: Literal["box", "image"] = "box"
    depth_reduction: Literal["pixels", "instances"] = "pixels"
    pseudo_warmup_start: int | None = None
    """Step from which the pseudo-mask terms ramp up (BoxTeacher); None: full weight at once."""
    kernel_size: int = 3
    dilation: int = 2


def factors_at(spec: LossSpec, step: int) -> dict[str, float]:
    """Weight times warm-up of every term at a 0-based step.

    Colour: min(t / W, 1).  Consistency: 0 up to W, then min((t - W) / W, 1) (method.md 4.4).
    """
    color = _ramp(step + 1, spec.warmup_iterations)
    consistency = 1.0
    if spec.consistency_warmup == "after_color":
        consistency = _ramp(step + 1 - spec.warmup_iterations, spec.warmup_iterations)
    pseudo = 1.0
    if spec.pseudo_warmup_start is not None:
        pseudo = _ramp(step + 1 - spec.pseudo_warmup_start, spec.warmup_iterations)
    return {
        "classification": spec.classification,
        "box": spec.box,
        "quality": spec.quality,
        "semantic": spec.semantic,
        "mask": spec.mask,
        "projection": spec.projection,
        "color": spec.color * color,
        "depth": spec.depth,
        "consistency": spec.consistency * consistency,
        "pseudo_mask": spec.pseudo_mask * pseudo,
        "mask_affinity": spec.mask_affinity * pseudo,
    }


def _ramp(t: int, iterations: int) -> float:
    if iterations == 0:
        return 1.0
    return min(max(t / iterations, 0.0), 1.0)
