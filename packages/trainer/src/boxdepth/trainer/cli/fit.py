"""`trainer fit`: from two stores to a run folder."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxdepth.trainer.cli import auto, options
from boxdepth.trainer.cli.app import AsJson, Device, app, console, emit, interactive, say
from boxdepth.trainer.words import counted

if TYPE_CHECKING:
    import torch

    from boxdepth.trainer.config import RunConfig
    from boxdepth.trainer.engine.distributed import World
    from boxdepth.trainer.runs import Fitted, Plan

EXAMPLES = """
Examples:

  trainer fit auto --train boxes.json --images photos --dry-run        (says what and why)

  trainer fit scenes_tiny --train stores/scenes-train2017.zarr --val stores/scenes-val2017.zarr

  trainer fit coco_r50_1x --set data.batch_size=4 --set data.accumulate=2 --set precision=bf16

  trainer fit --resume --out runs/coco_r50_1x        (goes on with that run's own settings)

  torchrun --nproc-per-node 8 -m boxdepth.trainer.cli fit coco_r50_1x
"""

APS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}


@app.command(epilog=EXAMPLES)
def fit(
    preset: options.Preset = None,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
    init: options.Init = None,
    fork: options.Fork = None,
    train: options.Train = None,
    val: options.Val = None,
    val_annotations: options.ValAnnotations = None,
    out: options.Out = None,
    max_iterations: options.MaxIterations = None,
    resume: options.Resume = False,
    overwrite: options.OverwriteRun = False,
    dry_run: options.DryRun = False,
    images: options.TrainImages = None,
    depth_model: options.DepthModel = None,
    minutes: options.Minutes = None,
    batch: options.Batch = None,
    tile: options.TrainTile = None,
    overlap: options.TrainOverlap = 128,
    device: Device = "auto",
    precision: options.Precision = None,
    seed: options.Seed = None,
    as_json: AsJson = False,
) -> None:
    """Train from boxes and pseudo-depth; predicts and scores on the val store at the end."""
    from boxdepth.trainer.runs.settings import flag_settings, tile_settings
    from boxdepth.trainer.runs.start import Start

    start = Start(resumes=resume, weights=init, forked=fork, overwrites=overwrite)
    flags = {"data.val_annotations": val_annotations, "precision": _named(precision), "seed": seed}
    settings = [*(settings or []), *tile_settings(tile, overlap), *flag_settings(flags)]
    automatic = preset == auto.AUTO and not resume
    if not automatic:
        auto.refuse_options(resume, images=images, depth_model=depth_model, minutes=minutes)
        data = {"data.train": train, "data.val": val, "data.batch_size": _named(batch)}
        run = _chosen(preset, config, out, [*settings, *flag_settings(data)], resume=resume)
    # What was mistyped has been said by now, before torch is loaded.
    from boxdepth.trainer.runs import plan_run

    world, target = _machine(device)
    recipe = None
    if automatic:
        from boxdepth.trainer.runs.auto.recipe import Wishes
        from boxdepth.trainer.runs.auto.sources import UserData

        user = UserData(train=train, val=val, images=images, depth_model=depth_model)
        wishes = Wishes.typed(settings, minutes=minutes, batch=batch)
        recipe = auto.choose(user, wishes, target, world=world.size)
        run = recipe.config
    run = _suited(run, None if resume else precision, target)
    plan = plan_run(
        run, out=out, start=start, max_iterations=max_iterations, val_may_be_absent=val is None
    )
    if batch == auto.AUTO and recipe is None and not resume:
        plan = auto.fitted_to_memory(plan, target)
    if dry_run:
        emit(_describe(plan) | (recipe.to_json() if recipe else {}), as_json=as_json)
    else:
        _go(plan, target, silent=not world.is_main, as_json=as_json)


def _named(value: str | None) -> str | None:
    """What was asked for by name; None for auto, which is settled once torch is loaded."""
    return None if value == auto.AUTO else value


def _suited(run: "RunConfig", precision: str | None, device: "torch.device") -> "RunConfig":
    """The run in the precision that ``auto`` means here, where it was asked for."""
    from boxdepth.trainer.engine.device import fitting_precision

    if precision != auto.AUTO:
        return run
    return run.changed(precision=fitting_precision(device))


def _machine(device: str) -> "tuple[World, torch.device]":
    """The ranks, of which the first alone speaks, and this one's device."""
    from boxdepth.trainer.engine.device import choose_device
    from boxdepth.trainer.engine.distributed import world_from_environment

    world = world_from_environment()
    console.quiet = console.quiet or not world.is_main
    return world, choose_device(device, local_rank=world.local_rank)


def _chosen(
    preset: str | None, file: Path | None, out: Path | None, told: list[str], *, resume: bool
) -> "RunConfig":
    """A preset, a file, or the settings of the run that is to be resumed, as it was ``told``."""
    from boxdepth.trainer.config.overrides import apply_overrides
    from boxdepth.trainer.runs.settings import chosen_config

    if preset == auto.AUTO:
        preset, out = None, out or Path("runs") / auto.AUTO
    return apply_overrides(chosen_config(preset, file, resumed=out if resume else None), told)


def _go(plan: "Plan", device: "torch.device", *, silent: bool, as_json: bool) -> None:
    from boxdepth.trainer.engine.allocator import keep_freed_memory

    keep_freed_memory()
    _introduce(plan, device)
    fitted = _train(plan, device, silent=silent)
    if not silent:
        _conclude(plan, fitted)
        emit(fitted.to_json(), as_json=as_json)


def _train(plan: "Plan", device: "torch.device", *, silent: bool) -> "Fitted":
    from boxdepth.trainer.cli.console import RunDisplay
    from boxdepth.trainer.runs import train

    live, moves = interactive() and not silent, plan.stop_at == plan.config.schedule.iterations
    name, stop = plan.config.name, plan.stop_at
    with RunDisplay(console, name=name, stop=stop, moves=moves, live=live) as display:
        command = shlex.join(["trainer", *sys.argv[1:]])
        return train(plan, device=device, listener=display, command=command)


def _introduce(plan: "Plan", device: "torch.device") -> None:
    from boxdepth.trainer.build import base_learning_rate

    config, census = plan.config, plan.train.census
    left_out = ", ".join(census.left_out)
    say(f"{config.name}: {_iterations(plan)} on {device}, into {plan.folder}", style="bold")
    say(
        f"  learns from {counted(census.boxes_used, 'box', 'es')} on "
        f"{counted(census.images_used, 'image')} of {plan.train.store.path}"
        + (f" (left out: {left_out})" if left_out else "")
    )
    if census.images_without_depth:
        say(
            f"  boxes and colour only, no usable depth: "
            f"{counted(census.images_without_depth, 'image')}"
        )
    for note in plan.notes:
        say(f"  {note}", style="yellow")
    say(
        f"  learning rate {base_learning_rate(config):g}: "
        f"{config.optimizer.learning_rate:g} for "
        f"{counted(config.optimizer.reference_batch_size, 'image')} a step, "
        f"{config.data.batch_size} here"
    )


def _iterations(plan: "Plan") -> str:
    total = plan.config.schedule.iterations
    some = "" if plan.stop_at == total else f" (of {total})"
    images = counted(plan.config.data.batch_size, "image")
    return f"{counted(plan.stop_at, 'iteration')}{some} of {images}"


def _conclude(plan: "Plan", fitted: "Fitted") -> None:
    from boxdepth.trainer.cli.console import closing_panel, duration, percents

    rows = {
        "iterations": f"{fitted.iterations} in {duration(fitted.seconds)}",
        "losses": "  ".join(f"{name} {value:.3f}" for name, value in fitted.losses.items()),
    }
    for kind, title in (("segm", "mask AP"), ("bbox", "box AP")):
        if kind in (fitted.scores or {}):
            rows[title] = percents((fitted.scores or {})[kind], APS)
    if fitted.skipped:
        rows["skipped"] = f"{fitted.skipped} steps without a finite update"
    rows["run folder"] = str(plan.folder)
    val = plan.config.data.val
    rows["next"] = (
        f"trainer predict {plan.folder} {f'--store {val}' if val else 'IMAGES...'} "
        "--out predictions.json --overlay overlays"
    )
    console.print(closing_panel(rows, title=f"{plan.config.name} is trained"))


def _describe(plan: "Plan") -> dict[str, Any]:
    """What a dry run says."""
    from boxdepth.trainer.runs.plan import costs

    config, data, cost = plan.config, plan.config.data, costs(plan)
    say(f"{config.name}: would train {_iterations(plan)} into {plan.folder}", style="bold")
    say(
        f"  reads   {plan.train.store.path} ({counted(len(plan.train), 'image')}), "
        f"{data.val or 'no val store'}"
    )
    for note in plan.notes:
        say(f"  {note}", style="yellow")
    kept, millions = cost.checkpoint_bytes * (config.checkpoints.keep + 1), cost.parameters / 1e6
    say(f"  writes  up to {kept / 1e6:.0f} MB of checkpoints ({millions:.1f} M weights)")
    say("  nothing was written")
    return cost.to_json(plan)
