"""Two stores -> a run: facts, choices, what the user says over them, a real step, findings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from boxdepth.depthgen.store import DataError, open_store
from boxdepth.trainer import build
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.engine.device import multiplies_bf16
from boxdepth.trainer.errors import ConfigError
from boxdepth.trainer.geometry.tiles import Tiling
from boxdepth.trainer.runs.auto.backbones import BackboneChoice, choose_backbone
from boxdepth.trainer.runs.auto.facts import duplicate_images, read_facts
from boxdepth.trainer.runs.auto.findings import Finding, find_problems
from boxdepth.trainer.runs.auto.picker import Machine, Reason, pick, pick_tiling
from boxdepth.trainer.runs.auto.probe import Probe, memory_of, probe

WEIGHTS = "model.backbone.weights="
TILES = ("data.augmentation.tile=", "data.augmentation.overlap=")
MODEL = "model.backbone.name="


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the user says over the choices."""

    settings: tuple[str, ...] = ()
    """``path.to.field=value``, as `--set` takes them."""
    minutes: float | None = None
    """How long training may take."""
    batch: int | None = None
    """Images a step; None: the recipe's, in as many passes as memory wants."""

    @classmethod
    def typed(
        cls, settings: Sequence[str] | None, *, minutes: float | None, batch: str | None
    ) -> "Wishes":
        """As the command line has them; a batch of ``auto`` is the recipe's own.

        Raises:
            ConfigError: a batch that is no number.
        """
        number = None if batch in (None, "auto") else str(batch)
        if number is not None and not (number.isdecimal() and int(number) > 0):
            raise ConfigError(f"--batch {batch!r}: expected auto, or a number of images")
        return cls(
            settings=tuple(settings or ()), minutes=minutes, batch=int(number) if number else None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A run that is ready to start, and all that a person should know of it before."""

    config: RunConfig
    reasons: tuple[Reason, ...]
    findings: tuple[Finding, ...]
    measured: Probe
    measured_at: int
    """Short side of the input that it was measured with."""
    missing_weights: str | None
    """What to do for the backbone's weights, where they are not on this machine."""

    @property
    def seconds(self) -> float:
        """To the end of the training, as one step was measured; evaluations come on top."""
        share = (self.config.inference.short_side / self.measured_at) ** 2
        return self.config.schedule.iterations * self.measured.seconds_per_step * share

    def to_json(self) -> dict[str, Any]:
        """The choices, what is wrong with the data, and what a step takes."""
        return {
            "choices": [
                {"what": reason.what, "value": reason.value, "why": reason.why}
                for reason in self.reasons
            ],
            "findings": [{"kind": finding.kind, "text": finding.text} for finding in self.findings],
            "seconds": round(self.seconds, 1),
            "seconds_per_step": round(self.measured.seconds_per_step, 4),
            "accumulate": self.measured.accumulate,
            "missing_weights": self.missing_weights,
        }


def make_recipe(train: Path, val: Path | None, *, device: torch.device, wishes: Wishes) -> Recipe:
    """Look at the stores, choose, and make one real step.

    Raises:
        DataError: a store that can't be used, or without boxes.
        ConfigError: a wish that is no setting.
        WeightsError: a weights file that is not there or that names no model.
        DownloadError: ImageNet weights that are not here and can't be fetched.
    """
    store = open_store(train)
    val_store = open_store(val) if val is not None else None
    facts = read_facts(store)
    if not facts.boxes:
        raise DataError(f"{train}: no image with a usable box: nothing to learn from")
    backbone = _backbone(wishes.settings, on_cpu=device.type == "cpu")
    machine = Machine(
        device=device.type,
        bf16=multiplies_bf16(device),
        minutes=wishes.minutes,
        memory_bytes=memory_of(device),
    )
    has_val = val_store is not None and len(val_store) > 0

    tiling = _wished_tiling(wishes.settings) or pick_tiling(facts, machine)

    def chosen(machine: Machine) -> tuple[RunConfig, tuple[Reason, ...]]:
        choice = pick(facts, backbone, machine, has_val=has_val, tiling=tiling)
        told = [f"data.batch_size={wishes.batch}"] if wishes.batch else []
        config = apply_overrides(choice.config, [*told, *_but_weights(wishes.settings)])
        data = config.data.changed(train=train, val=val)
        return config.changed(data=data), choice.reasons

    config, reasons = chosen(machine)
    config = build.with_classes(config, len(facts.categories))
    measured_at = config.inference.short_side
    measured = probe(config, build.training_set(config, train), device)
    if wishes.minutes is not None:
        timed = replace(
            machine,
            seconds_per_step=measured.seconds_per_step,
            measured_at=measured_at,
        )
        config, reasons = chosen(timed)
    config = config.changed(data=config.data.changed(accumulate=measured.accumulate))
    val_facts = read_facts(val_store) if val_store is not None else None
    twice = duplicate_images(store, val_store)
    return Recipe(
        config=config,
        reasons=(*reasons, *_precision_reasons(config, machine)),
        findings=tuple(find_problems(facts, val_facts, config, twice=twice)),
        measured=measured,
        measured_at=measured_at,
        missing_weights=backbone.missing,
    )


def _wished_tiling(settings: Sequence[str]) -> Tiling | None:
    """The tiles that the settings name."""
    augmentation = apply_overrides(
        RunConfig(name="auto"), [text for text in settings if text.startswith(TILES)]
    ).data.augmentation
    return augmentation.tiling


def _backbone(settings: Sequence[str], *, on_cpu: bool) -> BackboneChoice:
    """By the weights file that the settings name, unless they name the model as well."""
    given = [text.removeprefix(WEIGHTS) for text in settings if text.startswith(WEIGHTS)]
    named = any(text.startswith(MODEL) for text in settings)
    if not given or given[-1] in ("timm", "null") or named:
        chosen = choose_backbone(on_cpu=on_cpu)
        return replace(chosen, missing=None) if given or named else chosen
    return choose_backbone(on_cpu=on_cpu, weights=Path(given[-1]).expanduser())


def _but_weights(settings: Sequence[str]) -> list[str]:
    """The settings in order; a file that chose the backbone stands in it already."""
    named = any(text.startswith(MODEL) for text in settings)
    return [
        text
        for text in settings
        if named or not text.startswith(WEIGHTS) or text.removeprefix(WEIGHTS) in ("timm", "null")
    ]


def _precision_reasons(config: RunConfig, machine: Machine) -> tuple[Reason, ...]:
    """None where somebody has set another one."""
    if config.precision != "bf16" or not machine.bf16:
        return ()
    why = "this machine multiplies it: as good, and sooner done"
    return (Reason(what="precision", value="bf16", why=why),)
