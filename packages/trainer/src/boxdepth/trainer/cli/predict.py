"""`trainer predict`: masks for images, folders, a store, or given boxes."""

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from PIL import Image
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from boxdepth.depthgen.store import Category, DataError
from boxdepth.trainer import assemble
from boxdepth.trainer.build import build_model
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
from boxdepth.trainer.cli.evaluation import category_ids_for
from boxdepth.trainer.cli.options import expanded, make_folder, refuse_unwritable
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import ConfigError
from boxdepth.trainer.data.box_file import ListedImage, read_box_file
from boxdepth.trainer.data.categories import listed
from boxdepth.trainer.data.pictures import (
    PictureFile,
    PicturesError,
    find_pictures,
    match_pictures,
    read_picture,
)
from boxdepth.trainer.data.validation_set import ValidationSet, open_validation_set
from boxdepth.trainer.engine.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_checkpoint,
    write_atomically,
)
from boxdepth.trainer.inference import InferenceSpec, Picture, predict_pictures
from boxdepth.trainer.model.condinst import CondInst
from boxdepth.trainer.model.weight_files import check_finite
from boxdepth.trainer.predict import Instances, to_coco_results
from boxdepth.trainer.predict.overlay import draw_overlay

EXAMPLES = """
Examples:

  trainer predict runs/scenes_tiny --store stores/scenes-val2017.zarr --out predictions.json

  trainer predict runs/coco_r50_1x photos/ cat.jpg --out predictions.json --overlay overlays

  trainer predict runs/coco_r50_1x photos/ --boxes boxes.json --out masks.json
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A trained network and what it was trained for."""

    network: CondInst
    config: RunConfig
    categories: tuple[Category, ...]
    which: str
    """teacher or student."""

    @property
    def category_names(self) -> tuple[str, ...]:
        """Names of its classes."""
        return tuple(category.name for category in self.categories)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is predicted on, and how."""

    model: Model
    spec: InferenceSpec
    pictures: tuple[PictureFile, ...]
    store: ValidationSet | None
    category_ids: tuple[int | None, ...]
    given: dict[str, ListedImage] | None
    """By the name of the picture; None: detections are wanted."""
    given_names: dict[int, str] = field(default_factory=dict)
    """Names of the given boxes' categories."""
    score_threshold: float = 0.0


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    results: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    bad: list[tuple[str, Exception]] = field(default_factory=list)
    """Pictures that could not be used, and why."""
    turned: list[str] = field(default_factory=list)
    """Pictures with an EXIF orientation, which is ignored."""


@app.command(epilog=EXAMPLES)
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder or a checkpoint.", parser=expanded)],
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Images, or folders of them.", show_default=False, parser=expanded),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Predict on all images of a store.", parser=expanded)
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="COCO results file; OUT.images.json beside it lists the images.", parser=expanded
        ),
    ] = Path("predictions.json"),
    overlay: Annotated[
        Path | None, typer.Option(help="Folder for pictures of the predictions.", parser=expanded)
    ] = None,
    overlay_threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Least score of what is drawn.", show_default="0.3; 0 with --boxes"
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="teacher or student.", show_default="teacher, if there is one"),
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least final score.", show_default="the run's own"),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="COCO boxes: one mask for each, instead of detections.", parser=expanded),
    ] = None,
    crop: Annotated[bool, typer.Option(help="With --boxes: cut each mask at its box.")] = True,
    on_bad: Annotated[
        str,
        typer.Option(
            help="error or skip: how the command ends if a picture can't be used; the others are "
            "predicted on either way."
        ),
    ] = "error",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Predict masks, as COCO results at the original size."""
    if on_bad not in ("error", "skip"):
        raise ConfigError(f"--on-bad {on_bad!r}: expected error or skip")
    if weights not in (None, "teacher", "student"):
        raise ConfigError(f"--weights {weights!r}: expected teacher or student")
    validation = open_validation_set(store) if store is not None else None
    pictures = _pictures(validation, images or [])
    for path in (out, images_file(out)):
        refuse_unwritable(path, overwrite=overwrite)
    model = load_model(run, choose_device(device), weights=weights)
    task = _task(
        model, pictures, validation, boxes, crop=crop, score_threshold=score_threshold or 0.0
    )
    if overlay is not None:
        make_folder(overlay)
    if overlay_threshold is None:
        overlay_threshold = 0.3 if boxes is None else 0.0
    outcome = _predict_all(task, overlay, overlay_threshold)
    _write(out, outcome, task, overlay)
    emit(
        {
            "predictions": str(out),
            "images": len(outcome.images),
            "instances": len(outcome.results),
            "weights": model.which,
            "overlays": str(overlay) if overlay else None,
            "left_out": [name for name, _ in outcome.bad],
        },
        as_json=as_json,
    )
    _end(outcome, out, on_bad=on_bad)


def images_file(out: Path) -> Path:
    """Where the images of a results file are listed."""
    return out.with_name(f"{out.name.removesuffix('.json')}.images.json")


def _pictures(validation: ValidationSet | None, paths: Sequence[Path]) -> tuple[PictureFile, ...]:
    if validation is not None and paths:
        raise ConfigError("give images or --store, not both")
    if validation is not None:
        return tuple(
            PictureFile(
                image_id=validation.image_id(row),
                name=validation.name(row),
                row=row,
                id_is_its_own=True,
            )
            for row in range(len(validation))
        )
    found = find_pictures(paths)
    if found.passed_over:
        say(
            f"  {len(found.passed_over)} pictures of formats that are not read are left out "
            f"({listed(found.passed_over)}): convert them to JPEG, PNG, WebP or TIFF",
            style="yellow",
        )
    if not found.pictures:
        raise ConfigError(
            "nothing to predict on: give images, folders of JPEG, PNG, WebP or TIFF, or --store"
        )
    return found.pictures


def _task(
    model: Model,
    pictures: tuple[PictureFile, ...],
    validation: ValidationSet | None,
    boxes: Path | None,
    *,
    crop: bool,
    score_threshold: float,
) -> Task:
    task = Task(
        model=model,
        spec=replace(assemble.inference_spec(model.config), crop_to_given=crop),
        pictures=pictures,
        store=validation,
        category_ids=tuple(category.id for category in model.categories),
        given=None,
        score_threshold=score_threshold,
    )
    if boxes is not None:
        return _in_given_boxes(task, boxes)
    if validation is None:
        return task
    ids, said = category_ids_for(
        model.categories, validation.categories, where=str(validation.store.path)
    )
    for line in said:
        say(f"  {line}", style="yellow")
    return replace(task, category_ids=ids)


def _in_given_boxes(task: Task, path: Path) -> Task:
    """The task with its boxes, on the pictures that have some.

    Raises:
        DataError: a file that can't be used, or none of whose images is given.
    """
    boxes = read_box_file(path)
    matched = match_pictures(boxes, task.pictures)
    for note in boxes.notes:
        say(f"  {path}: {note}", style="yellow")
    absent = [image.file_name or f"image {image.id}" for image in matched.absent]
    if not matched.images:
        nameless = all(image.file_name is None for image in matched.absent)
        raise DataError(
            f"{path}: no box is on a picture that is given (boxes are on {listed(absent)}; given: "
            f"{listed([picture.name for picture in task.pictures])}); "
            + (
                "the file names no files: give a COCO document with images, or rows with file_name"
                if nameless
                else "file_name must be the end of a given picture's path, folders included"
            )
            if absent
            else f"{path}: holds no boxes"
        )
    if absent:
        count = sum(len(image.boxes) for image in matched.absent)
        say(
            f"  {path}: {count} boxes are on {len(absent)} images that are not given, and are left "
            f"out ({listed(absent)})",
            style="yellow",
        )
    pictures = tuple(picture for picture in task.pictures if picture.name in matched.images)
    without = len(task.pictures) - len(pictures)
    if without:
        say(f"  {without} pictures have no boxes in {path} and are left out")
    return replace(
        task, pictures=pictures, given=matched.images, given_names=dict(boxes.category_names)
    )


def _predict_all(task: Task, overlay: Path | None, least_drawn: float) -> Outcome:
    outcome = Outcome()
    waiting: deque[tuple[PictureFile, np.ndarray]] = deque()
    with _progress() as progress:
        bar = progress.add_task(f"predicting with the {task.model.which}", total=len(task.pictures))

        def pictures() -> Iterator[Picture]:
            for source in task.pictures:
                try:
                    rgb = _read(source, task, outcome)
                except (DataError, OSError) as error:
                    outcome.bad.append((source.name, error))
                    progress.advance(bar)
                    continue
                waiting.append((source, rgb))
                yield Picture(rgb=rgb, boxes_xyxy=_wanted(source, task))

        for instances in predict_pictures(task.model.network, pictures(), task.spec):
            source, rgb = waiting.popleft()
            image_id = _image_id(source, task)
            outcome.results += _results(source, image_id, instances, task)
            height, width = instances.size
            outcome.images.append(
                {"id": image_id, "file_name": source.name, "height": height, "width": width}
            )
            if overlay is not None:
                _draw(rgb, instances, source, task, folder=overlay, min_score=least_drawn)
            progress.advance(bar)
    return outcome


def _progress() -> Progress:
    """Names of files and classes are text, never markup."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not interactive(),
        transient=True,
    )


def _read(source: PictureFile, task: Task, outcome: Outcome) -> np.ndarray:
    if source.row is not None:
        assert task.store is not None
        return task.store.rgb(source.row)
    size = task.given[source.name].size if task.given is not None else None
    pixels = read_picture(source, size=size)
    if pixels.turned:
        outcome.turned.append(source.name)
    return pixels.rgb


def _wanted(source: PictureFile, task: Task) -> np.ndarray | None:
    if task.given is None:
        return None
    boxes = [box.xyxy for box in task.given[source.name].boxes]
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)


def _image_id(source: PictureFile, task: Task) -> int:
    return source.image_id if task.given is None else task.given[source.name].id


def _results(
    source: PictureFile, image_id: int, instances: Instances, task: Task
) -> list[dict[str, Any]]:
    results = to_coco_results(instances, image_id=image_id, category_ids=task.category_ids)
    if task.given is not None:
        for result, box in zip(results, task.given[source.name].boxes, strict=True):
            if box.category_id is not None:
                result["category_id"] = box.category_id
            if box.id is not None:
                result["id"] = box.id
    if source.path is not None:
        results = [{**result, "file_name": source.name} for result in results]
    return [r for r in results if task.given is not None or r["score"] >= task.score_threshold]


def _draw(
    rgb: np.ndarray,
    instances: Instances,
    source: PictureFile,
    task: Task,
    *,
    folder: Path,
    min_score: float,
) -> None:
    names: Sequence[str] = task.model.category_names
    if task.given is not None:
        boxes = task.given[source.name].boxes
        names = [
            names[label]
            if box.category_id is None
            else task.given_names.get(box.category_id, str(box.category_id))
            for box, label in zip(boxes, instances.labels.tolist(), strict=True)
        ]
        instances = replace(instances, labels=np.arange(len(boxes), dtype=np.int64))
    drawn = draw_overlay(rgb, instances, names, min_score=min_score)
    data = BytesIO()
    Image.fromarray(drawn).save(data, "PNG")
    stem = Path(source.name).stem
    write_atomically(folder / f"{_image_id(source, task)}-{stem}.png", data.getvalue())


def _write(out: Path, outcome: Outcome, task: Task, overlay: Path | None) -> None:
    if outcome.images:
        write_atomically(out, (json.dumps(outcome.results) + "\n").encode())
        categories = [{"id": c.id, "name": c.name} for c in task.model.categories]
        sidecar = {
            "images": outcome.images,
            "categories": categories,
            "left_out": [{"file_name": name, "why": str(why)} for name, why in outcome.bad],
        }
        write_atomically(images_file(out), (json.dumps(sidecar, indent=1) + "\n").encode())
        say(f"{len(outcome.results)} instances on {len(outcome.images)} images, written to {out}")
        if overlay is not None:
            say(f"pictures in {overlay}")
    if outcome.turned:
        say(
            f"  {len(outcome.turned)} pictures have an EXIF orientation, which is ignored: masks "
            f"lie on the pixels as they are stored ({listed(outcome.turned)}); to turn the pixels: "
            "exiftran -ai FILE",
            style="yellow",
        )


def _end(outcome: Outcome, out: Path, *, on_bad: str) -> None:
    """Say which pictures could not be used.

    Raises:
        PicturesError: there are such, and they are not to be skipped, or there are no others.
    """
    if not outcome.bad:
        return
    error = PicturesError(outcome.bad, kept=str(out) if outcome.images else None)
    if on_bad == "error" or not outcome.images:
        raise error
    say(error, style="yellow")


def load_model(
    path: Path, device: torch.device, *, weights: Literal["teacher", "student"] | str | None = None
) -> Model:
    """The network of a run or checkpoint, ready to predict.

    Raises:
        CheckpointError: none there, damaged, or without the weights that were asked for.
    """
    folder = find_checkpoint(path)
    checkpoint = load_checkpoint(folder)
    which = weights or ("teacher" if checkpoint.teacher is not None else "student")
    state = checkpoint.teacher if which == "teacher" else checkpoint.model
    if state is None:
        raise CheckpointError(f"{folder}: has no teacher; use --weights student")
    check_finite(state, source=str(folder))
    try:
        config = RunConfig.model_validate(checkpoint.run["config"])
        categories = tuple(
            Category(id=int(c["id"]), name=str(c["name"])) for c in checkpoint.run["categories"]
        )
        network = build_model(config.model)
        network.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder}: does not fit this version: {reason}") from error
    if len(categories) != config.model.num_classes:
        raise CheckpointError(
            f"{folder}: names {len(categories)} categories for a network of "
            f"{config.model.num_classes} classes"
        )
    return Model(
        network=network.to(device).eval(), config=config, categories=categories, which=which
    )
