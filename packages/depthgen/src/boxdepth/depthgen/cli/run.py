"""``depthgen run``."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxdepth.depthgen.cli import run_options as options
from boxdepth.depthgen.cli.app import Json, app, emit, say, warn
from boxdepth.depthgen.cli.progress import show_progress
from boxdepth.depthgen.datasets.read import DEFAULT_SPLITS, DatasetName, Source
from boxdepth.depthgen.datasets.records import OnBad
from boxdepth.depthgen.models import AUTO, DEFAULT_MODEL, SCENES_ONLY
from boxdepth.depthgen.store.errors import ConfigError
from boxdepth.depthgen.store.location import is_remote, locate
from boxdepth.depthgen.words import counted

if TYPE_CHECKING:
    from boxdepth.depthgen.datasets.records import Dataset
    from boxdepth.depthgen.generate import Job, Summary
    from boxdepth.depthgen.generate.cluster import Cluster
    from boxdepth.depthgen.predictor import Predictor


_REJECTED_SHOWN = 20
_OUTPUTS = {
    ("metric", "far_is_large"): "metres",
    ("inverse_relative", "near_is_large"): "inverse depth, near is large",
    ("inverse_relative", "far_is_large"): "relative depth, far is large",
}


@app.command(
    epilog="Examples: [bold]depthgen run --dataset coco --data-root datasets[/]   "
    "[bold]depthgen run --dataset coco --split val2017 --model da2-small[/]   "
    "[bold]depthgen run --dataset custom --images photos --annotations boxes.json[/]"
)
def run(
    dataset: options.Dataset,
    split: options.Split = None,
    data_root: options.DataRoot = None,
    images: options.Images = None,
    annotations: options.Annotations = None,
    store: options.StorePath = None,
    model: options.Model = AUTO,
    revision: options.Revision = None,
    allow_noncommercial: options.AllowNoncommercial = False,
    aspect: options.Aspect = None,
    kind: options.Kind = None,
    sign: options.Sign = None,
    batch_size: options.BatchSize = 8,
    workers: options.Workers = 2,
    with_masks: options.WithMasks = False,
    unit: options.Unit = None,
    depth_grid: options.DepthGrid = None,
    limit: options.Limit = None,
    on_bad: options.OnBadOption = OnBad.error,
    device: options.Device = "auto",
    precision: options.Precision = options.PrecisionName.fp32,
    scheduler: options.Scheduler = None,
    jobs: options.Jobs = None,
    devices: options.Devices = None,
    insecure: options.Insecure = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: Json = False,
) -> None:
    """Predict depth for a dataset and write it with its images and boxes into a store.

    Interrupted or killed, the same command goes on where it was. A finished store is left alone.
    """
    place = _store_path(store, dataset.value, split or DEFAULT_SPLITS.get(dataset, "train"))
    locate(place).refuse_if_busy()
    source = Source(data_root=data_root, images=images, annotations=annotations, split=split)
    data = _read(dataset, source, masks=with_masks, on_bad=on_bad, limit=limit)
    predictor = _load(
        model, drawn=data.drawn, revision=revision, allow_noncommercial=allow_noncommercial,
        aspect=aspect, kind=kind, sign=sign, device=device, precision=precision.value,
    )  # fmt: skip
    job = _job(
        data, predictor, place, grid=depth_grid, unit=unit, batch_size=batch_size, workers=workers,
        on_bad=on_bad, masks=with_masks, overwrite=overwrite,
    )  # fmt: skip
    _introduce(job)
    cluster = _cluster(scheduler, jobs=jobs, devices=devices, insecure=insecure)
    result = _dry_run(job) if dry_run else _generate(job, cluster)
    if json:
        emit(result)


def parse_size(text: str, *, option: str) -> tuple[int, int]:
    """Read ``HEIGHTxWIDTH``.

    Raises:
        ConfigError: It is not of that form.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and 0 < int(part) <= 8192 for part in parts):
        raise ConfigError(f"{option} {text!r}: ROWSxCOLUMNS is expected, for example 384x384")
    return int(parts[0]), int(parts[1])


def _store_path(store: str | None, dataset: str, split: str) -> Path | str:
    if store is None:
        return Path("stores") / f"{dataset}-{Path(split).name}.zarr"
    # `--store=~/x` reaches us unexpanded; a folder of that name is never meant.
    return store if is_remote(store) or store.startswith("file://") else Path(store).expanduser()


def _load(
    model: str, *, drawn: bool, revision: str | None, allow_noncommercial: bool, **settings: Any
) -> "Predictor":
    from boxdepth.depthgen.models import choose_model, find_model, need_models

    need_models()
    from boxdepth.depthgen.predictor import load_predictor

    if model == AUTO:
        model = choose_model(drawn=drawn)
        say(f"model {model} (--model names another one; depthgen models lists them)")
    files = find_model(model, revision=revision, allow_noncommercial=allow_noncommercial)
    chosen = {k: v.value if isinstance(v, Enum) else v for k, v in settings.items()}
    return load_predictor(files, **chosen)


def _job(
    data: "Dataset",
    predictor: "Predictor",
    path: Path | str,
    *,
    grid: str | None,
    unit: int | None,
    **settings: Any,
) -> "Job":
    from boxdepth.depthgen.generate import Job
    from boxdepth.depthgen.plan import default_grid, default_unit

    return Job(
        dataset=data,
        predictor=predictor,
        store=path,
        grid=parse_size(grid, option="--depth-grid")
        if grid
        else default_grid(data.name, predictor.preprocessing),
        unit=unit or default_unit(data.name),
        **settings,
    )


def _read(
    dataset: DatasetName, source: "Source", *, masks: bool, on_bad: OnBad, limit: int | None
) -> "Dataset":
    from dataclasses import replace

    from boxdepth.depthgen.datasets.read import read_dataset

    data = read_dataset(dataset, source, masks=masks, on_bad=on_bad)
    if source.split is None and dataset is not DatasetName.folder:
        say(f"split {data.split} (--split names another one)")
    return replace(data, records=data.records[:limit]) if limit else data


def _introduce(job: "Job") -> None:
    data, report, predictor = job.dataset, job.dataset.report, job.predictor
    boxes = sum(len(record.labels) for record in data.records)
    say(
        f"{data.name} {data.split}: {counted(len(data.records), 'image')}, "
        f"{counted(boxes, 'box', 'es')}, {counted(len(data.categories), 'class', 'es')} "
        f"-> {job.store}"
    )
    facts = {
        "crowds (kept, flagged)": report.crowds,
        "images without boxes (kept)": report.images_without_boxes,
        "boxes cut to their image": report.boxes_clipped,
        "boxes without area (dropped)": report.boxes_dropped,
        "bad records (left out)": len(report.rejected),
    }
    if found := [f"{count} {what}" for what, count in facts.items() if count]:
        say(", ".join(found))
    for note in report.notes:
        say(f"note: {note}")
    for text in report.rejected[:_REJECTED_SHOWN]:
        warn(f"left out: {text}")
    if len(report.rejected) > _REJECTED_SHOWN:
        warn(f"... and {len(report.rejected) - _REJECTED_SHOWN} more")
    settings = predictor.preprocessing
    say(
        f"model {predictor.files.label} ({predictor.files.revision[:12]}), input "
        f"{settings.height}x{settings.width} {settings.aspect}, depth grid "
        f"{job.grid[0]}x{job.grid[1]}, {predictor.precision} on {predictor.device}; its output is "
        f"{_OUTPUTS[predictor.kind, predictor.sign]}"
    )
    if predictor.files.label == DEFAULT_MODEL and not data.drawn:
        warn(SCENES_ONLY)


def _dry_run(job: "Job") -> dict[str, Any]:
    from boxdepth.depthgen.generate import plan_job
    from boxdepth.depthgen.generate.estimate import estimate

    attributes, nbytes = plan_job(job)
    needed = estimate(job, attributes, nbytes)
    free = locate(job.store).free_bytes()
    room = "" if free is None else f" ({free / 1e6:,.0f} MB are free)"
    say(
        f"would write {counted(attributes.images, 'image')} in "
        f"{counted(attributes.units, 'shard')}, about {needed.nbytes / 1e6:,.1f} MB{room}, in "
        f"about {_duration(needed.seconds)} (measured on {needed.sampled} of the images)"
    )
    return {
        "store": str(job.store),
        "images": attributes.images,
        "shards": attributes.units,
        "bytes": needed.nbytes,
        "bytes_free": free,
        "seconds": needed.seconds,
        "model": job.predictor.files.label,
        "revision": job.predictor.files.revision,
        "notes": list(job.dataset.report.notes),
    }


def _duration(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} minutes"


def _cluster(
    scheduler: str | None, *, jobs: int | None, devices: str | None, insecure: bool
) -> "Cluster | None":
    """Where to compute: ``None`` is this process."""
    if scheduler is None and jobs is None and devices is None:
        return None
    from boxdepth.depthgen.generate.cluster import LOCAL, Cluster
    from boxdepth.depthgen.predictor import choose_device

    if scheduler not in (None, LOCAL) and (jobs or devices):
        raise ConfigError("--jobs and --devices belong to --scheduler local; a cluster has its own")
    names = tuple(devices.split(",")) if devices and devices != "all" else ()
    if devices == "all":
        import torch

        names = tuple(f"cuda:{n}" for n in range(torch.cuda.device_count()))
        if not names:
            raise ConfigError("--devices all: no GPU is here; --jobs N starts workers on the CPU")
    for name in names:
        choose_device(name)
    if names and jobs not in (None, len(names)):
        raise ConfigError(
            f"--jobs {jobs} and {len(names)} devices: one worker a device; drop --jobs"
        )
    return Cluster(scheduler=scheduler or LOCAL, jobs=jobs or 1, devices=names, insecure=insecure)


def _generate(job: "Job", cluster: "Cluster | None") -> dict[str, Any]:
    from boxdepth.depthgen.generate import generate

    with show_progress("depth") as progress:
        summary = generate(job, progress=progress, cluster=cluster)
    _conclude(job, summary)
    notes = [*job.dataset.report.notes, *_image_notes(summary)]
    return {
        "store": str(job.store),
        "images": summary.images,
        "skipped": len(summary.skipped),
        "shards": summary.shards,
        "bytes": summary.done.nbytes,
        "seconds": summary.seconds,
        "images_per_second": summary.images_per_second,
        "model_seconds": summary.done.model_seconds,
        "model": job.predictor.files.label,
        "revision": job.predictor.files.revision,
        "notes": notes,
    }


def _image_notes(summary: "Summary") -> list[str]:
    """What was met inside the image files of this run."""
    turned, deep = (counted(count, "image") for count in (summary.done.turned, summary.done.deep))
    notes = []
    if summary.done.turned:
        notes.append(
            f"{turned}: EXIF orientation ignored, boxes are taken to refer to the pixels as they "
            "lie in the file (depthgen preview shows whether they do)"
        )
    if summary.done.deep:
        notes.append(f"{deep}: 16 bits a channel, of which the upper eight are used")
    return notes


def _conclude(job: "Job", summary: "Summary") -> None:
    done = summary.done
    for number, reason in list(summary.skipped.items())[:20]:
        warn(f"image {number} skipped: {reason}")
    if len(summary.skipped) > 20:
        warn(f"... and {len(summary.skipped) - 20} more images skipped")
    for note in _image_notes(summary):
        warn(note)
    if done.invalid:
        warn(f"no usable depth (constant or not finite): {counted(done.invalid, 'image')}")
    if done.redone:
        warn(f"computed again in fp32: {counted(done.redone, 'image')}")
    images = counted(summary.usable, "image")
    images += f" ({len(summary.skipped)} left out)" if summary.skipped else ""
    if not done.units:
        say(f"{job.store} is finished already: {images}; nothing to do")
        return
    say(
        f"finished {job.store}: {images}, {done.units} of {counted(summary.shards, 'shard')} "
        f"written now ({done.nbytes / 1e6:,.1f} MB) in {summary.seconds:.1f} s "
        f"({summary.images_per_second:.1f} images/s, {done.model_seconds:.1f} s in the model)",
        style="green",
    )
