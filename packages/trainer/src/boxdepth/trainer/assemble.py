"""From a resolved config to the parts of a run: the data, the learner, the teacher, inference."""

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from boxdepth.trainer import config
from boxdepth.trainer.build import build_model, loss_spec, mask_head_spec
from boxdepth.trainer.data.loader import BatchLoader, BatchOrder
from boxdepth.trainer.data.store_dataset import SampleOptions, TrainingSet, open_training_set
from boxdepth.trainer.distill.matchers import Matcher, match_by_depth, match_like_box_teacher
from boxdepth.trainer.distill.pseudo import Distiller, pseudo_masks
from boxdepth.trainer.distill.teacher import make_teacher, teacher_momentum, update_teacher
from boxdepth.trainer.engine.distributed import World
from boxdepth.trainer.engine.loop import Intervals
from boxdepth.trainer.engine.optim import make_optimizer, parameter_groups
from boxdepth.trainer.engine.schedule import learning_rate, scaled_learning_rate
from boxdepth.trainer.engine.step import PairSpec, StepSpec, Teach, step_losses
from boxdepth.trainer.engine.update import Learner, Losses
from boxdepth.trainer.inference import InferenceSpec
from boxdepth.trainer.predict import detect
from boxdepth.trainer.structures import Batch, PseudoMasks

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    model = run.model.model_copy(update={"num_classes": categories})
    return run.model_copy(update={"model": model})


def training_set(run: config.RunConfig, store: Path) -> TrainingSet:
    """The training store seen through the config's supervision and augmentation."""
    data = run.data
    options = SampleOptions(
        short_sides=data.augmentation.short_sides,
        max_size=data.augmentation.max_size,
        flip=data.augmentation.flip,
        color=data.augmentation.color,
        seed=run.seed,
        supervision=data.supervision,
        mask_fraction=data.mask_fraction,
        bottom_rows_removed=data.bottom_rows_removed,
    )
    return open_training_set(store, options, keep_empty=data.keep_empty)


def batch_loader(run: config.RunConfig, dataset: TrainingSet, world: World) -> BatchLoader:
    """The batches of this rank."""
    order = BatchOrder(
        samples=len(dataset),
        batch_size=run.data.batch_size,
        seed=run.seed,
        landscape=dataset.landscape if run.data.group_aspect else None,
    )
    return BatchLoader(
        dataset,
        order,
        rank=world.rank,
        world=world.size,
        accumulate=run.data.accumulate,
        workers=run.data.workers,
        timeout=run.data.timeout_seconds,
    )


def build_learner(run: config.RunConfig, device: torch.device, world: World) -> Learner:
    """Network, teacher, optimiser and schedule, weights initialised from the seed."""
    torch.manual_seed(run.seed)
    model = build_model(run.model).to(device)
    if run.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model.train()
    teacher = make_teacher(model) if run.distillation.method != "off" else None
    network = _wrapped(model, run, device, world)
    groups = parameter_groups(
        model,
        weight_decay=run.optimizer.weight_decay,
        norm_weight_decay=run.optimizer.norm_weight_decay,
    )
    optimizer = make_optimizer(
        groups,
        name=run.optimizer.name,
        learning_rate=base_learning_rate(run),
        momentum=run.optimizer.momentum,
    )
    return Learner(
        model=model,
        network=network,
        losses=_losses(network, run, _teach(teacher, run)),
        optimizer=optimizer,
        learning_rate=schedule_of(run),
        scaler=torch.amp.GradScaler(device.type, enabled=run.precision == "fp16"),
        device=device,
        seed=run.seed,
        rank=world.rank,
        clip_norm=run.optimizer.clip_norm,
        teacher=teacher,
        teacher_from=run.distillation.start,
        update_teacher=_teacher_update(teacher, model, run),
    )


def base_learning_rate(run: config.RunConfig) -> float:
    """The learning rate after the warm-up, for this batch size."""
    return scaled_learning_rate(
        run.optimizer.learning_rate,
        batch_size=run.data.batch_size,
        reference_batch_size=run.optimizer.reference_batch_size,
    )


def schedule_of(run: config.RunConfig) -> Callable[[int], float]:
    """Learning rate of each iteration."""
    return functools.partial(
        learning_rate,
        base=base_learning_rate(run),
        steps=run.schedule.steps,
        gamma=run.schedule.gamma,
        warmup_iterations=run.schedule.warmup_iterations,
        warmup_factor=run.schedule.warmup_factor,
    )


def step_spec(run: config.RunConfig) -> StepSpec:
    """What a forward pass needs to know."""
    losses = run.losses
    return StepSpec(
        num_classes=run.model.num_classes,
        mask_head=mask_head_spec(run.model),
        losses=loss_spec(run),
        pairs=PairSpec(**losses.pairs.model_dump()),
        center_radius=run.model.fcos.center_radius,
        level_ranges=run.model.fcos.level_ranges,
        per_image=losses.sampling.per_image,
        per_batch=losses.sampling.per_batch,
        autocast=AUTOCAST[run.precision],
    )


def inference_spec(run: config.RunConfig) -> InferenceSpec:
    """How the run predicts."""
    return InferenceSpec(
        mask_head=mask_head_spec(run.model),
        autocast=AUTOCAST[run.precision] if run.precision != "fp16" else None,
        **run.inference.model_dump(),
    )


def intervals(run: config.RunConfig) -> Intervals:
    """When to save, evaluate and report."""
    every = run.checkpoints
    return Intervals(
        checkpoint=every.every, keep=every.keep, evaluate=every.evaluate_every,
        report=every.log_every,
    )  # fmt: skip


def config_digest(run: config.RunConfig) -> str:
    """SHA-256 of the resolved config."""
    text = json.dumps(run.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _wrapped(
    model: nn.Module, run: config.RunConfig, device: torch.device, world: World
) -> nn.Module:
    network: nn.Module = torch.compile(model) if run.compile else model  # type: ignore[assignment]
    if world.size == 1:
        return network
    ids = [device.index or 0] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)


def _losses(network: nn.Module, run: config.RunConfig, teach: Teach) -> Losses:
    spec = step_spec(run)
    return lambda batch, step: step_losses(network, batch, spec=spec, step=step, teach=teach)


def _teacher_update(
    teacher: nn.Module | None, student: nn.Module, run: config.RunConfig
) -> Callable[[int], None]:
    settings = run.distillation
    like_box_teacher = settings.method == "box_teacher"

    def update(step: int) -> None:
        if teacher is not None and step >= settings.start:
            momentum = teacher_momentum(
                step - settings.start, momentum=settings.momentum, ramp=like_box_teacher
            )
            update_teacher(
                teacher, student, momentum=momentum, average_buffers=not like_box_teacher
            )

    return update


def distiller(run: config.RunConfig) -> Distiller:
    """How the teacher's predictions become targets."""
    settings, spec = run.distillation, inference_spec(run)
    return Distiller(
        detect=functools.partial(
            detect,
            score_threshold=spec.score_threshold,
            threshold_with_quality=spec.threshold_with_quality,
            pre_nms=spec.pre_nms,
            nms_iou=spec.nms_iou,
            max_detections=spec.max_detections,
        ),
        matcher=_matcher(run),
        mask_head=spec.mask_head,
        short_side=settings.teacher_short_side,
        max_size=settings.teacher_max_size,
        binarize=settings.binarize,
        mask_threshold=settings.mask_threshold,
        batch_stats=settings.teacher_batch_stats,
        autocast=AUTOCAST[run.precision],
    )


def _teach(teacher: nn.Module | None, run: config.RunConfig) -> Teach:
    settings = run.distillation
    if teacher is None:
        return lambda batch, step: None
    how = distiller(run)

    def teach(batch: Batch, step: int) -> PseudoMasks | None:
        if step < settings.start:
            return None
        progress = step / run.schedule.iterations
        return pseudo_masks(teacher, batch, how, progress=progress)

    return teach


def _matcher(run: config.RunConfig) -> Matcher:
    settings = run.distillation
    if settings.method == "box_teacher":
        return functools.partial(match_like_box_teacher, mask_threshold=settings.mask_threshold)
    matching = settings.matching
    return functools.partial(
        match_by_depth,
        alpha=matching.alpha,
        beta=matching.beta,
        beta_schedule=matching.beta_schedule,
        overlap=matching.iou,
        depth_score=matching.depth_score,
        reliability=settings.reliability,
        mask_threshold=settings.mask_threshold,
        theta=run.losses.pairs.theta,
    )
