"""A batch as the mask losses see it, at stride 4: made once, read by all that look at it there."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from boxdepth.trainer.geometry.boxes import box_bitmaps
from boxdepth.trainer.geometry.lab import rgb_to_lab
from boxdepth.trainer.geometry.resize import pooled, subsampled
from boxdepth.trainer.structures import MASK_STRIDE, Batch, MaskGrid


@torch.no_grad()
def mask_grid(batch: Batch) -> MaskGrid:
    """Box bitmaps, validity, depth and colours of a batch on the mask grid."""
    height, width = batch.images.shape[-2:]
    shape = (height // MASK_STRIDE, width // MASK_STRIDE)
    return MaskGrid(
        box_bitmaps=box_bitmaps(batch.boxes_xyxy, grid=shape, stride=MASK_STRIDE),
        valid=subsampled(batch.valid, MASK_STRIDE),
        inverse_depth=_depth_of_cells(batch.inverse_depth.float(), shape),
        depth_valid=batch.depth_valid,
        lab=lab_of_cells(batch.images),
    )


def _depth_of_cells(
    inverse_depth: Float[Tensor, "b 1 hd wd"], grid: tuple[int, int]
) -> Float[Tensor, "b 1 hm wm"]:
    """Means over 4x4 pixels, unless that is what the batch holds."""
    on_grid = tuple(inverse_depth.shape[-2:]) == grid
    return inverse_depth if on_grid else pooled(inverse_depth, MASK_STRIDE)


def lab_of_cells(images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 hm wm"]:
    """LAB of the 4x4 means, truncated to whole numbers first (condinst.md 4.3).

    In fp32 under autocast too: half precision would move one pair in a hundred over the threshold.
    """
    with torch.autocast(images.device.type, enabled=False):
        return rgb_to_lab(pooled(images.float(), MASK_STRIDE).trunc())
