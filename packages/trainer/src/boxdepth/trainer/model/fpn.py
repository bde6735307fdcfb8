"""Feature pyramid network (arXiv 1612.03144) with p6 and p7 (FCOS)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """p3..p7 from the features at strides 8, 16 and 32.

    p3..p5: 1x1 lateral, nearest x2 from above, sum, 3x3.  p6: 3x3/2 of p5, p7: 3x3/2 of
    relu(p6); p6 itself leaves without the ReLU (condinst.md 1).
    """

    def __init__(self, in_channels: Sequence[int], *, channels: int = 256) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels
        )
        self.p6 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        for conv in (*self.lateral, *self.output, self.p6, self.p7):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[p3, p4, p5, p6, p7], each [b c hl wl]."""
        merged: list[Tensor] = []
        for feature, lateral in zip(reversed(features), reversed(self.lateral), strict=True):
            x = lateral(feature)
            if merged:
                x = x + F.interpolate(merged[-1], size=x.shape[-2:], mode="nearest")
            merged.append(x)
        levels = [conv(x) for conv, x in zip(self.output, reversed(merged), strict=True)]
        p6 = self.p6(levels[-1])
        return [*levels, p6, self.p7(F.relu(p6))]
