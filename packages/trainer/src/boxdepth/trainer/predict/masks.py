"""Detections -> masks at the original size."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from boxdepth.trainer.geometry.boxes import clip_boxes, rescale_boxes
from boxdepth.trainer.geometry.resize import LinearResize, mask_to_image
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec, mask_probabilities
from boxdepth.trainer.model.rules import Inference
from boxdepth.trainer.model.scores import mask_quality, rescored
from boxdepth.trainer.predict.quality import CueReader, cell_colors
from boxdepth.trainer.predict.results import Instances, Rle, encode_rle
from boxdepth.trainer.structures import (
    MASK_FEATURE_STRIDE,
    MASK_STRIDE,
    DenseOutputs,
    Detections,
)

MaskPart = tuple[Bool[np.ndarray, "_ _"], tuple[int, int]]
"""The part of a mask that isn't empty, and its first row and column in the original image."""

WHOLE_PIXELS = 1e-2
"""Pixels by which a border may lie beyond a pixel's edge and still count as on it: boxes have been
scaled to the network's input and back, in 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How masks are finished."""

    settings: Inference = field(default_factory=Inference)
    """Their threshold, and whether scores become sqrt(score x mask quality) (arXiv 2210.05174);
    the order stays."""
    crop: bool = False
    """Cut each mask at its detection's box."""
    drop_empty_boxes: bool = True
    """Leave out detections whose clipped box has no area."""
    chunk: int = 32
    """Instances at a time; bounds the memory: about 40 bytes a cell of the mask grid for each."""


@torch.no_grad()
def predict_masks(
    outputs: DenseOutputs,
    detections: Sequence[Detections],
    spec: MaskHeadSpec,
    finish: Finish = Finish(),
    *,
    original_sizes: Sequence[tuple[int, int]],
    images: UInt8[Tensor, "b 3 h w"] | None = None,
) -> list[Instances]:
    """Masks of all detections at the original size, as RLE.

    Probabilities at stride 4 are upsampled by the aligned bilinear, cut to the unpadded input and
    resized bilinearly to the original size, in one product of two thin matrices; only the part
    that can exceed the threshold is computed (condinst.md 5).

    Args:
        original_sizes: (height, width) of every image before it was resized for the network.
        images: the network's input; with it the cues to each mask's quality are read.
    """
    threshold = finish.settings.mask_threshold
    return [
        _finished(
            outputs.mask_features[image : image + 1],
            found,
            spec,
            finish,
            original=original,
            cues=None
            if images is None
            else CueReader(colors=cell_colors(images[image]), threshold=threshold),
        )
        for image, (found, original) in enumerate(zip(detections, original_sizes, strict=True))
    ]


def _finished(
    features: Float[Tensor, "1 c h8 w8"],
    found: Detections,
    spec: MaskHeadSpec,
    finish: Finish,
    *,
    original: tuple[int, int],
    cues: CueReader | None,
) -> Instances:
    """One image's."""
    boxes = rescale_boxes(found.boxes_xyxy, size=found.size, new_size=original)
    boxes = clip_boxes(boxes, original)
    if finish.drop_empty_boxes:
        rows = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1).nonzero()[:, 0]
        found, boxes = found.take(rows), boxes[rows]
    threshold, rescore = finish.settings.mask_threshold, finish.settings.rescore
    rows_of, columns_of = mask_resizers(features, size=found.size, new_size=original)
    masks: list[Rle] = []
    on_grid = iter(torch.split(found.boxes_xyxy / MASK_STRIDE, finish.chunk))
    quality = [found.scores.new_zeros(0)]
    limits = iter(boxes.tolist())
    for probabilities in mask_probabilities(features, found, spec, chunk=finish.chunk):
        if cues is not None:
            cues.read(probabilities, next(on_grid))
        if rescore:
            quality.append(mask_quality(probabilities, threshold=threshold))
        for whole in enlarged_masks(probabilities, rows_of, columns_of, threshold=threshold):
            part, offset = cut_to_box(whole, next(limits)) if finish.crop else whole
            masks.append(encode_rle(part, offset=offset, size=original))
    scores = rescored(found.scores, torch.cat(quality)) if rescore else found.scores
    return Instances(
        boxes_xyxy=boxes.cpu().numpy(),
        scores=scores.cpu().numpy(),
        labels=found.labels.cpu().numpy(),
        masks=tuple(masks),
        size=original,
        cues=None if cues is None else cues.cues(),
        cut=found.cut,
    )


def mask_resizers(
    mask_features: Tensor, *, size: tuple[int, int], new_size: tuple[int, int]
) -> tuple[LinearResize, LinearResize]:
    """Mask grid -> original image, for the rows and for the columns."""
    factor = MASK_FEATURE_STRIDE // MASK_STRIDE
    rows, columns = (
        mask_to_image(factor * cells, stride=MASK_STRIDE, size=length, new_size=new_length).to(
            mask_features.device
        )
        for cells, length, new_length in zip(mask_features.shape[-2:], size, new_size, strict=True)
    )
    return rows, columns


def enlarged_masks(
    probabilities: Float[Tensor, "d hm wm"],
    rows: LinearResize,
    columns: LinearResize,
    *,
    threshold: float,
) -> Iterator[MaskPart]:
    """The part of each mask that isn't empty, at the original size.

    Interpolated values lie between their cells', so that only what is linked to a cell above the
    threshold needs to be computed.
    """
    above = probabilities > threshold
    vertical = _extents(above.any(dim=2))
    horizontal = _extents(above.any(dim=1))
    on_host = probabilities.device.type == "cpu"
    enlarged = _on_host(rows, columns) if on_host else _on_device(rows, columns)
    for one, y_range, x_range in zip(probabilities, vertical, horizontal, strict=True):
        down, right = rows.reached(*y_range), columns.reached(*x_range)
        part = enlarged(one[slice(*down[1]), slice(*right[1])], down, right)
        yield part > threshold, (down[0][0], right[0][0])


Reach = tuple[tuple[int, int], tuple[int, int]]
"""Some pixels of the original along an axis, and the cells that they read."""


def _on_host(
    rows: LinearResize, columns: LinearResize
) -> Callable[[Tensor, Reach, Reach], Float32[np.ndarray, "hp wp"]]:
    """By the few cells that each pixel reads; columns lie in memory as run lengths want them."""
    thin_rows, thin_columns = rows.on_host(), columns.on_host()

    def enlarged(cells: Tensor, down: Reach, right: Reach) -> Float32[np.ndarray, "hp wp"]:
        part = thin_rows.of_rows(cells.numpy(), down[0], start=down[1][0])
        return thin_columns.of_rows(part.T, right[0], start=right[1][0]).T

    return enlarged


def _on_device(
    rows: LinearResize, columns: LinearResize
) -> Callable[[Tensor, Reach, Reach], Float32[np.ndarray, "hp wp"]]:
    """By dense products, which an accelerator makes at once."""

    def enlarged(cells: Tensor, down: Reach, right: Reach) -> Float32[np.ndarray, "hp wp"]:
        part = rows.weights[slice(*down[0]), slice(*down[1])] @ cells
        whole: Tensor = part @ columns.weights[slice(*right[0]), slice(*right[1])].T
        return whole.cpu().numpy()

    return enlarged


def cut_to_box(mask: MaskPart, box_xyxy: Sequence[float]) -> MaskPart:
    """The mask without the pixels that lie wholly outside the box (in pixels of the original)."""
    part, (y, x) = mask
    left, top = (math.floor(side + WHOLE_PIXELS) for side in box_xyxy[:2])
    right, bottom = (math.ceil(side - WHOLE_PIXELS) for side in box_xyxy[2:])
    above, before = max(top - y, 0), max(left - x, 0)
    kept = part[above : max(bottom - y, above), before : max(right - x, before)]
    return kept, (y + above, x + before)


def _extents(above: Bool[Tensor, "d n"]) -> list[tuple[int, int]]:
    """(first True, last True + 1) of each row; (0, 0) where there is none."""
    number = above.shape[1]
    index = torch.arange(number, device=above.device)
    first = torch.where(above, index, number).amin(dim=1)
    end = torch.where(above, index + 1, 0).amax(dim=1)
    return [(min(a, b), b) for a, b in zip(first.tolist(), end.tolist(), strict=True)]
