"""Optimiser and its parameter groups."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from boxdepth.trainer.engine.rules import Optimizer

NORMS: tuple[type[nn.Module], ...] = (
    nn.GroupNorm,
    nn.LayerNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)

FUSED_DEVICES = {"cpu", "cuda"}
"""On which torch updates all parameters in one kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters that share a weight decay, with the names they have in the state dict."""

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    weight_decay: float


def parameter_groups(
    model: nn.Module, *, weight_decay: float, norm_weight_decay: float
) -> tuple[ParameterGroup, ParameterGroup]:
    """(everything else, affine parameters of norms): each learnt parameter exactly once.

    Biases and the FCOS scales decay like weights (detectron2's rule).
    """
    in_norm: dict[bool, dict[str, nn.Parameter]] = {False: {}, True: {}}
    for is_norm, name, parameter in _learnt(model):
        in_norm[is_norm][name] = parameter
    decayed, norms = (
        ParameterGroup(names=tuple(part), parameters=tuple(part.values()), weight_decay=decay)
        for part, decay in ((in_norm[False], weight_decay), (in_norm[True], norm_weight_decay))
    )
    return decayed, norms


def _learnt(model: nn.Module) -> Iterator[tuple[bool, str, nn.Parameter]]:
    seen: set[nn.Parameter] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield isinstance(module, NORMS), name, parameter


def make_optimizer(
    groups: tuple[ParameterGroup, ...],
    *,
    name: Literal["sgd", "adamw"],
    learning_rate: float,
    momentum: float,
) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW with its usual betas; one kernel for all where there is one."""
    options = [
        {"params": list(group.parameters), "weight_decay": group.weight_decay}
        for group in groups
        if group.parameters
    ]
    devices = {p.device.type for group in groups for p in group.parameters}
    fused = devices <= FUSED_DEVICES
    if name == "sgd":
        return torch.optim.SGD(options, lr=learning_rate, momentum=momentum, fused=fused)
    return torch.optim.AdamW(options, lr=learning_rate, fused=fused)


def optimizer_of(
    model: nn.Module, settings: Optimizer, *, learning_rate: float
) -> torch.optim.Optimizer:
    """The optimiser of everything that learns in ``model``."""
    groups = parameter_groups(
        model,
        weight_decay=settings.weight_decay,
        norm_weight_decay=settings.norm_weight_decay,
    )
    return make_optimizer(
        groups, name=settings.name, learning_rate=learning_rate, momentum=settings.momentum
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """All groups learn at ``rate`` from now on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
