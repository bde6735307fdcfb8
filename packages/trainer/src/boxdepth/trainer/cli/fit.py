"""`trainer fit`: from two stores to a run folder."""

import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from boxdepth.trainer import assemble
from boxdepth.trainer.cli import run_setup
from boxdepth.trainer.cli.app import (
    AsJson,
    Device,
    app,
    choose_device,
    console,
    emit,
    interactive,
    say,
)
from boxdepth.trainer.cli.console import RunDisplay, closing_panel, duration
from boxdepth.trainer.cli.evaluation import digest, evaluator, scorer
from boxdepth.trainer.cli.options import expanded
from boxdepth.trainer.cli.run_setup import Plan
from boxdepth.trainer.config import presets
from boxdepth.trainer.engine.distributed import (
    barrier,
    process_group,
    world_from_environment,
)
from boxdepth.trainer.engine.loop import Progress, Run, run_loop
from boxdepth.trainer.engine.run_folder import lock_run
from boxdepth.trainer.engine.signals import stop_flag
from boxdepth.trainer.engine.update import Learner

EXAMPLES = """
Examples:

  trainer fit scenes_tiny --train stores/scenes-train2017.zarr --val stores/scenes-val2017.zarr

  trainer fit coco_r50_1x --set data.batch_size=4 --set data.accumulate=2 --set precision=bf16

  trainer fit --resume --out runs/coco_r50_1x        (goes on with that run's own settings)

  torchrun --nproc-per-node 8 -m boxdepth.trainer.cli fit coco_r50_1x
"""
PRESET, DATA, RUN = "What to train", "Data", "Run folder"


@app.command(epilog=EXAMPLES)
def fit(
    preset: Annotated[
        str | None,
        typer.Argument(
            help="A named run (`trainer presets` lists them).", show_default="coco_r50_1x"
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            parser=expanded,
            help="Settings from a JSON or YAML file instead.",
            rich_help_panel=PRESET,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="path.to.field=value; repeatable.", rich_help_panel=PRESET),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            parser=expanded,
            help="Start from the weights of a run, a checkpoint or an AdelaiDet file.",
            rich_help_panel=PRESET,
        ),
    ] = None,
    fork: Annotated[
        Path | None,
        typer.Option(
            parser=expanded,
            help="Go on where another run stands, with other settings, in a new folder.",
            rich_help_panel=PRESET,
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(parser=expanded, help="Store to learn from.", rich_help_panel=DATA),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(parser=expanded, help="Store to predict on at the end.", rich_help_panel=DATA),
    ] = None,
    val_annotations: Annotated[
        Path | None,
        typer.Option(
            parser=expanded,
            help="COCO annotations of the val images, to score with.",
            rich_help_panel=DATA,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=expanded, help="Run folder.", show_default="runs/<preset>", rich_help_panel=RUN
        ),
    ] = None,
    max_iterations: Annotated[
        int | None,
        typer.Option(min=1, help="Stop here; --resume goes on.", rich_help_panel=RUN),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the newest checkpoint.", rich_help_panel=RUN),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run.", rich_help_panel=RUN)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done.", rich_help_panel=RUN)
    ] = False,
    device: Device = "auto",
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16 or fp16.", rich_help_panel="Machine")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, rich_help_panel="Machine")] = None,
    as_json: AsJson = False,
) -> None:
    """Train from boxes and pseudo-depth; predicts and scores on the val store at the end."""
    world = world_from_environment()
    console.quiet = console.quiet or not world.is_main
    flags = {
        "data.train": train, "data.val": val, "data.val_annotations": val_annotations,
        "precision": precision, "seed": seed,
    }  # fmt: skip
    request = run_setup.Request(
        preset=preset, config=config, settings=tuple(settings or ()), flags=flags, out=out,
        resume=resume, overwrite=overwrite, init=init, fork=fork,
        max_iterations=max_iterations,
    )  # fmt: skip
    plan = run_setup.plan_run(request, presets.PRESETS)
    target = choose_device(device, local_rank=world.local_rank)
    if dry_run:
        emit(_describe(plan), as_json=as_json)
        return
    with ExitStack() as stack:
        stack.enter_context(process_group(world, target))
        if world.is_main:
            stack.enter_context(lock_run(plan.folder))
        # Before anything is written: its weights may be missing, and then there is no run yet.
        learner = assemble.build_learner(plan.config, target, world)
        _introduce(plan, target)
        progress = run_setup.starting_point(plan, learner)
        if world.is_main:
            run_setup.start_folder(plan, command=shlex.join(["trainer", *sys.argv[1:]]))
        barrier()
        result = _train(plan, learner, progress, live=interactive(), silent=not world.is_main)
    if world.is_main:
        emit(result, as_json=as_json)


def _train(
    plan: Plan, learner: Learner, progress: Progress, *, live: bool, silent: bool
) -> dict[str, Any]:
    world = world_from_environment()
    config = plan.config
    spec = assemble.inference_spec(config)
    val, annotations = plan.val, config.data.val_annotations
    score = scorer(val, annotations) if val is not None else None
    run = Run(
        folder=plan.folder,
        learner=learner,
        loader=assemble.batch_loader(
            config, plan.train, world, pin_memory=learner.device.type == "cuda"
        ),
        evaluate=evaluator(val, spec, score, plan.folder, category_ids=plan.val_category_ids),
        evaluates=digest(val, spec, annotations),
        batch_size=config.data.batch_size,
        intervals=config.checkpoints,
        about=run_setup.about(plan),
        world=world,
    )
    if progress.step >= plan.stop_at:
        say(f"{plan.folder}: already at iteration {progress.step}, nothing left to train")
    display = RunDisplay(
        console, name=config.name, start=progress.step, stop=plan.stop_at, live=live, silent=silent
    )
    with stop_flag() as stop, display:
        run_loop(run, progress, stop_at=plan.stop_at, stop=stop, listener=display)
    return _conclude(plan, progress)


def _introduce(plan: Plan, device: torch.device) -> None:
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
        f"{config.data.train}" + (f" (left out: {', '.join(left_out)})" if left_out else "")
    )
    if census.images_without_depth:
        say(f"  {census.images_without_depth} images have no usable depth: boxes and colour only")
    for note in plan.notes:
        say(f"  {note}", style="yellow")
    say(
        f"  learning rate {assemble.base_learning_rate(config):g}: "
        f"{config.optimizer.learning_rate:g} for {config.optimizer.reference_batch_size} images "
        f"a step, {config.data.batch_size} here"
    )


def _iterations(plan: Plan) -> str:
    total = plan.config.schedule.iterations
    some = "" if plan.stop_at == total else f" (of {total})"
    return f"{plan.stop_at} iterations{some} of {plan.config.data.batch_size} images"


def _conclude(plan: Plan, progress: Progress) -> dict[str, Any]:
    scores = progress.scores or {}
    ap = {kind: {k: v for k, v in s.items() if k != "per_class"} for kind, s in scores.items()}
    rows = {
        "iterations": f"{progress.step} in {duration(progress.seconds)}",
        "losses": "  ".join(f"{name} {value:.3f}" for name, value in progress.losses.items()),
    }
    for kind, title in (("segm", "mask AP"), ("bbox", "box AP")):
        if kind in ap:
            rows[title] = _percents(ap[kind])
    if progress.guard.skipped:
        rows["skipped"] = f"{progress.guard.skipped} steps without a finite update"
    rows["run folder"] = str(plan.folder)
    next_store = plan.config.data.val or "IMAGES..."
    store = f"--store {next_store}" if plan.config.data.val else next_store
    rows["next"] = (
        f"trainer predict {plan.folder} {store} --out predictions.json --overlay overlays"
    )
    console.print(closing_panel(rows, title=f"{plan.config.name} is trained"))
    return {
        "run": str(plan.folder),
        "iterations": progress.step,
        "images_seen": progress.step * plan.config.data.batch_size,
        "seconds": round(progress.seconds, 3),
        "losses": progress.losses,
        "ap": ap or None,
    }


def _percents(numbers: dict[str, Any]) -> str:
    named = (("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75"))
    return "  ".join(
        f"{name} {100 * numbers[key]:.1f}" for name, key in named if numbers.get(key) is not None
    )


def _describe(plan: Plan) -> dict[str, Any]:
    """What a dry run says."""
    config, data = plan.config, plan.config.data
    learner = assemble.build_learner(config, torch.device("cpu"), world_from_environment())
    weights = sum(p.numel() for p in learner.model.parameters())
    per_checkpoint = 4 * weights * (2 if config.distillation.method == "off" else 3)
    kept = per_checkpoint * (config.checkpoints.keep + 1)
    say(f"{config.name}: would train {_iterations(plan)} into {plan.folder}", style="bold")
    say(f"  reads   {data.train} ({len(plan.train)} images), {data.val or 'no val store'}")
    for note in plan.notes:
        say(f"  {note}", style="yellow")
    say(f"  writes  up to {kept / 1e6:.0f} MB of checkpoints ({weights / 1e6:.1f} M weights)")
    say("  nothing was written")
    return {
        "run": str(plan.folder),
        "iterations": plan.stop_at,
        "train": str(data.train),
        "val": str(data.val) if data.val else None,
        "images": len(plan.train),
        "parameters": weights,
        "checkpoint_bytes": per_checkpoint,
        "config": config.model_dump(mode="json"),
    }
