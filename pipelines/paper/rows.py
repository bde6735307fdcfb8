"""Every run behind the paper's tables (arXiv 2403.01214), as what it changes in a preset.

A run is a method, a backbone and a schedule on the preset of a data set. The methods are those of
`boxdepth.trainer.config.presets`; what a row changes beside them is a few `--set` assignments.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.config.presets import PRESETS, as_boxinst, as_boxteacher, as_condinst

DataName = Literal["coco", "cityscapes", "scenes"]
ScheduleName = Literal["1x", "3x"]
Settings = tuple[str, ...]
Method = Callable[[RunConfig], RunConfig]

PRESET_OF: Mapping[DataName, str] = {
    "coco": "coco_r50_1x",
    "cityscapes": "cityscapes_r50",
    "scenes": "scenes_tiny",
}


def with_short_teacher(config: RunConfig) -> RunConfig:
    """Self-distillation for a run of some hundred iterations.

    The teacher starts a quarter of the way between the two drops of the learning rate and
    sees the largest of the student's sizes, as on COCO. Its memory is 100 steps, not 1000,
    since the distillation lasts some hundred steps, not 25 000.
    """
    images, (first, second) = config.data.augmentation, config.schedule.steps
    teacher = config.distillation.changed(
        method="depth_matching",
        start=first + (second - first) // 4,
        momentum=0.99,
        teacher_short_side=max(images.short_sides),
        teacher_max_size=images.max_size,
    )
    return config.changed(distillation=teacher)


def the_method(config: RunConfig) -> RunConfig:
    """What the presets of the data sets are already."""
    return config


METHOD = "the method"
NO_TEACHER: Settings = ("distillation.method=off",)
NO_DEPTH_LAYER: Settings = ("model.mask_head.depth=off", "losses.depth=0")
IOU_QUALITY: Settings = ("model.fcos.quality=iou",)
IOU_MATCH: Settings = ("distillation.matching.alpha=1", "distillation.matching.beta=0")
STUDENT_SIZE: Settings = ("distillation.teacher_short_side=null",)
BLURRED: Settings = ("data.augmentation.color=strong_blur",)

COCO_SIZES: Settings = (
    'data.augmentation={"short_sides": [640, 672, 704, 736, 768, 800], "max_size": 1333}',
)
"""Of the student's images; the paper's Swin-T run on Cityscapes has them."""

ADAMW: Settings = ('optimizer={"name": "adamw", "learning_rate": 1e-4, "weight_decay": 0.05}',)
"""BoxTeacher's for Swin; the paper doesn't give its own (docs/specification/method.md 7)."""

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
    method: Method = the_method
    settings: Settings = ()
    """What it changes beside the method."""
    init: str | None = None
    """Row whose COCO weights this one starts from; its class layer is made anew."""

    def of(self, config: RunConfig) -> RunConfig:
        """The row's method in place of the whole one that ``config`` is."""
        return apply_overrides(self.method(config), (f"name={self.name}", *self.settings))


KINDS: Mapping[str, tuple[str, Method]] = {
    "condinst": ("CondInst (masks)", as_condinst),
    "boxinst": ("BoxInst", as_boxinst),
    "boxteacher": ("BoxTeacher", as_boxteacher),
    "ours": (METHOD, the_method),
}

WIDE: Mapping[str, str] = {
    "condinst": "R-50 1x, R-50 3x, R-101 3x",
    "boxinst": "R-50 1x, R-50 3x, R-101 3x, R-101-DCN 3x",
    "boxteacher": "R-50 1x, R-50 3x, R-101 3x",
    "ours": "R-50 1x, R-50 3x, R-101 1x, R-101 3x, R-101-DCN 3x, Swin-T 1x, Swin-B 1x, Swin-B 3x",
    "ours-iou": "Swin-B 1x, Swin-B 3x",
}
"""What runs on several networks, and on which."""


def _wide_rows() -> Iterator[Row]:
    for name, networks in WIDE.items():
        kind, _, quality = name.partition("-")
        title, method = KINDS[kind]
        for backbone, schedule in (network.split() for network in networks.split(", ")):
            blurred = kind == "boxteacher" and schedule == "3x"
            yield Row(
                name=f"{name}-{backbone.lower().replace('-', '', 1)}-{schedule}",
                title=f"{title}, IoU quality" if quality else title,
                backbone=backbone,
                schedule="3x" if schedule == "3x" else "1x",
                method=method,
                settings=IOU_QUALITY if quality else BLURRED if blurred else (),
            )


def _changed_rows() -> Iterator[Row]:
    changes: list[tuple[str, str, Settings]] = [
        ("terms-cons", "BoxInst + L_cons", (*NO_DEPTH_LAYER, *NO_TEACHER)),
        ("terms-depth", "BoxInst + L_depth", ("losses.consistency=0", *NO_TEACHER)),
        ("terms-both", "BoxInst + L_cons + L_depth", NO_TEACHER),
        *(
            (f"tau-{t}", f"tau_d = {t}", (f"losses.pairs.depth_threshold={t}", *NO_TEACHER))
            for t in (0.3, 0.7)
        ),
        ("teacher-same-iou", "teacher at student size", (*STUDENT_SIZE, *IOU_MATCH)),
        ("teacher-800-iou", "teacher at 800, IoU match", IOU_MATCH),
        *((f"gamma-{g}", f"gamma = {g}", (f"distillation.gamma={g}",)) for g in (1, 2)),
    ]
    for name, title, settings in changes:
        yield Row(name=name, title=title, settings=settings)


def _cityscapes_rows() -> Iterator[Row]:
    for suffix in ("", "-coco"):
        for kind, (title, method) in KINDS.items():
            init = f"{kind}-r50-1x" if suffix else None
            name = f"city-{kind}-r50{suffix}"
            yield Row(name=name, title=title, data="cityscapes", method=method, init=init)
        yield Row(
            name=f"city-ours-swint{suffix}",
            title=METHOD,
            backbone="Swin-T",
            data="cityscapes",
            settings=COCO_SIZES,
            init="ours-swint-1x" if suffix else None,
        )


ROWS: dict[str, Row] = {
    row.name: row for rows in (_wide_rows(), _changed_rows(), _cityscapes_rows()) for row in rows
}


def config_of(row: Row, data: DataName, *, scale: float = 1.0) -> RunConfig:
    """The row's whole configuration.

    Args:
        data: on drawn scenes the backbone stays the preset's small one.
        scale: factor of every iteration count of the run: its length, its drops of the learning
            rate, its warm-ups, the start of the distillation.
    """
    config = PRESETS[PRESET_OF[data]]()
    if data == "scenes":
        config = with_short_teacher(config)
    else:
        config = apply_overrides(config, BACKBONES[row.backbone])
    config = row.of(config)
    if row.init and data == "cityscapes":
        # Its start is a whole network: no ImageNet weights need to be downloaded first.
        config = apply_overrides(config, ("model.backbone.weights=null",))
    length = 3 if row.schedule == "3x" else 1
    return config if length == scale == 1 else _timeline(config, length, scale)


def settings_of(row: Row, data: DataName) -> Settings:
    """`--set` assignments that turn the data set's preset into the row, but for its name."""
    preset = PRESETS[PRESET_OF[data]]().model_dump(mode="json")
    wanted = config_of(row, data).model_dump(mode="json") | {"name": preset["name"]}
    return tuple(_differences(preset, wanted))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], at: str = "") -> Iterator[str]:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict) and set(old[key]) <= {*value}:
            yield from _differences(old[key], value, f"{at}{key}.")
        elif key not in old or value != old[key]:
            whole = isinstance(value, float) and value.is_integer()
            text = value if isinstance(value, str) else json.dumps(int(value) if whole else value)
            yield f"{at}{key}={text}"


def _timeline(config: RunConfig, length: int, scale: float) -> RunConfig:
    """Iteration counts of a longer or scaled run.

    3x drops the learning rate at 7/9 and 25/27 and starts the distillation at 43/54 of the run:
    on COCO 210k, 250k and 215k of 270k. Warm-ups don't grow with the schedule.
    """
    schedule, start = config.schedule, config.distillation.start
    total = schedule.iterations * length
    steps = [total * 7 // 9, total * 25 // 27] if length == 3 else list(schedule.steps)
    start = total * 43 // 54 if length == 3 and start else start
    return config.changed(
        schedule=schedule.changed(
            iterations=max(round(total * scale), 1),
            steps=tuple(round(step * scale) for step in steps),
            warmup_iterations=round(schedule.warmup_iterations * scale),
        ),
        losses=config.losses.changed(
            warmup_iterations=round(config.losses.warmup_iterations * scale)
        ),
        distillation=config.distillation.changed(start=round(start * scale)),
    )
