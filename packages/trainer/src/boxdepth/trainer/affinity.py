"""Neighbour pairs on the mask grid that colour or pseudo depth believes to share a label.

No gradient flows from here.  Everything is computed once per image, never per box.
"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from boxdepth.trainer.geometry.neighbours import neighbour_offsets, shifted
from boxdepth.trainer.geometry.resize import pooled, subsampled
from boxdepth.trainer.structures import MASK_STRIDE, Batch, TrustedPairs

SRGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
"""IEC 61966-2-1 primaries, D65, rounded as in ITU-R BT.709 tables (and in scikit-image)."""

WHITE_D65 = (0.95047, 1.0, 1.08883)
"""Tristimulus values of D65 for the 2 degree observer."""


def rgb_to_lab(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """CIE LAB (D65, 2 degrees; L in 0..100) of sRGB colours in 0..255."""
    rgb = rgb / 255
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = rgb.new_tensor(SRGB_TO_XYZ) / rgb.new_tensor(WHITE_D65)[:, None]
    xyz = torch.einsum("ij,bjhw->bihw", matrix, linear)
    root = torch.where(xyz > 0.008856, xyz.clamp(min=0) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def color_maps(images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 hm wm"]:
    """LAB of the 4x4 means, truncated to whole numbers first (condinst.md 4.3).

    In fp32 under autocast too: half precision would move one pair in a hundred over the threshold.
    """
    with torch.autocast(images.device.type, enabled=False):
        return rgb_to_lab(pooled(images.float(), MASK_STRIDE).trunc())


def similarity(
    maps: Float[Tensor, "b c hm wm"],
    valid: Bool[Tensor, "b hm wm"],
    *,
    kernel_size: int = 3,
    dilation: int = 2,
    theta: float = 2.0,
) -> Float[Tensor, "b k hm wm"]:
    """exp(-||x_p - x_q|| / theta) for each neighbour q; 0 where q is invalid or outside the map.

    arXiv 2012.02310, Eq. 5 on LAB colours, arXiv 2403.01214, Eq. 3 on inverse depth in 0..255.
    Only the neighbour's validity counts, not the centre's.
    """
    offsets = neighbour_offsets(kernel_size, dilation)
    forward = offsets[len(offsets) // 2 :]
    ahead = [_similarity(maps, offset, theta=theta) for offset in forward]
    behind = [shifted(value, (-dy, -dx)) for (dy, dx), value in zip(forward, ahead, strict=True)]
    both = torch.stack([*reversed(behind), *ahead], dim=1)
    neighbour_valid = torch.stack([shifted(valid, offset) for offset in offsets], dim=1)
    return both * neighbour_valid


def _similarity(
    maps: Float[Tensor, "b c hm wm"], offset: tuple[int, int], *, theta: float
) -> Float[Tensor, "b hm wm"]:
    """Similarity to one neighbour; meaningless where it lies outside the map."""
    difference = maps - shifted(maps, offset)
    distance = (
        difference.abs()[:, 0] if maps.shape[1] == 1 else difference.square().sum(dim=1).sqrt()
    )
    return torch.exp(-distance / theta)


@torch.no_grad()
def color_pairs(
    images: UInt8[Tensor, "b 3 h w"],
    valid: Bool[Tensor, "b h w"],
    *,
    threshold: float = 0.3,
    kernel_size: int = 3,
    dilation: int = 2,
    theta: float = 2.0,
) -> Bool[Tensor, "b k hm wm"]:
    """Pairs whose colour similarity reaches the threshold (arXiv 2012.02310, Eq. 5).

    Args:
        images: RGB, 0..255, padded with 0.
        valid: pixels that a pair may point to.
        threshold: 0.3 admits a LAB distance of at most 2.41.
    """
    return _trusted(color_maps(images), valid, threshold, kernel_size, dilation, theta)


@torch.no_grad()
def depth_pairs(
    inverse_depth: Float[Tensor, "b 1 h w"],
    valid: Bool[Tensor, "b h w"],
    *,
    depth_valid: Bool[Tensor, " b"] | None = None,
    threshold: float = 0.5,
    kernel_size: int = 3,
    dilation: int = 2,
    theta: float = 2.0,
) -> Bool[Tensor, "b k hm wm"]:
    """Pairs whose depth similarity reaches tau_d (arXiv 2403.01214, Eq. 3-5).

    Args:
        inverse_depth: 0..255, padded with 0.
        valid: pixels that a pair may point to.
        depth_valid: images that have a usable depth; no pair of another one is trusted.
        threshold: tau_d; 0.5 admits a difference of 1.386 of 255.
    """
    maps = pooled(inverse_depth, MASK_STRIDE)
    pairs = _trusted(maps, valid, threshold, kernel_size, dilation, theta)
    return pairs if depth_valid is None else pairs & depth_valid[:, None, None, None]


def _trusted(
    maps: Float[Tensor, "b c hm wm"],
    valid: Bool[Tensor, "b h w"],
    threshold: float,
    kernel_size: int,
    dilation: int,
    theta: float,
) -> Bool[Tensor, "b k hm wm"]:
    coarse = subsampled(valid, MASK_STRIDE)
    values = similarity(maps, coarse, kernel_size=kernel_size, dilation=dilation, theta=theta)
    neighbour_valid = values > 0
    return (values >= threshold) & neighbour_valid


def trusted_pairs(
    batch: Batch,
    *,
    color_threshold: float = 0.3,
    depth_threshold: float = 0.5,
    kernel_size: int = 3,
    dilation: int = 2,
    theta: float = 2.0,
) -> TrustedPairs:
    """Colour and depth pairs of every image of a batch."""
    return TrustedPairs(
        color=color_pairs(
            batch.images,
            batch.valid,
            threshold=color_threshold,
            kernel_size=kernel_size,
            dilation=dilation,
            theta=theta,
        ),
        depth=depth_pairs(
            batch.inverse_depth,
            batch.valid,
            depth_valid=batch.depth_valid,
            threshold=depth_threshold,
            kernel_size=kernel_size,
            dilation=dilation,
            theta=theta,
        ),
    )
