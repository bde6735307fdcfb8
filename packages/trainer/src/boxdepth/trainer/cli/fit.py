"""`trainer fit`: from two stores to a run folder."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxdepth.trainer.cli import auto, options
from boxdepth.trainer.cli.app import AsJson, Device, app, console, emit, interactive, say
from boxdepth.trainer.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from boxdepth.trainer.config import RunConfig
    from boxdepth.trainer.runs import Fitted, Plan, Start

EXAMPLES = """
Examples:

  trainer fit auto --train boxes.json --images photos --dry-run        (says what and why)

  trainer fit scenes_tiny --train stores/scenes-train2017.zarr --val stores/scenes-val2017.zarr

  trainer fit coco_r50_1x --set data.batch_size=4 --set data.accumulate=2 --set precision=bf16

  trainer fit --resume --out runs/coco_r50_1x        (goes on with that run's own settings)

  torchrun --nproc-per-node 8 -m boxdepth.trainer.cli fit coco_r50_1x
"""


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
    from boxdepth.trainer.runs.start import Start

    start = Start(resumes=resume, weights=init, forked=fork, overwrites=overwrite)
    flags = {
        "data.train": train, "data.val": val, "data.val_annotations": val_annotations,
        "precision": precision, "seed": seed,
    }  # fmt: skip
    settings = [*(settings or []), *auto.tile_settings(tile, overlap)]
    automatic = preset == auto.AUTO and not resume
    if not automatic:
        auto.refuse_options(resume, images=images, depth_model=depth_model, minutes=minutes)
        size = {"data.batch_size": None if batch == auto.AUTO else batch}
        run = _with_flags(_chosen(preset, config, out, start), settings, {**flags, **size})
    # What was mistyped has been said by now, before torch is loaded.
    from boxdepth.trainer.engine.device import choose_device
    from boxdepth.trainer.engine.distributed import world_from_environment
    from boxdepth.trainer.runs import plan_run

    world = world_from_environment()
    console.quiet = console.quiet or not world.is_main
    target = choose_device(device, local_rank=world.local_rank)
    recipe = None
    if automatic:
        auto.refuse_ranks(world.size)
        data = auto.Data(train=train, val=val, images=images, depth_model=depth_model)
        wishes = auto.wishes(settings, minutes=minutes, batch=batch)
        recipe = auto.choose(data, device=target, wishes=wishes)
        run = _with_flags(recipe.config, [], {**flags, "data.train": None, "data.val": None})
    plan = plan_run(
        run, out=out, start=start, max_iterations=max_iterations, val_may_be_absent=val is None
    )
    if batch == auto.AUTO and recipe is None and not resume:
        plan = auto.fitted_to_memory(plan, target)
    if dry_run:
        more = {} if recipe is None else auto.described(recipe)
        emit(_describe(plan) | more, as_json=as_json)
    else:
        _go(plan, target, silent=not world.is_main, as_json=as_json)


def _go(plan: "Plan", device: "torch.device", *, silent: bool, as_json: bool) -> None:
    _introduce(plan, device)
    fitted = _train(plan, device, silent=silent)
    if not silent:
        _conclude(plan, fitted)
        emit(_result(plan, fitted), as_json=as_json)


def _chosen(preset: str | None, file: Path | None, out: Path | None, start: "Start") -> "RunConfig":
    """A preset, a file, or the settings of the run that is to be resumed."""
    from boxdepth.trainer.config import presets
    from boxdepth.trainer.config.overrides import choose_preset, load_config
    from boxdepth.trainer.runs.start import CONFIG

    if preset == auto.AUTO:
        preset, out = None, out or Path("runs") / auto.AUTO
    if preset is not None and file is not None:
        raise ConfigError("give a preset or --config, not both")
    if file is not None:
        return load_config(file)
    saved = None if out is None else out / CONFIG
    if start.resumes and preset is None and saved is not None and saved.is_file():
        return load_config(saved)
    return choose_preset(presets.PRESETS, preset or "coco_r50_1x")


def _with_flags(
    config: "RunConfig", settings: list[str], flags: Mapping[str, object]
) -> "RunConfig":
    from boxdepth.trainer.config.overrides import apply_overrides

    given = [f"{path}={value}" for path, value in flags.items() if value is not None]
    return apply_overrides(config, [*settings, *given])


def _train(plan: "Plan", device: "torch.device", *, silent: bool) -> "Fitted":
    from boxdepth.trainer.cli.console import RunDisplay
    from boxdepth.trainer.runs import train

    live = interactive() and not silent
    with RunDisplay(console, name=plan.config.name, stop=plan.stop_at, live=live) as display:
        command = shlex.join(["trainer", *sys.argv[1:]])
        return train(plan, device=device, listener=display, command=command)


def _introduce(plan: "Plan", device: "torch.device") -> None:
    from boxdepth.trainer.build import base_learning_rate

    config, census = plan.config, plan.train.census
    left_out = [
        f"{count} {what}"
        for count, what in (
            (census.boxes_crowd, "crowd boxes"),
            (census.boxes_empty, "boxes without area"),
            (census.images - census.images_used, "images without a box"),
        )
        if count
    ]
    say(f"{config.name}: {_iterations(plan)} on {device}, into {plan.folder}", style="bold")
    say(
        f"  learns from {census.boxes_used} boxes on {census.images_used} images of "
        f"{plan.train.store.path}" + (f" (left out: {', '.join(left_out)})" if left_out else "")
    )
    if census.images_without_depth:
        say(f"  {census.images_without_depth} images have no usable depth: boxes and colour only")
    for note in plan.notes:
        say(f"  {note}", style="yellow")
    say(
        f"  learning rate {base_learning_rate(config):g}: "
        f"{config.optimizer.learning_rate:g} for {config.optimizer.reference_batch_size} images "
        f"a step, {config.data.batch_size} here"
    )


def _iterations(plan: "Plan") -> str:
    total = plan.config.schedule.iterations
    some = "" if plan.stop_at == total else f" (of {total})"
    return f"{plan.stop_at} iterations{some} of {plan.config.data.batch_size} images"


def _conclude(plan: "Plan", fitted: "Fitted") -> None:
    from boxdepth.trainer.cli.console import closing_panel, duration

    rows = {
        "iterations": f"{fitted.iterations} in {duration(fitted.seconds)}",
        "losses": "  ".join(f"{name} {value:.3f}" for name, value in fitted.losses.items()),
    }
    for kind, title in (("segm", "mask AP"), ("bbox", "box AP")):
        if kind in (fitted.scores or {}):
            rows[title] = _percents((fitted.scores or {})[kind])
    if fitted.skipped:
        rows["skipped"] = f"{fitted.skipped} steps without a finite update"
    rows["run folder"] = str(plan.folder)
    val = plan.config.data.val
    rows["next"] = (
        f"trainer predict {plan.folder} {f'--store {val}' if val else 'IMAGES...'} "
        "--out predictions.json --overlay overlays"
    )
    console.print(closing_panel(rows, title=f"{plan.config.name} is trained"))


def _result(plan: "Plan", fitted: "Fitted") -> dict[str, Any]:
    scores = fitted.scores or {}
    ap = {kind: {k: v for k, v in s.items() if k != "per_class"} for kind, s in scores.items()}
    return {
        "run": str(plan.folder),
        "iterations": fitted.iterations,
        "images_seen": fitted.iterations * plan.config.data.batch_size,
        "seconds": round(fitted.seconds, 3),
        "losses": fitted.losses,
        "ap": ap or None,
    }


def _percents(numbers: dict[str, Any]) -> str:
    named = (("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75"))
    return "  ".join(
        f"{name} {100 * numbers[key]:.1f}" for name, key in named if numbers.get(key) is not None
    )


def _describe(plan: "Plan") -> dict[str, Any]:
    """What a dry run says."""
    from boxdepth.trainer.runs.plan import costs

    config, data, cost = plan.config, plan.config.data, costs(plan)
    say(f"{config.name}: would train {_iterations(plan)} into {plan.folder}", style="bold")
    say(
        f"  reads   {plan.train.store.path} ({len(plan.train)} images), "
        f"{data.val or 'no val store'}"
    )
    for note in plan.notes:
        say(f"  {note}", style="yellow")
    kept, millions = cost.checkpoint_bytes * (config.checkpoints.keep + 1), cost.parameters / 1e6
    say(f"  writes  up to {kept / 1e6:.0f} MB of checkpoints ({millions:.1f} M weights)")
    say("  nothing was written")
    return {
        "run": str(plan.folder),
        "iterations": plan.stop_at,
        "train": str(data.train),
        "val": str(data.val) if data.val else None,
        "images": len(plan.train),
        "parameters": cost.parameters,
        "checkpoint_bytes": cost.checkpoint_bytes,
        "config": config.model_dump(mode="json"),
    }
