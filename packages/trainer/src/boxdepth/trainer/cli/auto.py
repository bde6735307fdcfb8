"""`trainer fit auto`: the words around the choice of a recipe."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxdepth.trainer.cli.app import say
from boxdepth.trainer.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from boxdepth.trainer.runs import Plan
    from boxdepth.trainer.runs.auto.probe import Probe
    from boxdepth.trainer.runs.auto.recipe import Recipe, Wishes

AUTO = "auto"
STORES = Path("stores")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What the user has."""

    train: Path | None
    val: Path | None
    images: Path | None
    """Folder of the images, where `train` and `val` are JSON files."""
    depth_model: str | None


def prepare(data: Data) -> tuple[Path, Path | None]:
    """The stores of a dataset; those that are missing are made, in sight.

    Raises:
        ConfigError: nothing that is known.
        DepthgenFailedError: `depthgen run` did not end well.
    """
    from boxdepth.trainer.runs.auto.sources import Split, find_source, make_store

    if data.train is None:
        raise ConfigError(
            "fit auto: nothing to learn from: give --train DATA, a store or what `depthgen run` "
            "reads (a COCO JSON file, a YOLO, VOC or Roboflow folder)"
        )
    stores = []
    wanted: list[tuple[Split, Path | None]] = [("train", data.train), ("val", data.val)]
    sources = [
        find_source(
            path,
            split=split,
            images=data.images if path.is_file() else None,
            stores=STORES,
            model=data.depth_model,
        )
        for split, path in wanted
        if path is not None
    ]
    for source in sources:
        if source.command is not None:
            say(f"$ {source.typed}", style="dim")
        make_store(source)
        stores.append(source.store)
    return stores[0], stores[1] if len(stores) > 1 else None


def wishes(settings: Sequence[str], *, minutes: float | None, batch: str | None) -> "Wishes":
    """What the command line says over the choices.

    Raises:
        ConfigError: a batch that is no number.
    """
    from boxdepth.trainer.runs.auto.recipe import Wishes

    if batch not in (None, AUTO) and not (str(batch).isdecimal() and int(str(batch)) > 0):
        raise ConfigError(f"--batch {batch!r}: expected auto, or a number of images")
    number = None if batch in (None, AUTO) else int(str(batch))
    return Wishes(settings=tuple(settings), minutes=minutes, batch=number)


def tile_settings(size: int | None, overlap: int) -> list[str]:
    """What `--tile` and `--overlap` mean: a run predicts as it learnt."""
    if size is None:
        return []
    return [
        f"{section}.{name}={value}"
        for section in ("data.augmentation", "inference")
        for name, value in (("tile", size), ("overlap", overlap))
    ]


def refuse_ranks(world: int) -> None:
    """One process chooses for all.

    Raises:
        ConfigError: there are several.
    """
    if world > 1:
        raise ConfigError(
            "fit auto chooses in one process: `trainer fit auto ... --dry-run --json` prints the "
            "config; give it to torchrun with --config"
        )


def refuse_options(resume: bool, **given: object) -> None:
    """Options that only the choice of a recipe understands.

    Raises:
        ConfigError: names them.
    """
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if named:
        where = (
            "a run that is resumed has them already" if resume else "trainer fit auto takes them"
        )
        raise ConfigError(f"{', '.join(named)}: {where}")


def fitted_to_memory(plan: "Plan", device: "torch.device") -> "Plan":
    """The plan with its batch divided into as many passes as the memory wants."""
    from boxdepth.trainer.runs.auto.probe import probe

    found = probe(plan.config, plan.train, device)
    data = plan.config.data.changed(accumulate=found.accumulate)
    _say_memory(plan.config.data.batch_size, found)
    return replace(plan, config=plan.config.changed(data=data))


def choose(data: Data, *, device: "torch.device", wishes: "Wishes") -> "Recipe":
    """The recipe for what the user has, said with its reasons."""
    from boxdepth.trainer.runs.auto.recipe import make_recipe

    train, val = prepare(data)
    recipe = make_recipe(train, val, device=device, wishes=wishes)
    introduce(recipe)
    return recipe


def introduce(recipe: "Recipe") -> None:
    """Say what was chosen and why, what is wrong with the data, and how long it takes."""
    from boxdepth.trainer.cli.console import duration

    width = max(len(reason.what) for reason in recipe.reasons)
    for reason in recipe.reasons:
        say(f"  {reason.what:<{width}}  {reason.value}: {reason.why}")
    _say_memory(recipe.config.data.batch_size, recipe.measured, width=width)
    say(f"  {'time':<{width}}  about {duration(recipe.seconds)} to the end", style="bold")
    for finding in recipe.findings:
        say(f"  {finding.text}", style="yellow")
    if recipe.missing_weights is not None:
        say(f"  {recipe.missing_weights}", style="yellow")


def _say_memory(images: int, measured: "Probe", *, width: int = 0) -> None:
    passes = "" if measured.accumulate == 1 else f" in {measured.accumulate} passes"
    say(
        f"  {'memory':<{width}}  a real step of {images} images{passes} took "
        f"{measured.peak_bytes / 2**30:.1f} of {measured.memory_bytes / 2**30:.1f} GiB and "
        f"{measured.seconds_per_step:.2g} s"
    )


def described(recipe: "Recipe") -> dict[str, Any]:
    """The choices for scripts."""
    return {
        "choices": [
            {"what": reason.what, "value": reason.value, "why": reason.why}
            for reason in recipe.reasons
        ],
        "findings": [{"kind": finding.kind, "text": finding.text} for finding in recipe.findings],
        "seconds": round(recipe.seconds, 1),
        "seconds_per_step": round(recipe.measured.seconds_per_step, 4),
        "accumulate": recipe.measured.accumulate,
        "missing_weights": recipe.missing_weights,
    }
