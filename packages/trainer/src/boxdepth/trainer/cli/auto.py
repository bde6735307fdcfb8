"""`trainer fit auto`: the words around the choice of a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxdepth.trainer.cli.app import say

if TYPE_CHECKING:
    import torch

    from boxdepth.trainer.auto.recipe import Recipe, Wishes

AUTO = "auto"
STORES = Path("stores")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What the user has."""

    train: Path
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
    from boxdepth.trainer.auto.sources import Split, find_source, make_store

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


def choose(data: Data, *, device: "torch.device", wishes: "Wishes") -> "Recipe":
    """The recipe for what the user has, said with its reasons."""
    from boxdepth.trainer.auto.recipe import make_recipe

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
    measured = recipe.measured
    passes = "" if measured.accumulate == 1 else f" in {measured.accumulate} passes"
    say(
        f"  {'memory':<{width}}  a real step of {recipe.config.data.batch_size} images{passes} "
        f"took {measured.peak_bytes / 2**30:.1f} of {measured.memory_bytes / 2**30:.1f} GiB and "
        f"{measured.seconds_per_step:.2g} s"
    )
    say(f"  {'time':<{width}}  about {duration(recipe.seconds)} to the end", style="bold")
    for finding in recipe.findings:
        say(f"  {finding.text}", style="yellow")
    if recipe.missing_weights is not None:
        say(f"  {recipe.missing_weights}", style="yellow")


def described(recipe: "Recipe") -> Mapping[str, Any]:
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
