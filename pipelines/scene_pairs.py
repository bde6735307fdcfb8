"""The trainer's own trusted pairs of single pictures, for the figures of the scenes."""

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8

from boxdepth.depthgen.datasets.sample.pairs import PairCounts, count_pairs
from boxdepth.trainer.affinity import color_pairs, depth_pairs
from boxdepth.trainer.geometry.neighbours import neighbour_offsets

OFFSETS = neighbour_offsets(3, 2)


def alike_in_colour(image: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "k hm wm"]:
    """Pairs of a picture that the losses trust by colour."""
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    return color_pairs(planes, _everywhere(image))[0].numpy()


def alike_in_depth(inverse_depth: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "k hm wm"]:
    """Pairs that the losses trust by depth, once it is min-max normalised to 0..255."""
    low, high = float(inverse_depth.min()), float(inverse_depth.max())
    units = (inverse_depth - low) * np.float32(255.0 / max(high - low, 1e-12))
    return depth_pairs(torch.from_numpy(units)[None, None], _everywhere(units))[0].numpy()


def counted(trusted: Bool[np.ndarray, "k hm wm"], masks: Bool[np.ndarray, "n h w"]) -> PairCounts:
    """Trusted pairs within instances and across their borders."""
    return count_pairs(trusted, masks, offsets=OFFSETS)


def _everywhere(picture: np.ndarray) -> torch.Tensor:
    return torch.ones(1, *picture.shape[:2], dtype=torch.bool)
