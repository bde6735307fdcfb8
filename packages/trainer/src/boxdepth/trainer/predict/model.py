"""The network of a run or a checkpoint, ready to predict."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from boxdepth.depthgen.store import Category
from boxdepth.trainer.build import build_model
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.engine.checkpoint import find_checkpoint, load_checkpoint
from boxdepth.trainer.errors import CheckpointError, ConfigError
from boxdepth.trainer.model.condinst import CondInst
from boxdepth.trainer.model.folded import absorb_norms
from boxdepth.trainer.model.weight_files import check_finite

Which = Literal["teacher", "student"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A trained network and what it was trained for."""

    network: CondInst
    config: RunConfig
    categories: tuple[Category, ...]
    which: Which

    @property
    def category_names(self) -> tuple[str, ...]:
        """Names of its classes."""
        return tuple(category.name for category in self.categories)


def load_model(path: Path, device: torch.device, *, weights: Which | None = None) -> Model:
    """The network of a run (its best checkpoint, else its latest) or of a checkpoint.

    Args:
        weights: None: the teacher's, if there is one.

    Raises:
        ConfigError: weights of neither.
        CheckpointError: none there, damaged, or without the weights that were asked for.
        WeightsError: weights that are not finite.
    """
    if weights not in (None, *get_args(Which)):
        raise ConfigError(f"weights {weights!r}: expected teacher or student")
    folder = find_checkpoint(path)
    checkpoint = load_checkpoint(folder)
    which = weights or ("teacher" if checkpoint.teacher is not None else "student")
    state = checkpoint.teacher if which == "teacher" else checkpoint.model
    if state is None:
        raise CheckpointError(f"{folder}: has no teacher; use --weights student")
    check_finite(state, source=str(folder))
    network, config, categories = _rebuilt(folder, checkpoint.run, state)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    return Model(
        network=network.to(device).to(memory_format=layout).eval(),
        config=config,
        categories=categories,
        which=which,
    )


def _rebuilt(
    folder: Path, run: Mapping[str, Any], state: dict[str, Tensor]
) -> tuple[CondInst, RunConfig, tuple[Category, ...]]:
    try:
        config = RunConfig.model_validate(run["config"])
        categories = tuple(
            Category(id=int(c["id"]), name=str(c["name"])) for c in run["categories"]
        )
        network = build_model(config.model)
        network.load_state_dict(state)
        absorb_norms(network)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder}: does not fit this version: {reason}") from error
    if len(categories) != config.model.num_classes:
        raise CheckpointError(
            f"{folder}: names {len(categories)} categories for a network of "
            f"{config.model.num_classes} classes"
        )
    return network, config, categories
