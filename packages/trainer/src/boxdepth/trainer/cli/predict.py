"""`trainer predict`: masks for images, folders, a store, or given boxes."""

from pathlib import Path
from typing import TYPE_CHECKING

from boxdepth.trainer.cli import options
from boxdepth.trainer.cli.app import AsJson, Device, app, console, emit, interactive, say
from boxdepth.trainer.errors import PicturesError

if TYPE_CHECKING:
    from boxdepth.trainer.predict.job import Outcome, Overlays
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
    from boxdepth.trainer.geometry.tiles import Tiling
    from boxdepth.trainer.predict.job import Overlays, images_file
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
        tiling=Tiling(size=tile, overlap=overlap) if tile else None,
    )
    if tile == 0:
        predictor.tiling = None
    if max_detections is not None:
        predictor.allow(max_detections)
    if precision is not None:
        predictor.compute_in(precision.value)
    categories = predictor.model.categories
    task = task_on(source, categories, boxes="store" if boxes == STORED else boxes)
    least = (0.3 if boxes is None else 0.0) if overlay_threshold is None else overlay_threshold
    overlays = Overlays(folder=overlay, min_score=least) if overlay else None
    outcome = _predict(predictor, task, overlays)
    _write(out, outcome, predictor, overlay)
    where = {"predictions": str(out), "overlays": str(overlay) if overlay else None}
    how = {"weights": predictor.model.which, "precision": predictor.precision}
    emit({**where, **how, **outcome.to_json()}, as_json=as_json)
    outcome.check(out, skip_bad=on_bad is options.OnBad.skip)
    if outcome.bad:
        say(PicturesError(outcome.bad, kept=str(out)), style="yellow")


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


def _write(out: Path, outcome: "Outcome", predictor: "Predictor", overlay: Path | None) -> None:
    from boxdepth.trainer.predict.job import write_outcome

    if outcome.images:
        write_outcome(out, outcome, predictor.model.categories)
        say(f"{outcome}, written to {out}")
        if overlay is not None:
            say(f"pictures in {overlay}")
    for note in outcome.notes(predictor.spec.settings.max_detections):
        say(f"  {note}", style="yellow")
