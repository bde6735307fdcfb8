"""The only place that sees configuration and parts: from a config to network, data, learner."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from boxdepth.trainer import config
from boxdepth.trainer.criterion.rules import LossRules
from boxdepth.trainer.data.loader import BatchLoader, BatchOrder
from boxdepth.trainer.data.store_dataset import DepthForm, TrainingSet, open_training_set
from boxdepth.trainer.distill.pseudo import PseudoRules
from boxdepth.trainer.distill.teacher import Teacher
from boxdepth.trainer.engine.checkpoint import write_atomically
from boxdepth.trainer.engine.distributed import World, shared
from boxdepth.trainer.engine.optim import optimizer_of
from boxdepth.trainer.engine.schedule import LearningRate, scaled_learning_rate
from boxdepth.trainer.engine.step import StepRules
from boxdepth.trainer.engine.update import Learner
from boxdepth.trainer.model.backbone import Backbone, build_backbone
from boxdepth.trainer.model.condinst import CondInst
from boxdepth.trainer.model.controller import make_controller
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec
from boxdepth.trainer.model.fcos_head import FcosHead
from boxdepth.trainer.model.feature_cache import FeatureCache
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

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


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
        feature_cache=FeatureCache.of(model.backbone.kept_bytes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedWeights:
    """Weights of another make under our names."""

    kind: Literal["model", "backbone"]
    """A whole CondInst or BoxInst, or a backbone alone (for ``model.backbone.weights``)."""
    tensors: dict[str, Tensor]
    report: WeightsReport

    def save(self, path: Path) -> None:
        """A safetensors file, whole or not at all."""
        write_atomically(path, save({k: v.contiguous() for k, v in self.tensors.items()}))

    def to_json(self) -> dict[str, Any]:
        """What came along, and what did not."""
        return {
            "kind": self.kind,
            "tensors": len(self.tensors),
            "loaded": len(self.report.loaded),
            "not_used": list(self.report.not_used),
            "started_anew": list(self.report.started_anew),
        }


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


def with_classes(run: config.RunConfig, categories: int) -> config.RunConfig:
    """The config with the number of classes of its training store, unless it names one.

    Raises:
        ValueError: it names another number.
    """
    named = run.model.num_classes
    if named not in (0, categories):
        raise ValueError(
            f"model.num_classes is {named}, but the training store has {categories} categories; "
            "leave it at 0 to take the store's"
        )
    return run.changed(model=run.model.changed(num_classes=categories))


def training_set(run: config.RunConfig, store: Path) -> TrainingSet:
    """The training store seen through the config's supervision and augmentation."""
    depth: DepthForm = "steps" if run.distillation.method == "depth_matching" else "cells"
    return open_training_set(store, run.data, seed=run.seed, depth=depth)


def batch_loader(
    run: config.RunConfig, dataset: TrainingSet, world: World, *, pin_memory: bool = False
) -> BatchLoader:
    """The batches of this rank; pinned where they go to CUDA."""
    order = BatchOrder(
        samples=len(dataset),
        batch_size=run.data.batch_size,
        seed=run.seed,
        landscape=dataset.landscape if run.data.group_aspect else None,
    )
    return BatchLoader(
        dataset, order, run.data, rank=world.rank, world=world.size, pin_memory=pin_memory
    )


def build_learner(run: config.RunConfig, device: torch.device, world: World) -> Learner:
    """Network, teacher, optimiser and schedule, weights initialised from the seed."""
    torch.manual_seed(run.seed)
    layout = torch.channels_last if run.channels_last else torch.contiguous_format
    model = build_model(run.model).to(device).to(memory_format=layout).train()
    rate, taught = base_learning_rate(run), run.distillation.method != "off"
    teacher = Teacher(model, pseudo_rules(run), run.schedule.iterations) if taught else None
    network: nn.Module = torch.compile(model) if run.compile else model  # type: ignore[assignment]
    return Learner(
        model=model,
        network=shared(network, device, world),
        rules=step_rules(run),
        optimizer=optimizer_of(model, run.optimizer, learning_rate=rate),
        learning_rate=LearningRate(base=rate, schedule=run.schedule),
        scaler=torch.amp.GradScaler(device.type, enabled=run.precision == "fp16"),
        device=device,
        seed=run.seed,
        rank=world.rank,
        clip_norm=run.optimizer.clip_norm,
        teacher=teacher,
    )


def base_learning_rate(run: config.RunConfig) -> float:
    """The learning rate after the warm-up, for this batch size."""
    return scaled_learning_rate(
        run.optimizer.learning_rate,
        batch_size=run.data.batch_size,
        reference_batch_size=run.optimizer.reference_batch_size,
    )


def step_rules(run: config.RunConfig) -> StepRules:
    """What a forward pass needs to know."""
    return StepRules(
        mask_head=mask_head_spec(run.model),
        losses=loss_rules(run),
        assignment=run.model.fcos,
        autocast=AUTOCAST[run.precision],
    )


def loss_rules(run: config.RunConfig) -> LossRules:
    """What the criterion needs to know."""
    return LossRules(
        losses=run.losses,
        pseudo=run.distillation,
        supervision=run.data.supervision,
        quality=run.model.fcos.quality,
    )


def pseudo_rules(run: config.RunConfig) -> PseudoRules:
    """How the teacher's predictions become targets."""
    return PseudoRules(
        distillation=run.distillation,
        mask_head=mask_head_spec(run.model),
        limits=run.inference,
        theta=run.losses.pairs.theta,
        autocast=AUTOCAST[run.precision],
    )


def config_digest(run: config.RunConfig) -> str:
    """SHA-256 of the resolved config."""
    text = json.dumps(run.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
