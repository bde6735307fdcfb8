"""Which pretrained backbone is at hand, and what it expects."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxdepth.trainer.config import Backbone
from boxdepth.trainer.errors import WeightsError

LARGE, SMALL = "resnet50", "tf_efficientnet_lite2"
"""For an accelerator, and for a CPU."""
SMALL_ONES = (SMALL, "tf_efficientnet_lite0", "mobilenetv3_large_100", "resnet18")
"""In order of preference, where one of them is on this machine already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneChoice:
    """A backbone and where its weights come from."""

    backbone: Backbone
    why: str
    missing: str | None = None
    """What to do where its weights are not on this machine; None: they are."""


def choose_backbone(*, on_cpu: bool, weights: Path | None = None) -> BackboneChoice:
    """The backbone of a run.

    Args:
        weights: a file that the user gave; its name begins with that of timm's model.

    Raises:
        WeightsError: the file is not there, or its name names no model.
    """
    if weights is not None:
        return _from_file(weights, on_cpu=on_cpu)
    names = SMALL_ONES if on_cpu else (LARGE,)
    here = next((name for name in names if weights_at_hand(name)), None)
    name = here or names[0]
    why = "small enough for a CPU" if on_cpu else "the backbone of the papers"
    return BackboneChoice(
        backbone=_settings(name, weights="timm", on_cpu=on_cpu),
        why=why + ("" if here is None else ", and its ImageNet weights are on this machine"),
        missing=None if here else _cure(name),
    )


def weights_at_hand(name: str) -> bool:
    """Whether timm's weights of a model are on this machine already; asks no network."""
    from huggingface_hub import try_to_load_from_cache
    from timm.models import get_pretrained_cfg
    from torch.hub import get_dir

    found: Any = get_pretrained_cfg(name)
    if found is None:
        return False
    if found.hf_hub_id:
        files = ("model.safetensors", "pytorch_model.bin")
        return any(isinstance(try_to_load_from_cache(found.hf_hub_id, f), str) for f in files)
    return bool(found.url) and (Path(get_dir()) / "checkpoints" / Path(found.url).name).is_file()


def model_of_file(path: Path) -> str:
    """timm's model that a weights file is named after: the longest name that its own begins with.

    Raises:
        WeightsError: no model is called so.
    """
    import timm

    stem = path.name.split(".")[0].lower()
    fits = [name for name in timm.list_models() if stem == name or stem.startswith(f"{name}_")]
    if not fits:
        raise WeightsError(
            f"{path}: its name begins with no model of timm's, so nobody can tell what it is for; "
            "expected e.g. resnet50_imagenet.safetensors, or --set model.backbone.name=MODEL too"
        )
    return max(fits, key=len)


def _from_file(path: Path, *, on_cpu: bool) -> BackboneChoice:
    if not path.is_file():
        raise WeightsError(f"no weights file at {path}")
    name = model_of_file(path)
    return BackboneChoice(
        backbone=_settings(name, weights=path, on_cpu=on_cpu), why=f"the weights of {path.name}"
    )


def _settings(name: str, *, weights: Any, on_cpu: bool) -> Backbone:
    from timm.models import get_pretrained_cfg

    known: Any = get_pretrained_cfg(name)
    mean, std = (known.mean, known.std) if known is not None else ((0.5,) * 3, (0.5,) * 3)
    red, green, blue = (round(255 * value, 3) for value in mean)
    deviations = tuple(round(255 * value, 3) for value in std)
    return Backbone(
        name=name,
        weights=weights,
        frozen_stages=5 if on_cpu else 2,
        frozen_norm=True,
        pixel_mean=(red, green, blue),
        pixel_std=(deviations[0], deviations[1], deviations[2]),
    )


def _cure(name: str) -> str:
    return (
        f"the ImageNet weights of {name} are not on this machine: timm fetches them when the run "
        "starts. Without a network fetch them elsewhere ("
        f"python -c \"import timm, safetensors.torch as s; s.save_file(timm.create_model('{name}', "
        f"pretrained=True).state_dict(), '{name}_imagenet.safetensors')\") and give "
        f"--set model.backbone.weights={name}_imagenet.safetensors. From random weights a few "
        "hundred photos teach nothing"
    )
