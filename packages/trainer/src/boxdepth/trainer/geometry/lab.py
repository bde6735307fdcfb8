"""CIE LAB colours."""

import torch
from jaxtyping import Float
from torch import Tensor

from boxdepth.trainer.geometry.constants import constant

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
    matrix = torch.stack([constant(row, rgb.device) for row in SRGB_TO_XYZ])
    matrix = matrix / constant(WHITE_D65, rgb.device)[:, None]
    xyz = torch.einsum("ij,bjhw->bihw", matrix, linear)
    root = torch.where(xyz > 0.008856, xyz.clamp(min=0) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)
