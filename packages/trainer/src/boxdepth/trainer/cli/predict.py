"""`trainer predict`: masks for images, folders, a store, or given boxes."""

from pathlib import Path
from typing import TYPE_CHECKING

from boxdepth.trainer.cli import options
from boxdepth.trainer.cli.app import AsJson, Device, app, console, emit, interactive, say
from boxdepth.trainer.errors import ConfigError, PicturesError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from boxdepth.depthgen.store import Category
    from boxdepth.trainer.geometry.tiles import Tiling
    from boxdepth.trainer.predict.job import Outcome, Overlays
    from boxdepth.trainer.predict.model import Model, Which
    from boxdepth.trainer.predict.predictor import Predictor
    from boxdepth.trainer.predict.task import Task

STORED = Path("store")
"""What `--boxes` says where a store's own are meant."""

EXAMPLES = """
Examples:

  trainer predict runs/scenes_tiny --store stores/scenes-val2017.zarr --out predictions.json

  trainer predict runs/coco_r50_1x photos/ cat.jpg --out predictions.json --overlay overlays

  trainer predict runs/coco_r50_1x photos/ --boxes boxes.json --out masks.json

  trainer predict runs/mine aerial.tif --tile 1024 --overlap 128

  trainer predict runs/mine --boxes store --out masks.json
"""


@app.command(epilog=EXAMPLES)
def predict(
    run: options.Run,
    images: options.Images = None,
    store: options.Store = None,
    out: options.Results = Path("predictions.json"),
    overlay: options.Overlay = None,
    overlay_threshold: options.OverlayThreshold = None,
    weights: options.Weights = None,
    score_threshold: options.ScoreThreshold = None,
    boxes: options.Boxes = None,
    crop: options.Crop = True,
    tile: options.Tile = None,
    overlap: options.Overlap = 128,
    max_detections: options.MaxDetections = None,
    on_bad: options.OnBadOption = options.OnBad.error,
    overwrite: options.Overwrite = False,
    device: Device = "auto",
    precision: options.PredictInOption = None,
    as_json: AsJson = False,
) -> None:
    """Predict masks, as COCO results at the original size."""
    from boxdepth.trainer.engine.run_folder import require_writable
    from boxdepth.trainer.predict.job import images_file
    from boxdepth.trainer.predict.predictor import load_predictor
    from boxdepth.trainer.predict.task import source_of, task_on
    from boxdepth.trainer.runs.settings import trained_on

    if boxes == STORED and store is None and not images:
        store = trained_on(run)
    source = source_of(images or [], store)
    require_writable(out, overwrite=overwrite)
    # The list of images belongs to the results: it is replaced with them, and where they are gone.
    require_writable(images_file(out), overwrite=True)
    predictor = load_predictor(
        run,
        device=device,
        weights=weights.value if weights else None,
        score_threshold=score_threshold,
        crop=crop,
        tiling=_tiling(tile, overlap),
    )
    predictor.tiling = None if tile == 0 else predictor.tiling
    if max_detections is not None:
        predictor.allow(max_detections)
    if precision is not None:
        predictor.compute_in(precision.value)
    categories = predictor.model.categories
    task = task_on(source, categories, boxes="store" if boxes == STORED else boxes)
    overlays = _overlays(overlay, overlay_threshold, default=0.3 if boxes is None else 0.0)
    outcome = _predict(predictor, task, overlays)
    limit = predictor.spec.settings.max_detections
    _write(out, outcome, categories, overlay, limit=limit)
    where = {"predictions": str(out), "overlays": str(overlay) if overlay else None}
    how = {"weights": predictor.model.which, "precision": predictor.precision}
    emit({**where, **how, **outcome.to_json()}, as_json=as_json)
    outcome.check(out, skip_bad=on_bad is options.OnBad.skip)
    if outcome.bad:
        say(PicturesError(outcome.bad, kept=str(out)), style="yellow")


def _tiling(size: int | None, overlap: int) -> "Tiling | None":
    from boxdepth.trainer.geometry.tiles import Tiling

    try:
        return Tiling(size=size, overlap=overlap) if size else None
    except ValueError as error:
        raise ConfigError(f"--tile, --overlap: {error}") from error


def _overlays(folder: Path | None, min_score: float | None, *, default: float) -> "Overlays | None":
    from boxdepth.trainer.predict.job import Overlays

    if folder is None:
        return None
    return Overlays(folder=folder, min_score=default if min_score is None else min_score)


def _predict(predictor: "Predictor", task: "Task", overlays: "Overlays | None") -> "Outcome":
    from rich import progress as rich

    from boxdepth.trainer.predict.job import predict_task

    for note in task.notes:
        say(f"  {note}", style="yellow")
    with rich.Progress(
        rich.TextColumn("{task.description}", markup=False),  # names of files and classes are text
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TimeRemainingColumn(),
        console=console,
        disable=not interactive(),
        transient=True,
    ) as progress:
        words = f"predicting with the {predictor.model.which}"
        bar = progress.add_task(words, total=len(task.pictures))
        return predict_task(
            predictor, task, overlays=overlays, on_picture=lambda: progress.advance(bar)
        )


def _write(
    out: Path,
    outcome: "Outcome",
    categories: "Sequence[Category]",
    overlay: Path | None,
    *,
    limit: int,
) -> None:
    from boxdepth.trainer.predict.job import write_outcome

    if outcome.images:
        write_outcome(out, outcome, categories)
        say(f"{len(outcome.results)} instances on {len(outcome.images)} images, written to {out}")
        if overlay is not None:
            say(f"pictures in {overlay}")
    if outcome.cut:
        say(f"  {outcome.cut_note(limit)}", style="yellow")
    if outcome.turned:
        say(f"  {outcome.turned_note()}", style="yellow")


def load_model(path: Path, device: "torch.device", *, weights: "Which | None" = None) -> "Model":
    """The name of `boxdepth.trainer.predict.model.load_model` that older scripts know."""
    from boxdepth.trainer.predict import model

    return model.load_model(path, device, weights=weights)
