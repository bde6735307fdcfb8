"""Which location learns which box (FCOS, arXiv 1904.01355)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxdepth.trainer.geometry.boxes import box_areas, boxes_to_ltrb
from boxdepth.trainer.geometry.constants import constant
from boxdepth.trainer.geometry.grid import pyramid_locations
from boxdepth.trainer.structures import FPN_STRIDES, GroundTruth, Targets
from boxdepth.trainer.targets.rules import Assignment

CROWDED = 1e8
"""Upper end of the last level's range, in pixels (condinst.md 2.1)."""


@torch.no_grad()
def assign_targets(
    boxes: GroundTruth,
    level_shapes: Sequence[tuple[int, int]],
    rule: Assignment,
    *,
    num_classes: int,
) -> Targets:
    """FCOS targets of every location of a batch; order: level, image, row, column.

    A location may learn a box if it lies strictly inside the square of ``center_radius`` strides
    around the box's centre, cut to the box, and its farthest side lies within the level's range,
    both ends included.  Of several boxes the smallest wins, then the first (condinst.md 2.1).

    Args:
        boxes: of all images, in pixels of the padded input.
        num_classes: the label of background.
    """
    device, num_images = boxes.boxes_xyxy.device, boxes.num_images
    location_xy, level = pyramid_locations(level_shapes, strides=FPN_STRIDES, device=device)
    matched = torch.full((num_images, len(level)), -1, dtype=torch.int64, device=device)
    counts = boxes.counts
    if not counts:
        counts = tuple(torch.bincount(boxes.image_index, minlength=num_images).tolist())
    first = 0
    for image, count in enumerate(counts):
        if count:
            own = slice(first, first + count)
            cost = _costs(location_xy, level, boxes.boxes_xyxy[own], boxes.centers_xy[own], rule)
            area, index = cost.min(dim=1)
            matched[image] = torch.where(area.isfinite(), index + first, -1)
        first += count
    cells = [height * width for height, width in level_shapes]
    box_index = torch.cat([part.flatten() for part in torch.split(matched, cells, dim=1)])
    images = torch.arange(num_images, device=device)
    return Targets(
        label=_labels(box_index, boxes.labels, num_classes),
        box_index=box_index,
        positives=(box_index >= 0).nonzero()[:, 0],
        location_xy=torch.cat(
            [part.repeat(num_images, 1) for part in torch.split(location_xy, cells)]
        ),
        level=torch.cat([part.repeat(num_images) for part in torch.split(level, cells)]),
        image_index=torch.cat([images.repeat_interleave(count) for count in cells]),
    )


def _labels(
    box_index: Int64[Tensor, " r"], labels: Int64[Tensor, " m"], num_classes: int
) -> Int64[Tensor, " r"]:
    """Class of each location; an extra row past the last box, reached by -1, is background."""
    background = labels.new_full((1,), num_classes)
    return torch.cat([labels, background])[box_index]


def _costs(
    location_xy: Float[Tensor, "l 2"],
    level: Int64[Tensor, " l"],
    boxes_xyxy: Float[Tensor, "n 4"],
    centers_xy: Float[Tensor, "n 2"],
    rule: Assignment,
) -> Float[Tensor, "l n"]:
    """Area of each box of an image that a location may learn, infinity for the others."""
    x, y = location_xy[:, :1], location_xy[:, 1:]
    left, top, right, bottom = boxes_xyxy.unbind(1)
    farthest = torch.maximum(torch.maximum(x - left, right - x), torch.maximum(y - top, bottom - y))
    limits = constant((-1.0, *map(float, rule.level_ranges), CROWDED), location_xy.device)
    candidate = (farthest >= limits[level][:, None]) & (farthest <= limits[level + 1][:, None])
    if rule.center_radius is not None:
        strides = constant(tuple(map(float, FPN_STRIDES)), location_xy.device)
        reach = rule.center_radius * strides[level][:, None]
        center_x, center_y = centers_xy.unbind(1)
        left = torch.maximum(left, center_x - reach)
        right = torch.minimum(right, center_x + reach)
        top = torch.maximum(top, center_y - reach)
        bottom = torch.minimum(bottom, center_y + reach)
    candidate &= (x > left) & (x < right) & (y > top) & (y < bottom)
    return torch.where(candidate, box_areas(boxes_xyxy), torch.inf)


def regression_targets(targets: Targets, boxes_xyxy: Float[Tensor, "m 4"]) -> Float[Tensor, "p 4"]:
    """Distances in pixels from positive locations to the sides of their boxes."""
    rows = targets.positives
    return boxes_to_ltrb(targets.location_xy[rows], boxes_xyxy[targets.box_index[rows]])


def centerness(ltrb: Float[Tensor, "p 4"]) -> Float[Tensor, " p"]:
    """sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)), 1 in the middle of the box."""
    left, top, right, bottom = ltrb.unbind(1)
    horizontal = torch.minimum(left, right) / torch.maximum(left, right)
    vertical = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (horizontal * vertical).sqrt()
