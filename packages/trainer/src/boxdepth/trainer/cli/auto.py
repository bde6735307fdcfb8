"""`trainer fit auto`: the words around the choice of a recipe."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from boxdepth.trainer.cli.app import say
from boxdepth.trainer.errors import ConfigError
from boxdepth.trainer.words import counted

if TYPE_CHECKING:
    import torch

    from boxdepth.trainer.runs import Plan
    from boxdepth.trainer.runs.auto.probe import Probe
    from boxdepth.trainer.runs.auto.recipe import Recipe, Wishes
    from boxdepth.trainer.runs.auto.sources import UserData

AUTO = "auto"
STORES = Path("stores")


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


def choose(data: "UserData", wishes: "Wishes", device: "torch.device", *, world: int) -> "Recipe":
    """The recipe for what the user has, said with its reasons.

    Raises:
        ConfigError: there are several processes, and one chooses for all.
    """
    from boxdepth.trainer.runs.auto.recipe import make_recipe
    from boxdepth.trainer.runs.auto.sources import stores_of

    if world > 1:
        raise ConfigError(
            "fit auto chooses in one process: `trainer fit auto ... --dry-run --json` prints the "
            "config; give it to torchrun with --config"
        )
    train, val = stores_of(data, STORES, on_command=lambda typed: say(f"$ {typed}", style="dim"))
    recipe = make_recipe(train, val, device=device, wishes=wishes)
    _introduce(recipe)
    return recipe


def _introduce(recipe: "Recipe") -> None:
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
        f"  {'memory':<{width}}  a real step of {counted(images, 'image')}{passes} took "
        f"{measured.peak_bytes / 2**30:.1f} of {measured.memory_bytes / 2**30:.1f} GiB and "
        f"{measured.seconds_per_step:.2g} s"
    )
