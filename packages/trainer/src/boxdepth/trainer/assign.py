"""Which location learns which box (FCOS, arXiv 1904.01355), and which of them learn a mask."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxdepth.trainer.geometry.boxes import box_areas, boxes_to_ltrb
from boxdepth.trainer.geometry.grid import pyramid_locations
from boxdepth.trainer.structures import FPN_STRIDES, DenseOutputs, Positives, Targets

CROWDED = 1e8
"""Upper end of the last level's range, in pixels (condinst.md 2.1)."""


@torch.no_grad()
def assign_targets(
    boxes_xyxy: Float[Tensor, "m 4"],
    labels: Int64[Tensor, " m"],
    image_index: Int64[Tensor, " m"],
    centers_xy: Float[Tensor, "m 2"],
    *,
    num_images: int,
    num_classes: int,
    level_shapes: Sequence[tuple[int, int]],
    strides: Sequence[int] = FPN_STRIDES,
    center_radius: float | None = 1.5,
    level_ranges: Sequence[int] = (64, 128, 256, 512),
) -> Targets:
    """FCOS targets of every location of a batch; order: level, image, row, column.

    A location may learn a box if it lies strictly inside the square of ``center_radius`` strides
    around the box's centre, cut to the box, and its farthest side lies within the level's range,
    both ends included.  Of several boxes the smallest wins, then the first (condinst.md 2.1).

    Args:
        boxes_xyxy: boxes of all images, in pixels of the padded input.
        image_index: the image of each box.
        centers_xy: centre of each box's sampling region.
        num_classes: the label of background.
        center_radius: None admits every location inside the box.
        level_ranges: borders in pixels between the sizes that successive levels regress.
    """
    location_xy, level = pyramid_locations(level_shapes, strides=strides, device=boxes_xyxy.device)
    matched = torch.full((num_images, len(level)), -1, dtype=torch.int64, device=boxes_xyxy.device)
    if len(boxes_xyxy):
        cost = _costs(
            location_xy,
            level,
            boxes_xyxy,
            centers_xy,
            strides=strides,
            center_radius=center_radius,
            level_ranges=level_ranges,
        )
        for image in range(num_images):
            own = cost.masked_fill(image_index != image, torch.inf)
            area, index = own.min(dim=1)
            matched[image] = torch.where(area.isfinite(), index, -1)
    cells = [height * width for height, width in level_shapes]
    box_index = torch.cat([part.flatten() for part in torch.split(matched, cells, dim=1)])
    images = torch.arange(num_images, device=level.device)
    return Targets(
        label=_labels(box_index, labels, num_classes),
        box_index=box_index,
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
    boxes_xyxy: Float[Tensor, "m 4"],
    centers_xy: Float[Tensor, "m 2"],
    *,
    strides: Sequence[int],
    center_radius: float | None,
    level_ranges: Sequence[int],
) -> Float[Tensor, "l m"]:
    """Area of each box a location may learn, infinity for the others."""
    x, y = location_xy[:, :1], location_xy[:, 1:]
    left, top, right, bottom = boxes_xyxy.unbind(1)
    farthest = torch.maximum(torch.maximum(x - left, right - x), torch.maximum(y - top, bottom - y))
    limits = location_xy.new_tensor([-1, *level_ranges, CROWDED])
    candidate = (farthest >= limits[level][:, None]) & (farthest <= limits[level + 1][:, None])
    if center_radius is not None:
        reach = center_radius * location_xy.new_tensor(strides)[level][:, None]
        center_x, center_y = centers_xy.unbind(1)
        left = torch.maximum(left, center_x - reach)
        right = torch.minimum(right, center_x + reach)
        top = torch.maximum(top, center_y - reach)
        bottom = torch.minimum(bottom, center_y + reach)
    candidate &= (x > left) & (x < right) & (y > top) & (y < bottom)
    return torch.where(candidate, box_areas(boxes_xyxy), torch.inf)


def regression_targets(
    targets: Targets, rows: Int64[Tensor, " p"], boxes_xyxy: Float[Tensor, "m 4"]
) -> Float[Tensor, "p 4"]:
    """Distances in pixels from positive locations to the sides of their boxes."""
    return boxes_to_ltrb(targets.location_xy[rows], boxes_xyxy[targets.box_index[rows]])


def centerness(ltrb: Float[Tensor, "p 4"]) -> Float[Tensor, " p"]:
    """sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)), 1 in the middle of the box."""
    left, top, right, bottom = ltrb.unbind(1)
    horizontal = torch.minimum(left, right) / torch.maximum(left, right)
    vertical = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (horizontal * vertical).sqrt()


def positive_rows(targets: Targets) -> Int64[Tensor, " p"]:
    """Rows of the locations that learn a box, in the targets' order."""
    return (targets.box_index >= 0).nonzero()[:, 0]


def flatten_levels(maps: Sequence[Float[Tensor, "b c _ _"]]) -> Float[Tensor, "r c"]:
    """One row per location; order: level, image, row, column."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in maps])


def gather_rows(
    maps: Sequence[Float[Tensor, "b c _ _"]], rows: Int64[Tensor, " p"], level: Int64[Tensor, " p"]
) -> Float[Tensor, "p c"]:
    """`flatten_levels` at ``rows`` (each of the given level) without flattening wide maps.

    Every level is asked for all rows, those of other levels at its first cell: a few reads more,
    but no sizes that an accelerator would have to wait for.
    """
    out = maps[0].new_zeros(len(rows), maps[0].shape[1])
    start = 0
    for number, feature in enumerate(maps):
        height, width = feature.shape[-2:]
        own = level == number
        local = torch.where(own, rows - start, 0)
        image, cell = local // (height * width), local % (height * width)
        values = feature[image, :, cell // width, cell % width]
        out = torch.where(own[:, None], values, out)
        start += feature.shape[0] * height * width
    return out


def select_positives(
    targets: Targets,
    outputs: DenseOutputs,
    *,
    num_boxes: int,
    per_image: int | None = 64,
    per_batch: int | None = None,
) -> Positives:
    """Locations whose masks are trained (condinst.md 4.1).

    Args:
        num_boxes: boxes of the batch.
        per_image: BoxInst's sampling: each box of an image keeps its best locations by class score
            x quality, max(per_image // boxes with a positive, 1) of them.
        per_batch: CondInst's sampling: this many positives of the batch at random.

    Raises:
        ValueError: both kinds of sampling at once.
    """
    if per_image is not None and per_batch is not None:
        raise ValueError("sample positives per image or per batch, not both")
    rows = positive_rows(targets)
    if per_image is not None:
        scores = _location_scores(outputs, rows, targets.level[rows])
        rows = rows[
            best_of_each_box(
                scores,
                targets.box_index[rows],
                targets.image_index[rows],
                num_boxes=num_boxes,
                per_image=per_image,
            )
        ]
    elif per_batch is not None and len(rows) > per_batch:
        rows = rows[torch.randperm(len(rows), device=rows.device)[:per_batch]]
    return Positives(
        location_xy=targets.location_xy[rows],
        level=targets.level[rows],
        box_index=targets.box_index[rows],
        image_index=targets.image_index[rows],
        params=gather_rows(outputs.controller, rows, targets.level[rows]),
    )


@torch.no_grad()
def _location_scores(
    outputs: DenseOutputs, rows: Int64[Tensor, " p"], level: Int64[Tensor, " p"]
) -> Float[Tensor, " p"]:
    """Best class score times quality."""
    best = gather_rows(outputs.class_logits, rows, level).float().amax(dim=1)
    quality = gather_rows(outputs.quality_logits, rows, level).float()[:, 0]
    return best.sigmoid() * quality.sigmoid()


def best_of_each_box(
    scores: Float[Tensor, " p"],
    box_index: Int64[Tensor, " p"],
    image_index: Int64[Tensor, " p"],
    *,
    num_boxes: int,
    per_image: int,
) -> Int64[Tensor, " s"]:
    """Indices of the locations that BoxInst keeps, by box; a cut box's by score, else as given."""
    position = torch.arange(len(scores), device=scores.device)
    count = _counted(box_index, num_boxes)
    image_of_box = torch.zeros_like(count).index_copy_(0, box_index, image_index)
    images = torch.zeros_like(count).index_add_(0, image_of_box, (count > 0).to(count.dtype))
    limit = (per_image // images[image_of_box].clamp(min=1)).clamp(min=1)
    by_score = _grouped(box_index, scores.argsort(descending=True, stable=True))
    rank = torch.empty_like(position)
    first = count.cumsum(0) - count
    rank[by_score] = position - first[box_index[by_score]]
    cut = (count > limit)[box_index]
    order = _grouped(box_index, torch.where(cut, rank, position).argsort(stable=True))
    return order[rank[order] < limit[box_index[order]]]


def _counted(index: Int64[Tensor, " p"], size: int) -> Int64[Tensor, " size"]:
    """bincount, without waiting for the largest index."""
    return index.new_zeros(size).index_add_(0, index, torch.ones_like(index))


def _grouped(group: Int64[Tensor, " p"], order: Int64[Tensor, " p"]) -> Int64[Tensor, " p"]:
    """The same order within every group, groups ascending."""
    return order[group[order].argsort(stable=True)]
