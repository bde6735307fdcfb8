"""Every run behind the paper's tables (arXiv 2403.01214), as the settings that make it.

A run is a method, a backbone and a schedule, each a list of `trainer fit --set` assignments on top
of a preset, so that `reproduce list` can show the command that a user would type.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.config.presets import PRESETS

DataName = Literal["coco", "cityscapes", "scenes"]
ScheduleName = Literal["1x", "3x"]
Settings = tuple[str, ...]

PRESET_OF: Mapping[DataName, str] = {
    "coco": "coco_r50_1x",
    "cityscapes": "cityscapes_r50",
    "scenes": "scenes_tiny",
}


def base_settings(data: DataName) -> Settings:
    """What makes the preset of a data set the whole method there."""
    return short_run_teacher(PRESETS[PRESET_OF[data]]()) if data == "scenes" else ()


def short_run_teacher(config: RunConfig) -> Settings:
    """Self-distillation for a run of some hundred iterations.

    The teacher starts a quarter of the way between the two drops of the learning rate and
    sees the largest of the student's sizes, as on COCO. Its memory is 100 steps, not 1000,
    since the distillation lasts some hundred steps, not 25 000.
    """
    images, (first, second) = config.data.augmentation, config.schedule.steps
    return (
        "distillation.method=depth_matching",
        f"distillation.start={first + (second - first) // 4}",
        "distillation.momentum=0.99",
        f"distillation.teacher_short_side={max(images.short_sides)}",
        f"distillation.teacher_max_size={images.max_size}",
    )


METHOD = "the method"

NO_TEACHER: Settings = ("distillation.method=off",)
NO_DEPTH_LAYER: Settings = ("model.mask_head.depth=off", "losses.depth=0")
BOXINST: Settings = (*NO_DEPTH_LAYER, "losses.consistency=0", *NO_TEACHER)
CONDINST: Settings = (
    "data.supervision=masks",
    "model.mask_branch.out_channels=8",
    *BOXINST,
    "losses.projection=0",
    "losses.color=0",
    'losses.sampling={"per_image": null, "per_batch": 500}',
)
BOXTEACHER: Settings = (
    *NO_DEPTH_LAYER,
    "losses.consistency=0",
    "distillation.method=box_teacher",
    "distillation.start=0",
    "distillation.gamma=0.5",
    "distillation.mask_affinity=0.1",
    "distillation.reliability=0",
    "data.augmentation.color=strong",
    "optimizer.norm_weight_decay=1e-4",
    "inference.rescore=true",
)
BOXTEACHER_3X: Settings = (*BOXTEACHER, "data.augmentation.color=strong_blur")
IOU_QUALITY: Settings = ("model.fcos.quality=iou",)
IOU_MATCH: Settings = ("distillation.matching.alpha=1", "distillation.matching.beta=0")
STUDENT_SIZE: Settings = ("distillation.teacher_short_side=null",)

COCO_SIZES: Settings = (
    'data.augmentation={"short_sides": [640, 672, 704, 736, 768, 800], "max_size": 1333}',
)
"""Of the student's images; the paper's Swin-T run on Cityscapes has them."""

ADAMW: Settings = ('optimizer={"name": "adamw", "learning_rate": 1e-4, "weight_decay": 0.05}',)
"""BoxTeacher's for Swin; the paper doesn't give its own (method.md 7)."""

RESNET_101 = "model.backbone.name=resnet101"
BACKBONES: Mapping[str, Settings] = {
    "R-50": (),
    "R-101": (RESNET_101,),
    "R-101-DCN": (RESNET_101, "model.backbone.deformable_stages=[3, 4, 5]"),
    **{
        name: (
            f"model.backbone.name={model}",
            "model.backbone.frozen_stages=0",
            "model.backbone.frozen_norm=false",
            "model.backbone.extra.drop_path_rate=0.2",
            *ADAMW,
        )
        for name, model in (
            ("Swin-T", "swin_tiny_patch4_window7_224"),
            ("Swin-B", "swin_base_patch4_window7_224"),
        )
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run."""

    name: str
    title: str
    """The method, in words."""
    backbone: str = "R-50"
    schedule: ScheduleName = "1x"
    data: DataName = "coco"
    """The data set that the paper used."""
    method: Settings = ()
    init: str | None = None
    """Row whose COCO weights this one starts from; its class layer is made anew."""


def _named(name: str, title: str, method: Settings = ()) -> Row:
    return Row(name=name, title=title, method=method)


def _slug(backbone: str) -> str:
    """r50, r101-dcn, swinb."""
    return backbone.lower().replace("-", "", 1)


WIDE: tuple[tuple[str, str, Settings, tuple[tuple[str, ScheduleName], ...]], ...] = (
    (
        "condinst",
        "CondInst (masks)",
        CONDINST,
        (("R-50", "1x"), ("R-50", "3x"), ("R-101", "3x")),
    ),
    (
        "boxinst",
        "BoxInst",
        BOXINST,
        (("R-50", "1x"), ("R-50", "3x"), ("R-101", "3x"), ("R-101-DCN", "3x")),
    ),
    (
        "boxteacher",
        "BoxTeacher",
        BOXTEACHER,
        (("R-50", "1x"),),
    ),
    (
        "boxteacher",
        "BoxTeacher",
        BOXTEACHER_3X,
        (("R-50", "3x"), ("R-101", "3x")),
    ),
    (
        "ours",
        METHOD,
        (),
        (
            *(("R-50", "1x"), ("R-50", "3x"), ("R-101", "1x"), ("R-101", "3x")),
            *(("R-101-DCN", "3x"), ("Swin-T", "1x"), ("Swin-B", "1x"), ("Swin-B", "3x")),
        ),
    ),
    ("ours-iou", f"{METHOD}, IoU quality", IOU_QUALITY, (("Swin-B", "1x"), ("Swin-B", "3x"))),
)
"""(name, title, settings, (backbone, schedule) pairs) of what runs on several networks."""


def _rows() -> list[Row]:
    wide = [
        Row(
            name=f"{kind}-{_slug(backbone)}-{schedule}",
            title=title,
            backbone=backbone,
            schedule=schedule,
            method=method,
        )
        for kind, title, method, variants in WIDE
        for backbone, schedule in variants
    ]
    terms = [
        _named("terms-cons", "BoxInst + L_cons", (*NO_DEPTH_LAYER, *NO_TEACHER)),
        _named("terms-depth", "BoxInst + L_depth", ("losses.consistency=0", *NO_TEACHER)),
        _named("terms-both", "BoxInst + L_cons + L_depth", NO_TEACHER),
    ]
    thresholds = [
        _named(f"tau-{tau}", f"tau_d = {tau}", (f"losses.pairs.depth_threshold={tau}", *NO_TEACHER))
        for tau in (0.3, 0.7)
    ]
    teachers = [
        _named("teacher-same-iou", "teacher at student size", (*STUDENT_SIZE, *IOU_MATCH)),
        _named("teacher-800-iou", "teacher at 800, IoU match", IOU_MATCH),
    ]
    gammas = [
        _named(f"gamma-{gamma}", f"gamma = {gamma}", (f"distillation.gamma={gamma}",))
        for gamma in (1, 2)
    ]
    return [*wide, *terms, *thresholds, *teachers, *gammas, *_cityscapes_rows()]


def _cityscapes_rows() -> list[Row]:
    rows = []
    for start, origin in (("", None), ("-coco", "coco")):
        for kind, title, method in (
            ("condinst", "CondInst (masks)", CONDINST),
            ("boxinst", "BoxInst", BOXINST),
            ("boxteacher", "BoxTeacher", BOXTEACHER),
            ("ours", METHOD, ()),
        ):
            rows.append(
                Row(
                    name=f"city-{kind}-r50{start}",
                    title=title,
                    data="cityscapes",
                    method=method,
                    init=f"{kind}-r50-1x" if origin else None,
                )
            )
        rows.append(
            Row(
                name=f"city-ours-swint{start}",
                title=METHOD,
                backbone="Swin-T",
                data="cityscapes",
                method=COCO_SIZES,
                init="ours-swint-1x" if origin else None,
            )
        )
    return rows


ROWS: dict[str, Row] = {row.name: row for row in _rows()}


def preset_of(row: Row, data: DataName) -> str:
    """The trainer preset that the row builds on."""
    return PRESET_OF[data]


def settings_of(row: Row, data: DataName, *, scale: float = 1.0) -> Settings:
    """`--set` assignments that turn the preset into the row.

    Args:
        data: on drawn scenes the backbone stays the preset's small one.
        scale: factor of every iteration count of the run: its length, its drops of the learning
            rate, its warm-ups, the start of the distillation.
    """
    chosen = (
        *base_settings(data),
        *(() if data == "scenes" else BACKBONES[row.backbone]),
        *row.method,
        # Its start is a whole network: no ImageNet weights need to be downloaded first.
        *(("model.backbone.weights=null",) if row.init and data == "cityscapes" else ()),
    )
    config = apply_overrides(PRESETS[PRESET_OF[data]](), chosen)
    length = 3 if row.schedule == "3x" else 1
    unchanged = length == 1 and scale == 1
    return chosen if unchanged else (*chosen, *_timeline(config, length, scale))


def config_of(row: Row, data: DataName, *, scale: float = 1.0) -> RunConfig:
    """The row's whole configuration."""
    settings = (f"name={row.name}", *settings_of(row, data, scale=scale))
    return apply_overrides(PRESETS[preset_of(row, data)](), settings)


def _timeline(config: RunConfig, length: int, scale: float) -> Settings:
    """Iteration counts of a longer or scaled run.

    3x drops the learning rate at 7/9 and 25/27 and starts the distillation at 43/54 of the run:
    on COCO 210k, 250k and 215k of 270k. Warm-ups don't grow with the schedule.
    """
    schedule, start = config.schedule, config.distillation.start
    total = schedule.iterations * length
    steps = [total * 7 // 9, total * 25 // 27] if length == 3 else list(schedule.steps)
    start = total * 43 // 54 if length == 3 and start else start
    return (
        f"schedule.iterations={max(round(total * scale), 1)}",
        f"schedule.steps={[round(step * scale) for step in steps]}",
        f"schedule.warmup_iterations={round(schedule.warmup_iterations * scale)}",
        f"losses.warmup_iterations={round(config.losses.warmup_iterations * scale)}",
        f"distillation.start={round(start * scale)}",
    )
