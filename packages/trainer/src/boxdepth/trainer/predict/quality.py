"""How good each mask probably is, without a truth to compare it with: its expected IoU.

Some cues that the network's own output and the picture give, and a logistic function of them that
was fitted to the IoU of masks on drawn scenes (`pipelines/calibrate_quality.py`).
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor
from torch.nn import functional as F

from boxdepth.trainer.structures import MASK_STRIDE

CUES = (
    "inside", "stable", "rows", "columns", "leak", "fill", "edges", "size", "even", "apart",
    "contested",
)  # fmt: skip
"""Names of the columns of the cues, in order."""
WEIGHTS = (
    3.142, 0.533, 1.254, 2.13, -0.272, 0.176, 2.358, -1.983, 1.261, 1.391, -0.883,
)  # fmt: skip
"""Of the logistic function, one a cue."""
BIAS = -7.186
SURE, UNSURE = 0.7, 0.3
"""Thresholds whose masks are compared: they agree where the outline is steep."""
RING = 2
"""Cells around a mask whose colours are compared with those inside."""


def expected_quality(cues: Float[np.ndarray, "d k"]) -> Float32[np.ndarray, " d"]:
    """Expected IoU with the true mask, 0..1: a logistic function of the cues (columns `CUES`)."""
    logits: np.ndarray = cues @ np.array(WEIGHTS) + BIAS
    shares: np.ndarray = 1 / (1 + np.exp(-logits))
    return shares.astype(np.float32)


@dataclass(slots=True, kw_only=True)
class CueReader:
    """Reads the cues of one image's masks, part by part."""

    colors: Float[Tensor, "3 hm wm"]
    """Mean colour of each cell of the mask grid, 0..1."""
    threshold: float
    _cues: list[Tensor] = field(default_factory=list)
    _coarse: list[Tensor] = field(default_factory=list)

    def read(
        self, probabilities: Float[Tensor, "d hm wm"], boxes_on_grid: Float[Tensor, "d 4"]
    ) -> None:
        """Look at the next masks; their boxes are in cells of the mask grid."""
        self._cues.append(
            mask_cues(probabilities, boxes_on_grid, colors=self.colors, threshold=self.threshold)
        )
        self._coarse.append(F.avg_pool2d(probabilities[:, None], 2, ceil_mode=True)[:, 0])

    def cues(self) -> Float32[np.ndarray, "d k"]:
        """Of all masks, in order; columns as in `CUES`."""
        if not self._cues:
            return np.zeros((0, len(CUES)), dtype=np.float32)
        contested = contested_share(torch.cat(self._coarse))
        together = torch.cat([torch.cat(self._cues), contested[:, None]], dim=1)
        values: np.ndarray = together.cpu().numpy()
        return values


def cell_colors(image: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "3 hm wm"]:
    """Mean colour of each cell of the mask grid, 0..1."""
    return F.avg_pool2d(image[None].float() / 255, MASK_STRIDE)[0]


@torch.no_grad()
def mask_cues(
    probabilities: Float[Tensor, "d hm wm"],
    boxes_on_grid: Float[Tensor, "d 4"],
    *,
    colors: Float[Tensor, "3 hm wm"],
    threshold: float = 0.5,
) -> Float[Tensor, "d c"]:
    """What can be seen of each mask by itself: the columns of `CUES` but the last.

    inside: mean probability inside the mask. stable: area above 0.7 over area above 0.3. rows,
    columns: mean over the box's rows (columns) of the largest probability in them; a mask should
    touch every one of them. leak: share of the mask's mass outside its box. fill: share of the box
    that is mask. edges: colour contrast across the outline, over that plus the mean contrast in the
    box. size: log2 of the box's mean side in cells, over 8. even: colour variance in the mask, over
    that plus the variance in the box. apart: distance of the mean colours of mask and ring around
    it in standard deviations d, as d / (1 + d).

    Args:
        boxes_on_grid: in cells of the mask grid.
        colors: mean colour of each cell, 0..1.
    """
    region = _box_regions(boxes_on_grid, probabilities.shape[-2:])
    mask = probabilities > threshold
    mass = probabilities.sum(dim=(1, 2)).clamp(min=1e-6)
    within = probabilities * region
    sides = (boxes_on_grid[:, 2:] - boxes_on_grid[:, :2]).clamp(min=1e-3)
    even, apart = _color_statistics(mask, region, colors)
    cues = [
        (probabilities * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp(min=1),
        _share(probabilities > SURE, probabilities > UNSURE),
        _covered(within, region, dim=2),
        _covered(within, region, dim=1),
        1 - within.sum(dim=(1, 2)) / mass,
        _share(mask & region, region),
        _edge_contrast(mask, region, colors),
        sides.prod(dim=1).sqrt().log2() / 8,
        even,
        apart,
    ]
    return torch.stack(cues, dim=1)


def contested_share(coarse: Float[Tensor, "d hc wc"]) -> Float[Tensor, " d"]:
    """How far another mask of the image claims the same cells: max over j of <i, j> / <i, i>, at
    most 2; 0 for a mask that has its cells to itself."""
    flat = coarse.flatten(1)
    products = flat @ flat.T
    own = products.diagonal().clone().clamp(min=1e-6)
    products.fill_diagonal_(0)
    return (products / own[:, None]).amax(dim=1).clamp(max=2)


def _box_regions(boxes: Float[Tensor, "d 4"], shape: tuple[int, ...]) -> Bool[Tensor, "d hm wm"]:
    """Cells whose middle lies in each box; those around its own middle at least."""
    y, x = (torch.arange(length, device=boxes.device) + 0.5 for length in shape)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    low = torch.minimum(boxes[:, :2], center - 0.5)
    high = torch.maximum(boxes[:, 2:], center + 0.5)
    columns = (x >= low[:, :1]) & (x <= high[:, :1])
    rows = (y >= low[:, 1:]) & (y <= high[:, 1:])
    return rows[:, :, None] & columns[:, None, :]


def _share(part: Bool[Tensor, "d hm wm"], whole: Bool[Tensor, "d hm wm"]) -> Float[Tensor, " d"]:
    return part.sum(dim=(1, 2)) / whole.sum(dim=(1, 2)).clamp(min=1)


def _covered(
    within: Float[Tensor, "d hm wm"], region: Bool[Tensor, "d hm wm"], *, dim: int
) -> Float[Tensor, " d"]:
    """Mean over the box's lines of the largest probability in each."""
    lines = region.any(dim=dim)
    return (within.amax(dim=dim) * lines).sum(dim=1) / lines.sum(dim=1).clamp(min=1)


def _edge_contrast(
    mask: Bool[Tensor, "d hm wm"], region: Bool[Tensor, "d hm wm"], colors: Float[Tensor, "3 hm wm"]
) -> Float[Tensor, " d"]:
    """Contrast across the outline, compared with that of all neighbours in the box."""
    sums = torch.zeros(4, len(mask), device=mask.device)
    for dim in (1, 2):
        length = colors.shape[dim] - 1
        contrast = (colors.narrow(dim, 1, length) - colors.narrow(dim, 0, length)).norm(dim=0)
        first, second = mask.narrow(dim, 0, length), mask.narrow(dim, 1, length)
        here = region.narrow(dim, 0, length) | region.narrow(dim, 1, length)
        outline = (first ^ second) & here
        sums += torch.stack(
            [
                (outline * contrast).sum(dim=(1, 2)),
                outline.sum(dim=(1, 2)).float(),
                (here * contrast).sum(dim=(1, 2)),
                here.sum(dim=(1, 2)).float(),
            ]
        )
    on_outline, usual = sums[0] / sums[1].clamp(min=1), sums[2] / sums[3].clamp(min=1)
    return on_outline / (on_outline + usual).clamp(min=1e-6)


def _color_statistics(
    mask: Bool[Tensor, "d hm wm"], region: Bool[Tensor, "d hm wm"], colors: Float[Tensor, "3 hm wm"]
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """(even, apart) as `mask_cues` has them."""
    wide = F.max_pool2d(mask[:, None].float(), 2 * RING + 1, stride=1, padding=RING)[:, 0]
    inside, spread = _mean_and_variance(mask & region, colors)
    around, spread_around = _mean_and_variance((wide > 0) & ~mask, colors)
    _, spread_in_box = _mean_and_variance(region, colors)
    distance = (inside - around).norm(dim=1) / (spread + spread_around + 1e-4).sqrt()
    return spread / (spread + spread_in_box + 1e-6), distance / (1 + distance)


def _mean_and_variance(
    cells: Bool[Tensor, "d hm wm"], colors: Float[Tensor, "3 hm wm"]
) -> tuple[Float[Tensor, "d 3"], Float[Tensor, " d"]]:
    """Mean colour of some cells, and the sum of its channels' variances."""
    weights, values = cells.flatten(1).float(), colors.flatten(1)
    count = weights.sum(dim=1, keepdim=True).clamp(min=1)
    mean = weights @ values.T / count
    variance = weights @ values.square().T / count - mean.square()
    return mean, variance.sum(dim=1).clamp(min=0)
