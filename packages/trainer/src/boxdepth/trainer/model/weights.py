"""Weights into a model, every tensor accounted for."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from boxdepth.trainer.errors import WeightsError
from boxdepth.trainer.model.backbone import Backbone
from boxdepth.trainer.model.condinst import CondInst
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec
from boxdepth.trainer.model.weight_files import check_finite, read_tensors, shortened
from boxdepth.trainer.model.weight_names import from_adelaidet, from_detectron2, from_timm

log = logging.getLogger(__name__)

CLASS_LAYERS = ("head.class_logits.", "semantic_head.output.")
"""Layers whose shape is the number of classes: another number starts them anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsReport:
    """What became of every tensor of a file, and of the model."""

    source: str
    loaded: tuple[str, ...]
    """Tensors of the model that came from the file."""
    started_anew: tuple[str, ...] = ()
    """Tensors of the model whose shape in the file is another, with both shapes."""
    not_in_file: tuple[str, ...] = ()
    """Tensors of the model that the file doesn't have and need not have."""
    not_used: tuple[str, ...] = ()
    """Tensors of the file that the model has no place for."""

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.loaded)} tensors loaded"]
        for title, names in (
            ("started anew", self.started_anew),
            ("not in the file", self.not_in_file),
            ("not used", self.not_used),
        ):
            if names:
                lines.append(f"  {len(names)} {title}: {shortened(names)}")
        return "\n".join(lines)


@dataclass(slots=True)
class _Accounts:
    loaded: dict[str, Tensor] = field(default_factory=dict)
    started_anew: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def load_backbone(backbone: Backbone, path: Path) -> WeightsReport:
    """Weights of a timm, torchvision or detectron2 backbone into ours.

    A tensor of the file that is no part of the features (a classifier, say) is reported as unused.

    Raises:
        WeightsError: the file can't be read, lacks a tensor, or has one of another shape.
    """
    tensors = read_tensors(path)
    children = [name for name, _ in backbone.net.named_children()]
    renamed = {}
    for name, tensor in tensors.items():
        inner = name.removeprefix("module.").removeprefix("backbone.net.")
        renamed[from_detectron2(inner) or from_timm(inner, children)] = tensor
    return _load(backbone.net, renamed, source=str(path))


def load_adelaidet(model: CondInst, tensors: Mapping[str, Tensor], *, source: str) -> WeightsReport:
    """A CondInst or BoxInst checkpoint of AdelaiDet into our network.

    Layers for another number of classes start anew.  Weights without depth layer fit a model with
    one: the depth layer's part of the controller keeps its initial values.

    Raises:
        WeightsError: a tensor is missing or has another shape.
    """
    renamed: dict[str, Tensor] = {}
    not_used = []
    scales: dict[int, Tensor] = {}
    convs = len(model.mask_branch.tower)
    for name, tensor in tensors.items():
        ours = from_adelaidet(name.removeprefix("module."), mask_convs=convs)
        if ours is None:
            not_used.append(name)
        elif ours.startswith("head.scales."):
            scales[int(ours.rsplit(".", 1)[1])] = tensor
        else:
            renamed[ours] = tensor
    if scales:
        renamed["head.scales"] = torch.cat([scales[level].reshape(1) for level in sorted(scales)])
    _grow_controller(renamed, model)
    return _load(model, renamed, source=source, not_used=not_used)


def is_adelaidet(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of a whole CondInst or BoxInst of AdelaiDet."""
    return any(name.removeprefix("module.").startswith("proposal_generator.") for name in tensors)


def adelaidet_classes(tensors: Mapping[str, Tensor]) -> int:
    """Number of classes of an AdelaiDet checkpoint."""
    for name, tensor in tensors.items():
        if name.endswith("fcos_head.cls_logits.bias"):
            return len(tensor)
    raise WeightsError("the checkpoint has no class logits (proposal_generator...cls_logits.bias)")


def _load(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    not_used: list[str] | None = None,
) -> WeightsReport:
    state = module.state_dict()
    accounts = _accounts(state, tensors)
    absent = [name for name in state if name not in tensors]
    needed = [name for name in absent if not _has_a_default(name, tensors)]
    if needed:
        accounts.problems.append(f"{len(needed)} tensors are missing: {shortened(needed)}")
    unused = (not_used or []) + [name for name in tensors if name not in state]
    if accounts.problems:
        raise WeightsError(
            f"{source} doesn't fit: {'; '.join(accounts.problems)}; "
            f"the file's tensors are called {shortened(list(tensors))}"
        )
    check_finite(accounts.loaded, source=source)
    module.load_state_dict(accounts.loaded | _defaults(state, absent), strict=False)
    report = WeightsReport(
        source=source,
        loaded=tuple(accounts.loaded),
        started_anew=tuple(accounts.started_anew),
        not_in_file=tuple(absent),
        not_used=tuple(unused),
    )
    log.info("%s", report)
    return report


def _accounts(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> _Accounts:
    accounts = _Accounts()
    for name, tensor in tensors.items():
        if name not in state:
            continue
        seen, expected = tuple(tensor.shape), tuple(state[name].shape)
        if seen == expected or tensor.numel() == state[name].numel() == 1:
            accounts.loaded[name] = tensor.reshape(expected).to(state[name].dtype)
        elif name.startswith(CLASS_LAYERS) and seen[1:] == expected[1:]:
            accounts.started_anew.append(f"{name} ({seen[0]} classes, expected {expected[0]})")
        else:
            accounts.problems.append(f"{name} is {seen}, expected {expected}")
    return accounts


def _has_a_default(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Counters of batch norms, and the statistics of norms that came without (MSRA's)."""
    if name.endswith(".num_batches_tracked"):
        return True
    norm, _, leaf = name.rpartition(".")
    if leaf in {"running_mean", "running_var"}:
        return f"{norm}.weight" in tensors and f"{norm}.bias" in tensors
    return ".offset." in f".{name}"


def _defaults(state: Mapping[str, Tensor], absent: list[str]) -> dict[str, Tensor]:
    """Statistics that leave weight and bias as they are: mean 0, variance 1 - eps."""
    defaults = {}
    for name in absent:
        if name.endswith(".running_mean"):
            defaults[name] = torch.zeros_like(state[name])
        elif name.endswith(".running_var"):
            defaults[name] = torch.full_like(state[name], 1 - 1e-5)
    return defaults


def _grow_controller(tensors: dict[str, Tensor], model: CondInst) -> None:
    """Give a controller without depth layer its depth rows, in the model's initial values."""
    spec = model.mask_head
    if spec.depth == "off" or "controller.bias" not in tensors:
        return
    rows = _rows_without_depth(spec)
    if len(tensors["controller.bias"]) != len(rows):
        return
    for name in ("weight", "bias"):
        grown: Tensor = getattr(model.controller, name).detach().clone()
        grown[rows] = tensors[f"controller.{name}"].to(grown.dtype)
        tensors[f"controller.{name}"] = grown


def _rows_without_depth(spec: MaskHeadSpec) -> Tensor:
    """Numbers of the controller's outputs that a mask head without depth layer has too."""
    shapes = spec.layer_shapes
    sizes = [out * inputs for out, inputs in shapes] + [out for out, _ in shapes]
    depth_layer = len(shapes) - 2
    parts = torch.split(torch.arange(sum(sizes)), sizes)
    return torch.cat([part for i, part in enumerate(parts) if i % len(shapes) != depth_layer])
