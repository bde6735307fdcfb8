"""From the facts of a dataset to a run: an ordinary config, and a reason for each choice."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from boxdepth.trainer.config import FcosHead, Inference, MaskBranch, Model, RunConfig
from boxdepth.trainer.config.run import EVERY_STAGE
from boxdepth.trainer.config.settings import Supervision
from boxdepth.trainer.criterion.rules import Losses
from boxdepth.trainer.data.rules import Augmentation, Data
from boxdepth.trainer.distill.rules import Distillation
from boxdepth.trainer.engine.rules import Checkpoints, Optimizer
from boxdepth.trainer.engine.schedule import Schedule
from boxdepth.trainer.geometry.tiles import Tiling
from boxdepth.trainer.model.rules import MaskHead
from boxdepth.trainer.runs.auto.backbones import BackboneChoice
from boxdepth.trainer.runs.auto.facts import Facts, in_tiles
from boxdepth.trainer.structures import MASK_STRIDE
from boxdepth.trainer.targets.rules import PairRule, Sampling
from boxdepth.trainer.words import counted

COCO_SHORT_SIDE = 800
"""Input size of the papers."""
REACH = 1 / 6
"""Of the median box, that neighbours may lie apart: pairs that reach farther fill small boxes."""
LEAST_STEPS = 250
"""Fewer teach a small network less than a smaller input takes away."""
BOXES_PER_IMAGE = 7
"""COCO's mean: a set with more boxes an image teaches more with each."""
INPUT, INPUT_ON_CPU = (COCO_SHORT_SIDE, 1280), (256, 512)
"""The usual short side of the input, and the largest."""
MASKS_ON_CPU = 16
"""Masks an image that a step learns from."""
LEAST_TILE = 64
LEAST_DEPTH_CELLS = 4.0
"""Of the depth map, that the median box should be long for neighbours in depth to be told apart."""
RATE_BORDERS = (16, 24, 32, 48, 64)
"""Largest reach of p3, in pixels; each further level doubles it."""
SMALL_BOX, SMALL_BOX_ON_CPU = 16.0, 32.0
"""Pixels of the input that the long side of a small box should keep: four cells of the masks; of a
small network four cells of the features that they are made of, for it draws no finer."""
CACHE = 2 << 30, 1 / 8
"""Bytes of features that a frozen backbone keeps of training images at most, and as a share of the
memory that there is."""
DROPS = (0.6, 0.85)
"""Shares of the run at which the learning rate falls to a tenth."""
STALE = 2
"""Evaluations without a better score after which the run ends, of ten; after the first drop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What it will run on."""

    device: str
    """cpu, cuda or mps."""
    bf16: bool = False
    """Whether it has instructions for products of bfloat16."""
    seconds_per_step: float | None = None
    """As measured; None: not known yet."""
    measured_at: int | None = None
    """Short side of the input, in pixels, that the step was measured with."""
    minutes: float | None = None
    """How long the person wants to wait."""
    memory_bytes: int | None = None
    """What there is; None: not known."""

    def pace(self, short_side: int) -> float | None:
        """Seconds that a step takes at an input size; None: not known."""
        if self.seconds_per_step is None:
            return None
        return self.seconds_per_step * (short_side / (self.measured_at or short_side)) ** 2

    @property
    def on_cpu(self) -> bool:
        """A CPU learns with a small network and small images."""
        return self.device == "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One choice: what, its value as a person reads it, and why."""

    what: str
    value: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A run and the reasons for it."""

    config: RunConfig
    reasons: tuple[Reason, ...]


def pick_tiling(train: Facts, machine: Machine) -> Tiling | None:
    """Tiles where small boxes want a larger input than there may be; None: whole images.

    A tile is as large as the usual input shows small boxes well; its neighbours overlap by the
    longest boxes but for a twentieth of them, so that those are whole in some tile.
    """
    usual, most = INPUT_ON_CPU if machine.on_cpu else INPUT
    small = float(np.quantile(train.long_sides(), 0.1))
    sides = train.image_sizes.min(axis=1)
    if SMALL_BOX / max(small, 1e-6) * float(np.median(sides)) <= most:
        return None
    size = max(16 * round(usual * small / SMALL_BOX / 16), LEAST_TILE)
    overlap = 8 * math.ceil(float(np.quantile(train.long_sides(), 0.95)) / 8)
    overlap = min(overlap, size // 4)
    return Tiling(size=size, overlap=overlap) if size < float(np.median(sides)) else None


def pick(
    train: Facts,
    backbone: BackboneChoice,
    machine: Machine,
    *,
    has_val: bool,
    tiling: Tiling | None = None,
) -> Choice:
    """The recipe for a dataset; the same facts always give the same.

    Args:
        tiling: in which tiles the images are seen; None: as wholes.

    Raises:
        ValueError: the dataset has no box.
    """
    if not train.boxes:
        raise ValueError(f"{train.where}: no image with a usable box: nothing to learn from")
    depth, depth_reason = _depth(train)
    tile_reasons: tuple[Reason, ...] = ()
    if tiling is not None:
        tile_reasons, train = (_tile_reason(train, tiling),), in_tiles(train, tiling)
    sizes, size_reason = _input_size(train, machine)
    ranges, range_reason = _level_ranges(train, sizes)
    schedule, schedule_reason = _schedule(train, sizes, machine)
    detections, dense_reason = _detections(train)
    losses, loss_reasons = _losses(schedule, train, sizes, on_cpu=machine.on_cpu)
    teacher, teacher_reason = _teacher(schedule.iterations, sizes, machine)
    supervision, mask_reason = _supervision(train)
    config = RunConfig(
        name="auto",
        precision="bf16" if machine.bf16 else "fp32",
        data=_data(sizes, machine, tiling).changed(supervision=supervision),
        model=_model(backbone, ranges, machine, with_depth=depth.layer),
        losses=losses.changed(consistency=float(depth.pairs), depth=float(depth.layer)),
        distillation=teacher,
        optimizer=_optimizer(machine),
        schedule=schedule,
        inference=_inference(sizes, detections, tiling),
        checkpoints=_checkpoints(schedule.iterations, has_val=has_val),
    )
    reasons = (
        mask_reason,
        *tile_reasons,
        Reason(what="backbone", value=backbone.backbone.name, why=backbone.why),
        size_reason,
        range_reason,
        schedule_reason,
        *_cache_reasons(backbone, machine),
        *loss_reasons,
        depth_reason,
        teacher_reason,
        dense_reason,
        _stop_reason(config, has_val=has_val),
    )
    return Choice(config=config, reasons=reasons)


def _data(sizes: "_Sizes", machine: Machine, tiling: Tiling | None) -> Data:
    return Data(
        batch_size=_batch(machine),
        workers=1 if machine.on_cpu else 4,
        augmentation=Augmentation(
            short_sides=sizes.training, max_size=sizes.longest, **_tiles(tiling)
        ),
        bottom_rows_removed=0,
    )


def _inference(sizes: "_Sizes", detections: int, tiling: Tiling | None) -> Inference:
    return Inference(
        short_side=sizes.inference,
        max_size=sizes.longest,
        max_detections=detections,
        pre_nms=max(1000, 4 * detections),
        **_tiles(tiling),
    )


def _tiles(tiling: Tiling | None) -> dict[str, Any]:
    return {} if tiling is None else {"tile": tiling.size, "overlap": tiling.overlap}


def _tile_reason(train: Facts, tiling: Tiling) -> Reason:
    small = float(np.quantile(train.long_sides(), 0.1))
    count = sum(len(tiling.windows(int(h), int(w))) for h, w in train.image_sizes)
    return Reason(
        what="tiles",
        value=f"{tiling.size} px, overlapping by {tiling.overlap}",
        why=f"the smallest tenth of the boxes is under {small:.0f} px; {count} tiles, each of them "
        "a sample (below: an image); predicting looks in the same tiles",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """Of the network's input, in pixels."""

    training: tuple[int, ...]
    """Short sides."""
    inference: int
    """Short side."""
    longest: int


def _input_size(train: Facts, machine: Machine) -> tuple[_Sizes, Reason]:
    """The usual size, larger where boxes are small, never beyond twice the pixels there are."""
    usual, most = INPUT_ON_CPU if machine.on_cpu else INPUT
    own = int(np.median(train.image_sizes.min(axis=1)))
    relative = train.long_sides() / train.image_short_sides()
    small = float(np.quantile(relative, 0.1))
    least = SMALL_BOX_ON_CPU if machine.on_cpu else SMALL_BOX
    wanted = least / max(small, 1e-6)
    short = min(max(usual, wanted), most, 2 * own)
    in_time = _affordable(machine)
    late = in_time is not None and in_time < short
    short = max(in_time, min(usual, short)) if in_time is not None and late else short
    short = max(32 * round(short / 32), 64)
    ratio = train.image_sizes.max(axis=1) / train.image_sizes.min(axis=1)
    longest = int(32 * math.ceil(short * min(float(np.quantile(ratio, 0.9)), 2.0) / 32))
    training = tuple(sorted({32 * round(short * share / 32) for share in (0.8, 0.9, 1.0)}))
    if machine.on_cpu:
        training = (short,)
    small_text = f"the smallest tenth of the boxes is under {small * own:.0f} px of {own}"
    why = {
        True: f"usual on {'a CPU' if machine.on_cpu else 'an accelerator'}; {small_text}",
        False: f"{small_text}, and wants {least:.0f} px in the input",
    }[short <= usual]
    if short >= 2 * own - 16:
        why = f"the images are small: {own} px, at most doubled"
    elif late:
        why = f"{small_text}; a larger input leaves fewer than {LEAST_STEPS} steps in this time"
    elif wanted > most:
        why += f", which is more than the most allowed here, {most}"
    sizes = _Sizes(training=training, inference=short, longest=max(longest, short))
    return sizes, Reason(what="input size", value=f"{short} px, longest {sizes.longest}", why=why)


def _affordable(machine: Machine) -> float | None:
    """Largest short side that leaves enough steps in the time there is; None: any."""
    if not machine.on_cpu or machine.minutes is None or not machine.seconds_per_step:
        return None
    steps = 60 * machine.minutes / machine.seconds_per_step
    return (machine.measured_at or INPUT_ON_CPU[1]) * math.sqrt(steps / LEAST_STEPS)


def _median_box(train: Facts, sizes: _Sizes) -> float:
    """Its long side, in pixels of the input."""
    return float(np.median(train.long_sides() / train.image_short_sides())) * sizes.inference


def _level_ranges(train: Facts, sizes: _Sizes) -> tuple[tuple[int, int, int, int], Reason]:
    """p3 reaches as far as about three quarters of the median box's long side."""
    median = _median_box(train, sizes)
    first = min(RATE_BORDERS, key=lambda border: abs(math.log(border / max(0.75 * median, 1.0))))
    ranges = (first, 2 * first, 4 * first, 8 * first)
    why = f"the median box is {median:.0f} px long in the input"
    return ranges, Reason(what="levels", value="-".join(map(str, ranges)), why=why)


def _schedule(train: Facts, sizes: "_Sizes", machine: Machine) -> tuple[Schedule, Reason]:
    """Images seen grow with the root of their number: 12 passes over COCO, more over fewer.

    4200 sqrt(n) is COCO's 1x schedule at n = 118,287; a CPU gets a fifth.
    """
    images = max(train.images_with_boxes, train.boxes / BOXES_PER_IMAGE)
    seen = (800 if machine.on_cpu else 4200) * math.sqrt(images)
    batch = _batch(machine)
    wanted = 10 * max(round(seen / batch / 10), 20)
    why = (
        f"{counted(train.images_with_boxes, 'image')} with {counted(train.boxes, 'box', 'es')}: "
        "each is seen about "
        f"{wanted * batch / max(train.images_with_boxes, 1):.0f} times"
    )
    total = wanted
    pace = machine.pace(sizes.inference)
    if machine.minutes is not None and pace is not None:
        fits = 10 * max(int(60 * machine.minutes / pace / 10), 1)
        total = min(wanted, fits)
        if total < wanted:
            why = (
                f"what fits into {machine.minutes:g} minutes at this pace, looked at again as it "
                f"goes; {wanted} were wanted"
            )
    schedule = Schedule(
        iterations=total,
        steps=tuple(round(share * total) for share in DROPS),
        warmup_iterations=min(round(0.06 * total), 1000),
        minutes=machine.minutes,
        at_most=None if machine.minutes is None else wanted,
    )
    return schedule, Reason(
        what="schedule", value=f"{total} steps of {counted(batch, 'image')}", why=why
    )


def _batch(machine: Machine) -> int:
    return 4 if machine.on_cpu else 16


def _detections(train: Facts) -> tuple[int, Reason]:
    """Half as many again as the fullest training image has boxes, 100 at least."""
    most = int(train.boxes_per_image.max())
    limit = max(100, 10 * math.ceil(1.5 * most / 10))
    why = f"the fullest image has {counted(most, 'box', 'es')}"
    return limit, Reason(what="detections", value=f"up to {limit} an image", why=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Depth:
    """What is learnt of depth."""

    pairs: bool
    layer: bool


def _depth(train: Facts) -> tuple[_Depth, Reason]:
    """Nothing from a model that does not know such images; no pairs where a box is but a few cells
    of the depth map: all of it is one depth."""
    cells = train.depth_cells()
    if train.depth_warning is not None:
        depth, value = _Depth(pairs=False, layer=False), "off"
        why = f"{train.depth_warning} (--depth-model)"
    elif cells is not None and cells < LEAST_DEPTH_CELLS:
        depth, value = _Depth(pairs=False, layer=True), "no pairs"
        why = f"the median box is {cells:.1f} cells of the depth map long: no outline is seen in it"
    else:
        depth, value = _Depth(pairs=True, layer=True), "on"
        where = "" if cells is None else f": the median box is {cells:.0f} cells of its map long"
        why = f"depth may show outlines{where}"
    return depth, Reason(what="depth", value=value, why=why)


def _losses(
    schedule: Schedule, train: Facts, sizes: _Sizes, *, on_cpu: bool
) -> tuple[Losses, tuple[Reason, Reason]]:
    """Warm-ups in a run's proportions; pairs as in the papers, nearer where boxes are small."""
    warm = min(max(round(0.2 * schedule.iterations), 1), 10_000)
    papers, median = PairRule(), _median_box(train, sizes)
    far = MASK_STRIDE * papers.dilation <= REACH * median
    pairs = papers if far else papers.changed(dilation=1)
    reach = MASK_STRIDE * pairs.dilation
    why = f"{reach} px, and the median box is {median:.0f} px long in the input"
    sampling = Sampling(per_image=MASKS_ON_CPU) if on_cpu else Sampling()
    return Losses(warmup_iterations=warm, pairs=pairs, sampling=sampling), (
        Reason(
            what="warm-ups",
            value=f"{schedule.warmup_iterations} and {warm} steps",
            why="learning rate 6 %, colour and depth pairs 20 % of the run, as long runs have",
        ),
        Reason(what="pairs", value=f"{counted(pairs.dilation, 'cell')} apart", why=why),
    )


def _optimizer(machine: Machine) -> Optimizer:
    if not machine.on_cpu:
        return Optimizer(clip_norm=10.0)
    return Optimizer(name="adamw", learning_rate=0.001, reference_batch_size=4, clip_norm=10.0)


def _teacher(total: int, sizes: _Sizes, machine: Machine) -> tuple[Distillation, Reason]:
    if machine.on_cpu or total < 2000:
        why = "it takes twice the time, and gives nothing in a run as short as this"
        return Distillation(), Reason(what="self-distillation", value="off", why=why)
    start = round(0.72 * total)
    teacher = Distillation(
        method="depth_matching",
        start=start,
        teacher_short_side=sizes.inference,
        teacher_max_size=sizes.longest,
    )
    why = "the share of the run at which the paper starts it"
    return teacher, Reason(what="self-distillation", value=f"from step {start}", why=why)


def _supervision(train: Facts) -> tuple[Supervision, Reason]:
    """Masks that are there are learnt from, unless some are but boxes drawn as masks."""
    if not train.masks or train.masks_are_boxes:
        why = "masks are the boxes themselves" if train.filled_boxes else "no box has a mask"
        return "boxes", Reason(what="learns from", value="boxes", why=why)
    why = f"{train.masks + train.filled_boxes} of {train.boxes} boxes have a mask"
    return "mixed", Reason(what="learns from", value="boxes and masks", why=why)


def _model(
    backbone: BackboneChoice, ranges: tuple[int, ...], machine: Machine, *, with_depth: bool
) -> Model:
    head = MaskHead() if with_depth else MaskHead(depth="off")
    if not machine.on_cpu:
        return Model(backbone=backbone.backbone, fcos=FcosHead(level_ranges=ranges), mask_head=head)
    return Model(
        backbone=backbone.backbone.changed(cache_mb=_cache_mb(backbone, machine)),
        fpn_channels=64,
        fcos=FcosHead(convs=1, level_ranges=ranges),
        mask_branch=MaskBranch(channels=64, convs=2),
        mask_head=head,
    )


def _cache_mb(backbone: BackboneChoice, machine: Machine) -> int:
    """MiB for the features of a backbone that does not learn at all."""
    if not machine.on_cpu or backbone.backbone.frozen_stages < EVERY_STAGE:
        return 0
    most, share = CACHE
    return int(min(most, share * (machine.memory_bytes or most / share))) >> 20


def _cache_reasons(backbone: BackboneChoice, machine: Machine) -> tuple[Reason, ...]:
    megabytes = _cache_mb(backbone, machine)
    if not megabytes:
        return ()
    why = "the backbone is frozen: what it says of an image is computed once and remembered"
    return (Reason(what="features", value=f"up to {megabytes} MiB kept", why=why),)


def _checkpoints(total: int, *, has_val: bool) -> Checkpoints:
    tenth = max(total // 10, 1)
    return Checkpoints(
        every=min(tenth, 5000),
        evaluate_every=tenth if has_val else 0,
        patience=STALE if has_val else 0,
    )


def _stop_reason(config: RunConfig, *, has_val: bool) -> Reason:
    if not has_val:
        return Reason(what="early stop", value="none", why="there is no val split to judge by")
    every = config.checkpoints.evaluate_every
    value = f"after {STALE} evaluations without a better one"
    return Reason(
        what="early stop", value=value, why=f"the val split is scored every {every} steps"
    )
