"""FCOS head (arXiv 1904.01355), shared by all levels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxdepth.trainer.model.group_norm import GroupNorm
from boxdepth.trainer.structures import FPN_STRIDES


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOutputs:
    """One entry per level."""

    class_logits: tuple[Tensor, ...]
    ltrb: tuple[Tensor, ...]
    """Input pixels."""
    quality_logits: tuple[Tensor, ...]
    box_features: tuple[Tensor, ...]
    """Output of the box tower, from which the controller reads."""


class FcosHead(nn.Module):
    """Class tower and box tower; box sides and quality come from the box tower.

    ltrb = stride_l relu(s_l conv) with one learnt scale per level (condinst.md 2).
    """

    def __init__(
        self,
        *,
        channels: int,
        num_classes: int,
        convs: int = 4,
        prior: float = 0.01,
        strides: Sequence[int] = FPN_STRIDES,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.class_tower = _tower(channels, convs)
        self.box_tower = _tower(channels, convs)
        self.class_logits = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.ltrb = nn.Conv2d(channels, 4, 3, padding=1)
        self.quality = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(self.strides)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.class_logits.bias, -math.log((1 - prior) / prior))  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        """Predictions of every location of every level."""
        class_logits, ltrb, quality, box_features = [], [], [], []
        weight = torch.cat([self.ltrb.weight, self.quality.weight])
        bias = torch.cat([self.ltrb.bias, self.quality.bias])  # type: ignore[list-item]
        for x, scale, stride in zip(features, self.scales, self.strides, strict=True):
            box = self.box_tower(x)
            sides_and_quality = F.conv2d(box, weight, bias, padding=1)
            class_logits.append(self.class_logits(self.class_tower(x)))
            ltrb.append(stride * F.relu(scale * sides_and_quality[:, :4].float()))
            quality.append(sides_and_quality[:, 4:])
            box_features.append(box)
        return HeadOutputs(
            class_logits=tuple(class_logits),
            ltrb=tuple(ltrb),
            quality_logits=tuple(quality),
            box_features=tuple(box_features),
        )


def _tower(channels: int, convs: int) -> nn.Sequential:
    groups = math.gcd(32, channels)
    if groups == channels:
        groups = max(groups // 2, 1)  # a group of one channel is nothing on a map of one cell
    layers: list[nn.Module] = []
    for _ in range(convs):
        conv = nn.Conv2d(channels, channels, 3, padding=1)
        layers += [conv, GroupNorm(groups, channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
