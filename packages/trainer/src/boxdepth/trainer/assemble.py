"""From a resolved config to the parts of a run: the data, the learner, the teacher, inference."""

import hashlib
import json
from pathlib import Path

import torch
from torch import nn

from boxdepth.trainer import config
from boxdepth.trainer.build import build_model, mask_head_spec
from boxdepth.trainer.criterion.rules import LossRules
from boxdepth.trainer.data.loader import BatchLoader, BatchOrder
from boxdepth.trainer.data.store_dataset import TrainingSet, open_training_set
from boxdepth.trainer.distill.pseudo import PseudoRules
from boxdepth.trainer.distill.teacher import Teacher
from boxdepth.trainer.engine.distributed import World, shared
from boxdepth.trainer.engine.optim import optimizer_of
from boxdepth.trainer.engine.schedule import LearningRate, scaled_learning_rate
from boxdepth.trainer.engine.step import StepRules
from boxdepth.trainer.engine.update import Learner
from boxdepth.trainer.inference import InferenceSpec

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
    return run.changed(model=run.model.changed(num_classes=categories))


def training_set(run: config.RunConfig, store: Path) -> TrainingSet:
    """The training store seen through the config's supervision and augmentation."""
    return open_training_set(store, run.data, seed=run.seed)


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


def inference_spec(run: config.RunConfig) -> InferenceSpec:
    """How the run predicts."""
    return InferenceSpec(
        mask_head=mask_head_spec(run.model),
        settings=run.inference,
        autocast=AUTOCAST[run.precision] if run.precision != "fp16" else None,
    )


def config_digest(run: config.RunConfig) -> str:
    """SHA-256 of the resolved config."""
    text = json.dumps(run.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
