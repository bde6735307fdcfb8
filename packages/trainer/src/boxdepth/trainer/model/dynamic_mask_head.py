"""Dynamic mask head: a tiny network per instance, whose weights the controller predicts.

Per instance, 1x1 layers on [relative x, relative y, mask features] at stride 8 (arXiv 2003.05664,
section 3); with a depth layer after them (arXiv 2403.01214, Eq. 1).
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxdepth.trainer.config.settings import Positive
from boxdepth.trainer.geometry.constants import constant
from boxdepth.trainer.geometry.grid import cell_locations
from boxdepth.trainer.geometry.resize import aligned_bilinear
from boxdepth.trainer.model.rules import MaskHead
from boxdepth.trainer.structures import (
    MASK_FEATURE_STRIDE,
    MASK_STRIDE,
    Detections,
    MaskOutputs,
    Positives,
)

UPSAMPLING = MASK_FEATURE_STRIDE // MASK_STRIDE
"""From the mask features' grid to the mask grid."""


class MaskHeadSpec(MaskHead):
    """Shape of the dynamic network inside a whole one.  It has no weights of its own."""

    features: Positive = 16
    """Channels of the mask features."""
    level_sizes: tuple[Positive, ...] = (64, 128, 256, 512, 1024)
    """Divisor of the relative coordinates by the instance's level, in pixels."""

    @property
    def layer_shapes(self) -> tuple[tuple[int, int], ...]:
        """(outputs, inputs) of every layer; the depth layer comes before the mask layer."""
        first = self.features + (2 if self.relative_coordinates else 0)
        inputs = [first, *[self.channels] * (self.layers - 1)]
        outputs = [*[self.channels] * (self.layers - 1), 1]
        shapes = list(zip(outputs, inputs, strict=True))
        if self.depth != "off":
            shapes.insert(-1, (1, self.channels))
        return tuple(shapes)

    @property
    def num_params(self) -> int:
        """Numbers the controller predicts per location: all weights, then all biases."""
        return sum(out * (inputs + 1) for out, inputs in self.layer_shapes)


def split_params(
    params: Float[Tensor, "p q"], spec: MaskHeadSpec
) -> tuple[list[Float[Tensor, "p o i"]], list[Float[Tensor, "p o"]]]:
    """Weights (row-major: outputs, inputs) and biases of every layer."""
    shapes = spec.layer_shapes
    weight_sizes = [out * inputs for out, inputs in shapes]
    bias_sizes = [out for out, _ in shapes]
    parts = torch.split(params, [*weight_sizes, *bias_sizes], dim=1)
    weights = [torch.unflatten(part, 1, shape) for part, shape in zip(parts, shapes, strict=False)]
    return weights, list(parts[len(shapes) :])


def mask_outputs(
    mask_features: Float[Tensor, "b c h8 w8"], positives: Positives, spec: MaskHeadSpec
) -> MaskOutputs:
    """Mask logits (and inverse depth) of every positive on the mask grid.

    Always in fp32.
    """
    return upsampled(coarse_outputs(mask_features, positives, spec))


def coarse_outputs(
    mask_features: Float[Tensor, "b c h8 w8"], positives: Positives, spec: MaskHeadSpec
) -> MaskOutputs:
    """`mask_outputs` on the mask features' own grid.

    The mask features are never copied per instance: the first layer of all instances of an image is
    one matrix product, and the relative coordinates, linear in the pixel, join it as two rows of
    pixel coordinates and a shift of the bias.
    """
    with torch.autocast(mask_features.device.type, enabled=False):
        several = len(mask_features) > 1
        order = positives.image_index.argsort(stable=True) if several else slice(None)
        weights, biases = split_params(positives.params.float()[order], spec)
        hidden = _first_layer(mask_features.float(), positives, order, weights[0], biases[0], spec)
        last = spec.layers - 1
        for weight, bias in zip(weights[1:last], biases[1:last], strict=True):
            hidden = torch.baddbmm(bias[:, :, None], weight, hidden.relu_())
        weight, bias = torch.cat(weights[last:], dim=1), torch.cat(biases[last:], dim=1)
        out = torch.baddbmm(bias[:, :, None], weight, hidden.relu_())
        if isinstance(order, Tensor):
            out = out[order.argsort()]
        return joined(torch.unflatten(out, 2, mask_features.shape[-2:]), spec)


def mask_probabilities(
    mask_features: Float[Tensor, "1 c h8 w8"],
    found: Detections,
    spec: MaskHeadSpec,
    *,
    chunk: int = 32,
) -> Iterator[Float[Tensor, "d hm wm"]]:
    """Mask probabilities of one image's detections on the mask grid, ``chunk`` at a time.

    Their depth is not brought to it: nobody asks for it here.
    """
    for start in range(0, len(found.scores), chunk):
        part = slice(start, start + chunk)
        zeros = torch.zeros_like(found.level[part])
        positives = Positives(
            location_xy=found.location_xy[part],
            level=found.level[part],
            box_index=zeros,
            image_index=zeros,
            params=found.params[part],
            counts=(len(zeros),),
        )
        logits = coarse_outputs(mask_features, positives, spec).logits
        yield aligned_bilinear(logits, UPSAMPLING)[:, 0].sigmoid()


def joined(out: Float[Tensor, "p o h8 w8"], spec: MaskHead) -> MaskOutputs:
    """Depth and mask layer joined at stride 8, on logits."""
    if spec.depth == "off":
        return MaskOutputs(logits=out, depth=None)
    depth_logits, logits = out[:, :1], out[:, 1:]
    depth = depth_logits.sigmoid()
    both = logits * depth if spec.depth == "product" else logits + depth_logits
    return MaskOutputs(logits=both, depth=depth)


def upsampled(coarse: MaskOutputs) -> MaskOutputs:
    """From the mask features' grid to the mask grid."""
    depth = None if coarse.depth is None else aligned_bilinear(coarse.depth, UPSAMPLING)
    return MaskOutputs(logits=aligned_bilinear(coarse.logits, UPSAMPLING), depth=depth)


def _first_layer(
    mask_features: Float[Tensor, "b c h8 w8"],
    positives: Positives,
    order: Int64[Tensor, " p"] | slice,
    weight: Float[Tensor, "p o i"],
    bias: Float[Tensor, "p o"],
    spec: MaskHeadSpec,
) -> Float[Tensor, "p o hw"]:
    """Layer 1 before its activation, image by image; rows as ``order`` puts them: by image."""
    features = mask_features.flatten(2)
    if spec.relative_coordinates:
        table = constant(tuple(map(float, spec.level_sizes)), weight.device)
        sizes = table[positives.level[order]]
        coordinates = weight[:, :, :2] / sizes[:, None, None]
        location_xy = positives.location_xy[order][:, :, None]
        bias = bias + (coordinates @ location_xy)[:, :, 0]
        weight = torch.cat([-coordinates, weight[:, :, 2:]], dim=2)
        pixels = cell_locations(
            (mask_features.shape[2], mask_features.shape[3]),
            stride=MASK_FEATURE_STRIDE,
            device=mask_features.device,
        ).T
        features = torch.cat([pixels.expand(len(features), -1, -1), features], dim=1)
    counts = list(positives.counts)
    if not counts:
        counts = torch.bincount(positives.image_index, minlength=len(features)).tolist()
    parts = [
        torch.addmm(b.flatten()[:, None], w.flatten(0, 1), feature)
        for feature, w, b in zip(
            features,
            torch.split(weight, counts),
            torch.split(bias, counts),
            strict=True,
        )
    ]
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    return torch.unflatten(out, 0, (-1, weight.shape[1]))
