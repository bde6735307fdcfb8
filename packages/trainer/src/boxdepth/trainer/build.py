"""The only place that sees configuration and parts: reads the one, wires the other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from boxdepth.trainer import config
from boxdepth.trainer.model.backbone import Backbone, build_backbone
from boxdepth.trainer.model.condinst import CondInst
from boxdepth.trainer.model.controller import make_controller
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec
from boxdepth.trainer.model.fcos_head import FcosHead
from boxdepth.trainer.model.fpn import FeaturePyramid
from boxdepth.trainer.model.mask_branch import MaskBranch, SemanticHead
from boxdepth.trainer.model.weight_files import read_tensors
from boxdepth.trainer.model.weights import (
    WeightsReport,
    adelaidet_classes,
    is_adelaidet,
    load_adelaidet,
    load_backbone,
)


def build_model(model: config.Model) -> CondInst:
    """The network with random weights, or with the backbone's weights file where one is named.

    Raises:
        ValueError: the number of classes is not resolved yet, or an unknown backbone.
        WeightsError: a weights file that can't be read or doesn't fit.
        DownloadError: ImageNet weights that are not here and can't be fetched.
    """
    if model.num_classes < 1:
        raise ValueError("the number of classes is unknown: take it from the training store first")
    backbone, spec = _backbone(model.backbone), mask_head_spec(model)
    channels, branch = model.fpn_channels, model.mask_branch
    classes, prior = model.num_classes, model.fcos.prior
    width = {"in_channels": channels, "channels": branch.channels}
    semantic = (
        SemanticHead(**width, num_classes=classes, prior=prior) if branch.semantic_loss else None
    )
    return CondInst(
        backbone=backbone,
        fpn=FeaturePyramid(backbone.channels, channels=channels),
        head=FcosHead(channels=channels, num_classes=classes, convs=model.fcos.convs, prior=prior),
        controller=make_controller(channels, spec),
        mask_branch=MaskBranch(**width, convs=branch.convs, out_channels=branch.out_channels),
        mask_head=spec,
        semantic_head=semantic,
        pixel_mean=model.backbone.pixel_mean,
        pixel_std=model.backbone.pixel_std,
        bgr=model.backbone.bgr,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedWeights:
    """Weights of another make under our names."""

    kind: Literal["model", "backbone"]
    """A whole CondInst or BoxInst, or a backbone alone (for ``model.backbone.weights``)."""
    tensors: dict[str, Tensor]
    report: WeightsReport


def import_weights(path: Path, model: config.Model) -> ImportedWeights:
    """Weights of AdelaiDet, detectron2, torchvision or timm, checked against our network.

    Args:
        model: the network they are meant for; with 0 classes a whole model keeps the file's.

    Raises:
        WeightsError: a file that can't be read or doesn't fit.
    """
    tensors = read_tensors(path)
    settings = model.backbone.changed(weights=None)
    if not is_adelaidet(tensors):
        backbone = _backbone(settings)
        report = load_backbone(backbone, path)
        state = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
        return ImportedWeights(kind="backbone", tensors=state, report=report)
    classes = model.num_classes or adelaidet_classes(tensors)
    network = build_model(model.changed(backbone=settings, num_classes=classes))
    report = load_adelaidet(network, tensors, source=str(path))
    return ImportedWeights(kind="model", tensors=network.state_dict(), report=report)


def mask_head_spec(model: config.Model) -> MaskHeadSpec:
    """Shape of the dynamic mask head; its coordinates are scaled by what each level regresses."""
    ranges = model.fcos.level_ranges
    return MaskHeadSpec(
        features=model.mask_branch.out_channels,
        level_sizes=(*ranges, 2 * ranges[-1]),
        **dict(model.mask_head),
    )


def _backbone(settings: config.Backbone) -> Backbone:
    download = {"pretrained": True} if settings.weights == "timm" else {}
    backbone = build_backbone(
        name=settings.name,
        frozen_stages=settings.frozen_stages,
        frozen_norm=settings.frozen_norm,
        stride_in_1x1=settings.stride_in_1x1,
        deformable_stages=settings.deformable_stages,
        extra=settings.extra | download,
    )
    if isinstance(settings.weights, Path):
        load_backbone(backbone, settings.weights)
    return backbone
