"""BoxTeacher's mask affinity: pairs that a smoothed pseudo mask puts on one side (2210.05174)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from boxdepth.trainer.geometry.neighbours import Offset, shifted


@torch.no_grad()
def mask_affinity(
    pseudo_masks: Float[Tensor, "m hm wm"],
    valid: Bool[Tensor, "m hm wm"],
    offsets: Sequence[Offset],
) -> Float[Tensor, "m k hm wm"]:
    """u_i u_j + (1 - u_i)(1 - u_j) of neighbours i, j, with u = (mask + its 3x3 mean) / 2.

    0 where the neighbour is not valid or outside the map (arXiv 2210.05174; condinst.md 9).
    """
    mean = F.avg_pool2d(pseudo_masks[:, None], 3, stride=1, padding=1)[:, 0]
    smooth = (pseudo_masks + mean) / 2
    maps = []
    for offset in offsets:
        other = shifted(smooth, offset)
        agreement = smooth * other + (1 - smooth) * (1 - other)
        maps.append(agreement * shifted(valid.to(smooth.dtype), offset))
    return torch.stack(maps, dim=1)
