"""Named runs: each a plain function that returns one config; `PRESETS` is what the command offers.

A preset that exists only here is as good as any: write your own function and pass its config on.
"""

from collections.abc import Callable
from pathlib import Path

from boxdepth.trainer.config import (
    Backbone,
    FcosHead,
    Inference,
    MaskBranch,
    Model,
    RunConfig,
)
from boxdepth.trainer.criterion.rules import Losses
from boxdepth.trainer.data.rules import Augmentation, Data
from boxdepth.trainer.distill.rules import Distillation
from boxdepth.trainer.engine.rules import Checkpoints, Optimizer
from boxdepth.trainer.engine.schedule import Schedule
from boxdepth.trainer.model.rules import MaskHead
from boxdepth.trainer.targets.rules import PairRule, Sampling

COCO = Data(train=Path("stores/coco-train2017.zarr"), val=Path("stores/coco-val2017.zarr"))
CITYSCAPES = Data(
    train=Path("stores/cityscapes-train.zarr"),
    val=Path("stores/cityscapes-val.zarr"),
    batch_size=8,
    augmentation=Augmentation(short_sides=tuple(range(800, 1025, 32)), max_size=2048),
    bottom_rows_removed=0,
)
SCHEDULE_3X = Schedule(iterations=270_000, steps=(210_000, 250_000))
IMAGENET = Backbone(weights="timm")
"""ResNet-50 with the weights that timm downloads. The papers start from MSRA's, which are BGR and
carry the stride in the 1x1: `trainer import-weights` reads them."""


def coco_r50_1x() -> RunConfig:
    """The method on COCO, R-50-FPN, 90k iterations of 16 images, distillation from 65k."""
    return RunConfig(
        name="coco_r50_1x",
        data=COCO,
        model=Model(backbone=IMAGENET),
        distillation=Distillation(method="depth_matching", start=65_000),
    )


def coco_r50_3x() -> RunConfig:
    """The method on COCO, R-50-FPN, 270k iterations, distillation from 215k."""
    return RunConfig(
        name="coco_r50_3x",
        data=COCO,
        model=Model(backbone=IMAGENET),
        schedule=SCHEDULE_3X,
        distillation=Distillation(method="depth_matching", start=215_000),
    )


def coco_r50_1x_iou() -> RunConfig:
    """coco_r50_1x with the IoU as the box quality (the dagger rows of arXiv 2403.01214)."""
    base = coco_r50_1x()
    model = base.model.changed(fcos=FcosHead(quality="iou"))
    return base.changed(name="coco_r50_1x_iou", model=model)


def cityscapes_r50() -> RunConfig:
    """The method on Cityscapes, R-50-FPN, 24k iterations of 8 images, distillation from 19k."""
    return RunConfig(
        name="cityscapes_r50",
        data=CITYSCAPES,
        model=Model(backbone=IMAGENET),
        losses=Losses(warmup_iterations=1000),
        distillation=Distillation(
            method="depth_matching", start=19_000, teacher_short_side=1024, teacher_max_size=2048
        ),
        optimizer=Optimizer(reference_batch_size=8),
        schedule=Schedule(iterations=24_000, steps=(18_000,)),
        inference=Inference(short_side=1024, max_size=2048),
    )


def as_boxinst(run: RunConfig) -> RunConfig:
    """A run as BoxInst (arXiv 2012.02310) has it: colour pairs alone, no teacher."""
    return run.changed(
        model=run.model.changed(mask_head=run.model.mask_head.changed(depth="off")),
        losses=run.losses.changed(depth=0, consistency=0),
        distillation=run.distillation.changed(method="off"),
    )


def as_boxteacher(run: RunConfig) -> RunConfig:
    """A run as BoxTeacher (arXiv 2210.05174) has it: an EMA teacher's masks from the start."""
    base = as_boxinst(run)
    colored = base.data.augmentation.changed(color="strong")
    return base.changed(
        data=base.data.changed(augmentation=colored),
        distillation=base.distillation.changed(
            method="box_teacher", start=0, gamma=0.5, mask_affinity=0.1, reliability=0
        ),
        optimizer=base.optimizer.changed(norm_weight_decay=1e-4),
        inference=base.inference.changed(rescore=True),
    )


def as_condinst(run: RunConfig) -> RunConfig:
    """A run as CondInst (arXiv 2003.05664) has it: it learns from masks."""
    base = as_boxinst(run)
    sampling = Sampling(per_image=None, per_batch=500)
    return base.changed(
        data=base.data.changed(supervision="masks"),
        model=base.model.changed(mask_branch=base.model.mask_branch.changed(out_channels=8)),
        losses=base.losses.changed(projection=0, color=0, sampling=sampling),
    )


def boxinst_r50_1x() -> RunConfig:
    """BoxInst (arXiv 2012.02310): colour pairs alone, 90k iterations."""
    base = coco_r50_1x().changed(name="boxinst_r50_1x", distillation=Distillation())
    return as_boxinst(base)


def boxinst_r50_3x() -> RunConfig:
    """BoxInst, 270k iterations."""
    return boxinst_r50_1x().changed(name="boxinst_r50_3x", schedule=SCHEDULE_3X)


def boxteacher_r50_1x() -> RunConfig:
    """BoxTeacher (arXiv 2210.05174): BoxInst with an EMA teacher's masks from the start, 90k."""
    return as_boxteacher(boxinst_r50_1x()).changed(name="boxteacher_r50_1x")


def condinst_r50_1x() -> RunConfig:
    """CondInst (arXiv 2003.05664): learns from masks; the upper bound of box supervision."""
    return as_condinst(boxinst_r50_1x()).changed(name="condinst_r50_1x")


def condinst_r50_3x() -> RunConfig:
    """CondInst, 270k iterations."""
    return condinst_r50_1x().changed(name="condinst_r50_3x", schedule=SCHEDULE_3X)


def coco_photos_mobilenet() -> RunConfig:
    """A handful of real photos learnt by heart on a CPU, with a frozen pretrained MobileNetV2.

    Give it the weights: `--set model.backbone.weights=FILE` (mean and std 0.5, pad_type "same").
    """
    return RunConfig(
        name="coco_photos_mobilenet",
        data=Data(
            batch_size=4,
            workers=1,
            augmentation=Augmentation(short_sides=(256,), max_size=384, flip=0),
            keep_empty=False,
        ),
        model=Model(
            backbone=Backbone(
                name="mobilenetv2_100",
                frozen_stages=5,
                pixel_mean=(127.5, 127.5, 127.5),
                pixel_std=(127.5, 127.5, 127.5),
                extra={"pad_type": "same"},
            ),
            fpn_channels=96,
            fcos=FcosHead(convs=2, level_ranges=(48, 96, 192, 384)),
            mask_branch=MaskBranch(channels=64, convs=3),
        ),
        losses=Losses(warmup_iterations=200),
        optimizer=Optimizer(
            name="adamw", learning_rate=0.001, reference_batch_size=4, clip_norm=10.0
        ),
        schedule=Schedule(iterations=700, steps=(550, 650), warmup_iterations=50),
        inference=Inference(short_side=256, max_size=384),
        checkpoints=Checkpoints(every=100),
    )


def scenes_tiny() -> RunConfig:
    """Minutes on two CPU cores: a small network from random weights on drawn 192x256 scenes."""
    return RunConfig(
        name="scenes_tiny",
        channels_last=True,
        data=Data(
            train=Path("stores/scenes-train2017.zarr"),
            val=Path("stores/scenes-val2017.zarr"),
            # Twice the steps with half the images each: +4 mask AP for the same time (lab-log).
            batch_size=4,
            workers=1,
            augmentation=Augmentation(short_sides=(176, 192, 208), max_size=320),
            bottom_rows_removed=0,
        ),
        model=Model(
            backbone=Backbone(
                name="resnet10t",
                frozen_stages=0,
                frozen_norm=False,
                extra={"channels": (32, 64, 128, 256), "stem_width": 16},
            ),
            fpn_channels=64,
            fcos=FcosHead(convs=2),
            mask_branch=MaskBranch(channels=32, convs=2),
            # The product is as good in the mean and differs more from seed to seed (lab-log).
            mask_head=MaskHead(depth="sum"),
        ),
        # Two cells of stride 4 are 1 % of a COCO image's short side and 4 % of a scene's: there the
        # pairs would reach beyond the boxes and fill them; so would depth pairs cut at the box.
        losses=Losses(
            warmup_iterations=300,
            consistency=30,
            consistency_region="image",
            pairs=PairRule(dilation=1),
        ),
        # AdamW: SGD at 0.02 reaches half of its AP in as many iterations (lab-log).
        optimizer=Optimizer(
            name="adamw",
            learning_rate=0.001,
            reference_batch_size=4,
            weight_decay=0.05,
            clip_norm=10.0,
        ),
        schedule=Schedule(iterations=1600, steps=(1200, 1450), warmup_iterations=50),
        inference=Inference(short_side=192, max_size=320, batch_size=8),
        checkpoints=Checkpoints(every=400),
    )


Preset = Callable[[], RunConfig]

PRESETS: dict[str, Preset] = {
    preset.__name__: preset
    for preset in (
        scenes_tiny,
        coco_photos_mobilenet,
        coco_r50_1x,
        coco_r50_3x,
        coco_r50_1x_iou,
        cityscapes_r50,
        boxinst_r50_1x,
        boxinst_r50_3x,
        boxteacher_r50_1x,
        condinst_r50_1x,
        condinst_r50_3x,
    )
}
