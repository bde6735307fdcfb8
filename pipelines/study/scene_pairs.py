"""The trainer's own trusted pairs of single pictures, for the figures of the scenes."""

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8

from boxdepth.depthgen.datasets.sample.pairs import PairCounts, count_pairs
from boxdepth.trainer.geometry.resize import pooled
from boxdepth.trainer.targets.mask_grid import lab_of_cells
from boxdepth.trainer.targets.pairs import agreeing, similarity
from boxdepth.trainer.targets.rules import PairRule

RULE = PairRule()


def alike_in_colour(image: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "k hm wm"]:
    """Pairs of a picture that the losses trust by colour."""
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    return _agreeing(lab_of_cells(planes), RULE.color_threshold)


def alike_in_depth(inverse_depth: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "k hm wm"]:
    """Pairs that the losses trust by depth, once it is min-max normalised to 0..255."""
    low, high = float(inverse_depth.min()), float(inverse_depth.max())
    units = (inverse_depth - low) * np.float32(255.0 / max(high - low, 1e-12))
    return _agreeing(pooled(torch.from_numpy(units)[None, None], 4), RULE.depth_threshold)


def counted(trusted: Bool[np.ndarray, "k hm wm"], masks: Bool[np.ndarray, "n h w"]) -> PairCounts:
    """Trusted pairs within instances and across their borders."""
    return count_pairs(trusted, masks, offsets=RULE.offsets)


def _agreeing(maps: torch.Tensor, threshold: float) -> Bool[np.ndarray, "k hm wm"]:
    everywhere = torch.ones(1, *maps.shape[2:], dtype=torch.bool)
    trusted: np.ndarray = agreeing(similarity(maps, everywhere, RULE), threshold)[0].numpy()
    return trusted
