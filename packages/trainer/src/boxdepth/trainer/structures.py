"""The nouns that flow through the trainer, from a stored image to a detection.

Letters of the shapes: ``b`` images of a batch, ``h w`` the padded input, ``hl wl`` one pyramid
level, ``hm wm`` the mask grid (stride 4), ``h8 w8`` the mask features' grid (stride 8), ``n`` boxes
of one image, ``m`` boxes of a batch, ``r`` locations of a batch (order: level, image, row, column),
``p`` sampled positive locations, ``q`` dynamic parameters, ``c`` mask features, ``d`` detections.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

FPN_STRIDES = (8, 16, 32, 64, 128)
"""Strides of p3..p7 in input pixels."""

MASK_STRIDE = 4
"""Stride of everything the mask losses touch, in input pixels."""

DEPTH_STEP = 2
"""Pixels between two depths that matching by depth compares, to the right."""

MASK_FEATURE_STRIDE = 8
"""Stride of the mask branch's features, in input pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One augmented image with all that was stored about it."""

    image: UInt8[Tensor, "3 h w"]
    """RGB, 0..255."""
    inverse_depth: Float[Tensor, "1 hd wd"]
    """Relative inverse depth in 8-bit units, 0 (farthest) .. 255 (nearest); NaN where a sensor saw
    nothing.  Of every pixel, or the means over the cells of the mask grid (``depth_stride`` 4)."""
    depth_valid: bool
    """False: the store holds no usable depth for this image."""
    boxes_xyxy: Float[Tensor, "n 4"]
    labels: Int64[Tensor, " n"]
    masks: Bool[Tensor, "n hm wm"] | None
    """Ground-truth masks read at (4i + 2, 4j + 2); None where masks are not supervised."""
    has_mask: Bool[Tensor, " n"]
    centers_xy: Float[Tensor, "n 2"]
    """Centre of the FCOS sampling region: of the box, or the centroid of the mask, in pixels."""
    bottom_rows_removed: int
    """Rows at the bottom of the resized image in which no neighbour pair is trusted."""
    image_id: int
    student_image: UInt8[Tensor, "3 h w"] | None = None
    """What the student sees, where its colours are changed; None: ``image``."""
    depth_stride: int = 1
    """Of ``inverse_depth``, in pixels of ``image``: 1 or `MASK_STRIDE`."""
    depth_steps: Float[Tensor, "2 hm wm"] | None = None
    """Inverse depth at pixel (4i + 2, 4j + 2) and `DEPTH_STEP` to the right of it; None: not
    wanted, or read from the ``inverse_depth`` of every pixel."""
    cut: Bool[Tensor, "n 4"] | None = None
    """Sides (left, top, right, bottom) at which a box goes on beyond the tile; None: no tile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images padded at the right and bottom to a common multiple of 32, boxes concatenated."""

    images: UInt8[Tensor, "b 3 h w"]
    """RGB, 0..255, padded with 0. The model normalises them (and pads with 0 after that)."""
    sizes: Int64[Tensor, "b 2"]
    """(height, width) of the unpadded images."""
    valid: Bool[Tensor, "b h w"]
    """True inside the image and above the removed bottom rows: a neighbour there can be trusted."""
    inverse_depth: Float[Tensor, "b 1 hd wd"]
    """0..255, padded with 0; NaN where a sensor saw nothing.  Of every pixel ``[b 1 h w]``, or on
    the mask grid ``[b 1 hm wm]`` where nothing reads it finer."""
    depth_valid: Bool[Tensor, " b"]
    boxes_xyxy: Float[Tensor, "m 4"]
    labels: Int64[Tensor, " m"]
    image_index: Int64[Tensor, " m"]
    """Image of each box, ascending."""
    centers_xy: Float[Tensor, "m 2"]
    masks: Bool[Tensor, "m hm wm"] | None
    has_mask: Bool[Tensor, " m"]
    image_ids: tuple[int, ...]
    semantic_labels: Int64[Tensor, "b h8 w8"] | None = None
    """Class of the smallest mask at (8i + 4, 8j + 4), or the number of classes, for CondInst's
    semantic loss; None: taken from ``masks``, two pixels off."""
    student_images: UInt8[Tensor, "b 3 h w"] | None = None
    """What the student sees, where its colours are changed; None: ``images``."""
    depth_steps: Float[Tensor, "b 2 hm wm"] | None = None
    """As in `Sample`, padded with 0."""
    frames: tuple[tuple[int, int], ...] = ()
    """``sizes`` on the host, so that nobody has to wait for a device to know them."""
    counts: tuple[int, ...] = ()
    """Boxes of each image, on the host."""
    cut: Bool[Tensor, "m 4"] | None = None
    """Sides (left, top, right, bottom) that a tile's edge cuts off; None: no box is cut."""

    def __post_init__(self) -> None:
        """Read on the host what was not given."""
        if not self.frames:
            frames = tuple((int(h), int(w)) for h, w in self.sizes.tolist())
            object.__setattr__(self, "frames", frames)
        if not self.counts:
            counts = torch.bincount(self.image_index, minlength=len(self.images)).tolist()
            object.__setattr__(self, "counts", tuple(counts))

    @property
    def ground_truth(self) -> "GroundTruth":
        """What the detector learns from the batch."""
        return GroundTruth(
            boxes_xyxy=self.boxes_xyxy,
            labels=self.labels,
            image_index=self.image_index,
            centers_xy=self.centers_xy,
            num_images=len(self.images),
            counts=self.counts,
        )

    def pinned(self) -> "Batch":
        """The same batch in page-locked memory, from which a device copies without a wait."""
        return replace(self, **_each_field(self, lambda value: value.pin_memory()))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same batch with every tensor on ``device``."""
        return replace(
            self,
            **_each_field(self, lambda value: value.to(device, non_blocking=non_blocking)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruth:
    """The boxes of a batch."""

    boxes_xyxy: Float[Tensor, "m 4"]
    labels: Int64[Tensor, " m"]
    image_index: Int64[Tensor, " m"]
    """Image of each box, ascending."""
    centers_xy: Float[Tensor, "m 2"]
    """Centre of each box's sampling region."""
    num_images: int
    counts: tuple[int, ...] = ()
    """Boxes of each image, on the host; empty: to be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskGrid:
    """What a batch looks like on the mask grid."""

    box_bitmaps: Bool[Tensor, "m hm wm"]
    valid: Bool[Tensor, "b hm wm"]
    """A neighbour there can be trusted."""
    inverse_depth: Float[Tensor, "b 1 hm wm"]
    """0..255, means over 4x4 pixels; NaN where one of them was not measured: no pair with such a
    cell is trusted."""
    depth_valid: Bool[Tensor, " b"]
    lab: Float[Tensor, "b 3 hm wm"]
    """CIE LAB of the means over 4x4 pixels of the image as it is (not of the student's view)."""


class DynamicParameters(Protocol):
    """What the controller predicts, asked at a few locations of all."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that the parameters are made of, for whoever needs them in a graph."""

    def at(self, rows: Int64[Tensor, " p"], level: Int64[Tensor, " p"]) -> Float[Tensor, "p q"]:
        """The parameters at rows (order: level, image, row, column), each of the given level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseOutputs:
    """What the network says at every location of p3..p7, and the mask features."""

    class_logits: tuple[Float[Tensor, "b cls _ _"], ...]
    ltrb: tuple[Float[Tensor, "b 4 _ _"], ...]
    """Distances to the left, top, right and bottom side, in input pixels, >= 0."""
    quality_logits: tuple[Float[Tensor, "b 1 _ _"], ...]
    """Centre-ness or IoU, by the configured quality."""
    controller: "DynamicParameters"
    mask_features: Float[Tensor, "b c h8 w8"]
    semantic_logits: Float[Tensor, "b cls h8 w8"] | None = None

    @property
    def level_shapes(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each level."""
        return tuple((int(x.shape[-2]), int(x.shape[-1])) for x in self.class_logits)

    @property
    def num_classes(self) -> int:
        """Classes that are told apart; also the label of background."""
        return int(self.class_logits[0].shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """FCOS targets of every location of a batch; order: level, image, row, column."""

    label: Int64[Tensor, " r"]
    """Class, or the number of classes for background."""
    box_index: Int64[Tensor, " r"]
    """Row of ``Batch.boxes_xyxy``; -1 for background."""
    positives: Int64[Tensor, " p"]
    """Rows of the locations that learn a box, ascending."""
    location_xy: Float[Tensor, "r 2"]
    """Input pixels."""
    level: Int64[Tensor, " r"]
    image_index: Int64[Tensor, " r"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Positives:
    """Locations whose masks are trained (or, at inference, whose masks are wanted)."""

    location_xy: Float[Tensor, "p 2"]
    level: Int64[Tensor, " p"]
    box_index: Int64[Tensor, " p"]
    image_index: Int64[Tensor, " p"]
    params: Float[Tensor, "p q"]
    counts: tuple[int, ...] = ()
    """Of each image, on the host; empty: to be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskOutputs:
    """Output of the dynamic mask head on the mask grid."""

    logits: Float[Tensor, "p 1 hm wm"]
    depth: Float[Tensor, "p 1 hm wm"] | None
    """Predicted inverse depth in (0, 1), already through its sigmoid; None without depth layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedPairs:
    """Neighbour pairs that one source believes to share a label; no gradient."""

    source: str
    """Who believes it: color, depth."""
    term: str
    """The loss term that learns from it: color, consistency."""
    pairs: Bool[Tensor, "b k hm wm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoMasks:
    """The teacher's mask for each ground-truth box of a batch."""

    mask: Float[Tensor, "m hm wm"]
    """Inside the box only; 0 or 1, or probabilities if kept soft."""
    score: Float[Tensor, " m"]
    """Matching score; -1 where no candidate was matched."""
    keep: Bool[Tensor, " m"]
    """True: reliable enough to be learnt from."""
    weight: Float[Tensor, " m"]
    """Weight of the box's mask loss (1 in arXiv 2403.01214, the mask's quality in BoxTeacher)."""

    @classmethod
    def cat(cls, parts: "Sequence[PseudoMasks]") -> "PseudoMasks":
        """Those of several images, one after the other; at least one part."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTerms:
    """Unweighted loss terms and the factor (weight x warm-up) of each at this step."""

    values: dict[str, Float[Tensor, ""]]
    factors: dict[str, float]
    monitors: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Numbers worth watching that no gradient flows from (active pairs, mask/box area...)."""
    idle: Float[Tensor, ""] | None = None
    """0, in the graph of outputs that no active term looks at; None if there are none."""

    def total(self) -> Float[Tensor, ""]:
        """Sum of the weighted terms.  A factor of 0 leaves its term out of the graph's sum."""
        active = {name: factor for name, factor in self.factors.items() if factor}
        terms = [factor * self.values[name] for name, factor in active.items()]
        return torch.stack(terms if self.idle is None else [*terms, self.idle]).sum()


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """Detections of one image in decreasing order of score."""

    boxes_xyxy: Float[Tensor, "d 4"]
    """In pixels of ``size``."""
    scores: Float[Tensor, " d"]
    labels: Int64[Tensor, " d"]
    location_xy: Float[Tensor, "d 2"]
    """Location that made each box, in pixels of the network's input."""
    level: Int64[Tensor, " d"]
    params: Float[Tensor, "d q"]
    size: tuple[int, int]
    """(height, width) of the frame of the boxes."""
    cut: bool = False
    """More was found than the limits let through."""

    def take(self, rows: Int64[Tensor, " k"]) -> "Detections":
        """Some of the detections, in the order of ``rows``."""
        return replace(self, **_each_field(self, lambda value: value[rows]))


def _each_field(value: Any, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Every tensor of a dataclass after a change."""
    found = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: change(part) for name, part in found.items() if isinstance(part, Tensor)}
