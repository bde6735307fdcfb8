"""Backbones of timm: features at strides 8, 16 and 32, with frozen stages and norms."""

import difflib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

from boxdepth.trainer.errors import DownloadError
from boxdepth.trainer.model.deformable import ModulatedDeformConv
from boxdepth.trainer.model.folded import fold_norms

if TYPE_CHECKING:
    from timm.models.resnet import Bottleneck

STRIDES = (8, 16, 32)
"""Of the features that the FPN takes, in input pixels."""

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


class Backbone(nn.Module):
    """A timm feature extractor whose frozen parts stay frozen.

    Frozen norms are in evaluation mode and their affine parameters don't learn, whatever mode the
    model is put in.  Batch norms inside frozen stages are treated so too.
    """

    def __init__(self, net: nn.Module, *, channels: Sequence[int]) -> None:
        super().__init__()
        self.net = net
        self.channels = tuple(channels)
        self._always_eval: list[nn.Module] = []

    def freeze(self, parts: Sequence[nn.Module]) -> None:
        """These modules, each without its children, no longer learn or update statistics."""
        for part in parts:
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad_(False)
            part.training = False
            self._always_eval.append(part)

    def train(self, mode: bool = True) -> "Backbone":
        """Training mode for all that isn't frozen."""
        super().train(mode)
        for part in self._always_eval:
            part.training = False
        return self

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Features at strides 8, 16 and 32, each [b c h/s w/s]."""
        features: list[Tensor] = self.net(images)
        return [
            x.permute(0, 3, 1, 2) if x.shape[1] != channels else x
            for x, channels in zip(features, self.channels, strict=True)
        ]


def build_backbone(
    *,
    name: str,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    stride_in_1x1: bool = False,
    deformable_stages: Sequence[int] = (),
    extra: dict[str, Any] | None = None,
) -> Backbone:
    """A backbone with random weights.

    Args:
        name: model of timm.
        frozen_stages: 1: the stem; s: everything up to the features of stride 2^s (2: res2).
        frozen_norm: no norm learns or updates its statistics.
        stride_in_1x1: ResNets with bottlenecks: the stride 2 of a stage sits in its first 1x1
            convolution (MSRA/Caffe weights), not in the 3x3.
        deformable_stages: ResNets with bottlenecks: stages (2..5) whose 3x3 are modulated
            deformable convolutions (arXiv 1811.11168).
        extra: further keyword arguments of timm.create_model.

    Raises:
        ValueError: an unknown name (says the nearest), no features at strides 8, 16 and 32, or an
            option that the architecture doesn't have.
        DownloadError: pretrained weights that are not here and can't be fetched.
    """
    net = _feature_extractor(name, extra or {})
    if stride_in_1x1:
        _stride_in_1x1(name, net)
    if deformable_stages:
        _make_deformable(name, net, deformable_stages)
    if frozen_norm:
        fold_norms(net)
    backbone = Backbone(net, channels=net.feature_info.channels())
    backbone.freeze(_frozen_parts(net, frozen_stages))
    if frozen_norm:
        backbone.freeze([module for module in net.modules() if isinstance(module, NORMS)])
    return backbone


def _feature_extractor(name: str, extra: dict[str, Any]) -> Any:
    import timm  # two seconds that no command pays before it needs a network

    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
        raise ValueError(f"timm knows no backbone {name!r}{hint} (timm.list_models() names all)")
    try:
        defaults = {"strict_img_size": False} if name.startswith("swin") else {}
        net: Any = timm.create_model(
            name, features_only=True, out_indices=(-3, -2, -1), **(defaults | extra)
        )
        strides = tuple(net.feature_info.reduction())
    except (TypeError, RuntimeError, AttributeError, AssertionError, KeyError) as error:
        raise ValueError(f"backbone {name!r} can't be built with {extra}: {error}") from error
    except OSError as error:
        raise DownloadError(
            f"the ImageNet weights of {name} are not here and can't be downloaded "
            f"({type(error).__name__}); give a file: --set model.backbone.weights=FILE"
        ) from error
    if strides != STRIDES:
        raise ValueError(
            f"backbone {name!r} has features at strides {strides}, the FPN needs {STRIDES}"
        )
    return net


def _bottlenecks(name: str, net: nn.Module, stage: int, *, option: str) -> "list[Bottleneck]":
    from timm.models.resnet import Bottleneck

    layer = getattr(net, f"layer{stage - 1}", None)
    children = list(layer) if isinstance(layer, nn.Sequential) else []
    blocks = [block for block in children if isinstance(block, Bottleneck)]
    if not blocks or len(blocks) < len(children):
        raise ValueError(
            f"{option} needs a ResNet with bottlenecks (resnet50, resnet101...) "
            f"and stages 2..5, got stage {stage} of {name!r}"
        )
    return blocks


def _stride_in_1x1(name: str, net: nn.Module) -> None:
    for stage in (3, 4, 5):
        first = _bottlenecks(name, net, stage, option="stride_in_1x1")[0]
        first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride


def _make_deformable(name: str, net: nn.Module, stages: Sequence[int]) -> None:
    for stage in stages:
        for block in _bottlenecks(name, net, stage, option="deformable_stages"):
            block.conv2 = ModulatedDeformConv.in_place_of(block.conv2)  # type: ignore[assignment]


def _frozen_parts(net: Any, stages: int) -> list[nn.Module]:
    """Modules in the order of the forward pass, up to the features of stride 2^stages."""
    modules = list(net.named_modules())[1:]
    if stages == 0:
        return []
    last = -1
    for end, reduction in _feature_ends(net):
        inside = [i for i, (name, _) in enumerate(modules) if _within(name, end)]
        if reduction > 2**stages:
            last = max(last, min(inside) - 1)
            break
        last = max(inside)
    return [module for _, module in modules[: last + 1]]


def _feature_ends(net: Any) -> Iterator[tuple[str, int]]:
    """(module that ends a stage, its stride); flattened extractors join names with '_'."""
    names = {name for name, _ in net.named_modules()}
    for info in net.feature_info.info:
        name = info["module"]
        yield (name if name in names else name.replace(".", "_")), info["reduction"]


def _within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(parent + ".")
