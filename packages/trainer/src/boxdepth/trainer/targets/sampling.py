"""Which of the positive locations learn a mask."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxdepth.trainer.geometry.levels import gather_rows
from boxdepth.trainer.structures import DenseOutputs, Positives, Targets
from boxdepth.trainer.targets.rules import Sampling


def select_positives(
    targets: Targets, outputs: DenseOutputs, sampling: Sampling, *, num_boxes: int
) -> Positives:
    """Locations whose masks are trained.

    Args:
        num_boxes: boxes of the batch.
    """
    rows = targets.positives
    num_images = outputs.mask_features.shape[0]
    if sampling.per_image is not None:
        kept, counts = best_of_each_box(
            _location_scores(outputs, rows, targets.level[rows]),
            targets.box_index[rows],
            targets.image_index[rows],
            num_boxes=num_boxes,
            num_images=num_images,
            per_image=sampling.per_image,
        )
        rows = rows[kept]
    else:
        if sampling.per_batch is not None and len(rows) > sampling.per_batch:
            rows = rows[torch.randperm(len(rows), device=rows.device)[: sampling.per_batch]]
        counts = tuple(_counted(targets.image_index[rows], num_images).tolist())
    return Positives(
        location_xy=targets.location_xy[rows],
        level=targets.level[rows],
        box_index=targets.box_index[rows],
        image_index=targets.image_index[rows],
        params=outputs.controller.at(rows, targets.level[rows]),
        counts=counts,
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
    num_images: int,
    per_image: int,
) -> tuple[Int64[Tensor, " s"], tuple[int, ...]]:
    """(locations that BoxInst keeps, how many of each image).

    Indices by box; a cut box's by score, else as given.  A device is waited for once.
    """
    position = torch.arange(len(scores), device=scores.device)
    count = _counted(box_index, num_boxes)
    image_of_box = torch.zeros_like(count).index_copy_(0, box_index, image_index)
    boxes = count.new_zeros(num_images).index_add_(0, image_of_box, (count > 0).to(count.dtype))
    limit = (per_image // boxes[image_of_box].clamp(min=1)).clamp(min=1)
    by_score = _grouped(box_index, scores.argsort(descending=True, stable=True))
    rank = torch.empty_like(position)
    first = count.cumsum(0) - count
    rank[by_score] = position - first[box_index[by_score]]
    cut = (count > limit)[box_index]
    order = _grouped(box_index, torch.where(cut, rank, position).argsort(stable=True))
    per_box = torch.minimum(count, limit)
    kept = count.new_zeros(num_images).index_add_(0, image_of_box, per_box).tolist()
    left = rank[order] >= limit[box_index[order]]
    return order[left.argsort(stable=True)[: sum(kept)]], tuple(kept)


def _counted(index: Int64[Tensor, " p"], size: int) -> Int64[Tensor, " size"]:
    """bincount, without waiting for the largest index."""
    return index.new_zeros(size).index_add_(0, index, torch.ones_like(index))


def _grouped(group: Int64[Tensor, " p"], order: Int64[Tensor, " p"]) -> Int64[Tensor, " p"]:
    """The same order within every group, groups ascending."""
    return order[group[order].argsort(stable=True)]
