"""Everything a run can be told: one frozen, validated value, saved with the run and its weights.

Defaults are the COCO R-50 1x values of CondInst/BoxInst (arXiv 2003.05664, 2012.02310) and of the
method (arXiv 2403.01214); what differs by run is set in ``presets``.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from boxdepth.trainer.config.settings import NonNegative, Positive, Scale, Settings
from boxdepth.trainer.criterion.rules import Losses, Quality
from boxdepth.trainer.data.rules import Data
from boxdepth.trainer.distill.rules import Distillation
from boxdepth.trainer.engine.rules import Checkpoints, Optimizer
from boxdepth.trainer.engine.schedule import Schedule
from boxdepth.trainer.model.rules import Inference, MaskHead
from boxdepth.trainer.targets.rules import Assignment

EVERY_STAGE = 5
"""`frozen_stages` of a backbone that does not learn at all."""

Level = Annotated[float, Field(ge=0, le=255)]


class Backbone(Settings):
    """A timm model, features at strides 8, 16 and 32."""

    name: str = "resnet50"
    weights: Literal["timm"] | Path | None = None
    """Weights file; `timm`: ImageNet weights that timm downloads; None: random initialisation."""
    frozen_stages: NonNegative = 2
    """Stem and the first stages that do not learn (2: stem and stage 1, i.e. res2)."""
    frozen_norm: bool = True
    stride_in_1x1: bool = False
    """ResNet only: stride 2 in the first 1x1 of a stage (MSRA/Caffe) instead of the 3x3."""
    deformable_stages: tuple[Literal[2, 3, 4, 5], ...] = ()
    """ResNet only: stages (2..5) whose 3x3 are modulated deformable convolutions."""
    bgr: bool = False
    """The weights expect BGR."""
    pixel_mean: tuple[Level, Level, Level] = (123.675, 116.28, 103.53)
    """RGB, 0..255."""
    pixel_std: tuple[Scale, Scale, Scale] = (58.395, 57.12, 57.375)
    extra: dict[str, bool | int | float | str | tuple[int, ...]] = Field(default_factory=dict)
    """Further keyword arguments of timm.create_model."""
    cache_mb: NonNegative = 0
    """MiB of features of training images that are kept from epoch to epoch, if no stage learns; 0:
    none. Pays where each image is seen many times at one size."""

    @property
    def kept_bytes(self) -> int:
        """Of features of training images: those of a backbone that learns are never kept."""
        return self.cache_mb << 20 if self.frozen_stages >= EVERY_STAGE else 0


class FcosHead(Assignment):
    """The head that finds boxes, and which location answers for which box."""

    convs: Positive = 4
    prior: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """The class score that every location starts with."""
    quality: Quality = "centerness"


class MaskBranch(Settings):
    """What every mask head reads."""

    channels: Positive = 128
    convs: Positive = 4
    out_channels: Positive = 16
    semantic_loss: bool = False


class Model(Settings):
    """The network."""

    num_classes: NonNegative = 0
    """0: as many as the training store has categories."""
    backbone: Backbone = Backbone()
    fpn_channels: Positive = 256
    fcos: FcosHead = FcosHead()
    mask_branch: MaskBranch = MaskBranch()
    mask_head: MaskHead = MaskHead()


class RunConfig(Settings):
    """One run, resolved."""

    name: str
    seed: NonNegative = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    data: Data = Data()
    model: Model = Model()
    losses: Losses = Losses()
    distillation: Distillation = Distillation()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    inference: Inference = Inference()
    checkpoints: Checkpoints = Checkpoints()
