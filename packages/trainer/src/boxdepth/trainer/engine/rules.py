"""What the engine can be told."""

from typing import Literal

from boxdepth.trainer.config.settings import (
    Fraction,
    NonNegative,
    Positive,
    Scale,
    Settings,
    Weight,
)


class Checkpoints(Settings):
    """What happens every so many steps."""

    every: Positive = 5000
    """Iterations between two checkpoints."""
    keep: Positive = 2
    """Newest checkpoints to keep; the best one stays as well."""
    evaluate_every: NonNegative = 0
    """Iterations between two evaluations on the val store; 0: only at the end."""
    patience: NonNegative = 0
    """Evaluations without a better score after which the run ends, once the learning rate has
    dropped; 0: it goes on to its end."""
    log_every: Positive = 20
    """Iterations between two reports; the health of the run is looked at in the last of them."""
    samples: NonNegative = 3
    """Training images whose masks are drawn at every checkpoint, into `samples/`."""
    track: tuple[Literal["wandb", "mlflow"], ...] = ()
    """Experiment trackers that are told numbers and pictures, too."""


class Optimizer(Settings):
    """Which optimiser, and what it does to whom."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Scale = 0.01
    """For `reference_batch_size` images a step; scaled linearly with the batch size."""
    reference_batch_size: Positive = 16
    momentum: Fraction = 0.9
    weight_decay: Weight = 1e-4
    norm_weight_decay: Weight = 0.0
    clip_norm: Scale | None = None
