"""The controller: a 3x3 on the box tower that predicts the mask head's weights (arXiv 2003.05664).

Of its maps a step reads some dozens of locations an image and an inference its detections. Made
whole they are a seventh of the network's work.
"""

from dataclasses import dataclass
from typing import final

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from boxdepth.trainer.geometry.levels import gather_patches, gather_rows
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterMaps:
    """The plain form: parameters at every location of every level."""

    maps: tuple[Float[Tensor, "b q _ _"], ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The maps."""
        return self.maps

    def at(self, rows: Int64[Tensor, " p"], level: Int64[Tensor, " p"]) -> Float[Tensor, "p q"]:
        """The parameters at rows, each of the given level."""
        return gather_rows(self.maps, rows, level)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ParametersOnDemand:
    """The fast form: the convolution is made where it is asked for, in fp32."""

    features: tuple[Float[Tensor, "b c _ _"], ...]
    """Output of the box tower."""
    weight: Float[Tensor, "q c 3 3"]
    bias: Float[Tensor, " q"]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Features, weight and bias."""
        return (*self.features, self.weight, self.bias)

    def at(self, rows: Int64[Tensor, " p"], level: Int64[Tensor, " p"]) -> Float[Tensor, "p q"]:
        """The parameters at rows, each of the given level."""
        patches = gather_patches(self.features, rows, level).flatten(1)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(patches.to(weight.dtype), weight, self.bias)


def make_controller(channels: int, spec: MaskHeadSpec) -> nn.Conv2d:
    """3x3 on the box tower that predicts the mask head's weights; N(0, 0.01), bias 0."""
    conv = nn.Conv2d(channels, spec.num_params, 3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
