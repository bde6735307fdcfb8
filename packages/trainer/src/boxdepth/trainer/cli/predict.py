"""`trainer predict`: masks for images, folders, a store, or given boxes."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from PIL import Image
from rich.progress import Progress

from boxdepth.depthgen.store import DataError, decode_image
from boxdepth.trainer import assemble
from boxdepth.trainer.build import build_model
from boxdepth.trainer.cli.app import (
    AsJson,
    Device,
    app,
    bar_wanted,
    choose_device,
    console,
    emit,
    refuse_existing,
    say,
)
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.data.validation_set import open_validation_set
from boxdepth.trainer.engine.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_checkpoint,
    write_atomically,
)
from boxdepth.trainer.inference import Picture, predict_pictures
from boxdepth.trainer.model.condinst import CondInst
from boxdepth.trainer.overlay import draw_overlay
from boxdepth.trainer.predict import Instances, to_coco_results
from boxdepth.trainer.resolve import ConfigError

SUFFIXES = (".jpg", ".jpeg", ".png")
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
    category_ids: tuple[int, ...]
    category_names: tuple[str, ...]
    which: str
    """teacher or student."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An image to predict on."""

    image_id: int
    name: str
    row: int | None = None
    """In the store; None: a file."""
    path: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenBox:
    """A box whose mask is wanted."""

    id: int | None
    category_id: int | None
    xyxy: tuple[float, float, float, float]


@app.command(epilog=EXAMPLES)
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder or a checkpoint.")],
    images: Annotated[
        list[Path] | None, typer.Argument(help="Images, or folders of them.", show_default=False)
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Predict on all images of a store.")] = None,
    out: Annotated[Path, typer.Option(help="COCO results file.")] = Path("predictions.json"),
    overlay: Annotated[
        Path | None, typer.Option(help="Folder for pictures of the predictions.")
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
        Path | None, typer.Option(help="COCO boxes: one mask for each, instead of detections.")
    ] = None,
    crop: Annotated[bool, typer.Option(help="With --boxes: cut each mask at its box.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Predict masks, as COCO results at the original size."""
    refuse_existing(out, overwrite=overwrite)
    if weights not in (None, "teacher", "student"):
        raise ConfigError(f"--weights {weights!r}: expected teacher or student")
    validation = open_validation_set(store) if store is not None else None
    sources = _store_sources(validation) if validation is not None else _file_sources(images or [])
    model = load_model(run, choose_device(device), weights=weights)
    given = _read_boxes(boxes, sources) if boxes is not None else None
    spec = replace(assemble.inference_spec(model.config), crop_to_given=crop)
    if overlay is not None:
        overlay.mkdir(parents=True, exist_ok=True)
    least_drawn = overlay_threshold
    if least_drawn is None:
        least_drawn = 0.3 if given is None else 0.0

    def rgb(source: Source) -> np.ndarray:
        if validation is not None and source.row is not None:
            return validation.rgb(source.row)
        return _read_image(source)

    def pictures() -> Iterator[Picture]:
        for source in sources:
            wanted = None if given is None else _array(given[source.image_id])
            yield Picture(rgb=rgb(source), boxes_xyxy=wanted)

    results: list[dict[str, Any]] = []
    with Progress(console=console, disable=not bar_wanted(), transient=True) as progress:
        task = progress.add_task(f"predicting with the {model.which}", total=len(sources))
        found = predict_pictures(model.network, pictures(), spec)
        for source, instances in zip(sources, found, strict=True):
            results += _results(source, instances, model, given, score_threshold)
            if overlay is not None:
                drawn = draw_overlay(
                    rgb(source), instances, model.category_names, min_score=least_drawn
                )
                _save(drawn, overlay, source)
            progress.advance(task)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, (json.dumps(results) + "\n").encode())
    say(f"{len(results)} instances on {len(sources)} images, written to {out}")
    if overlay is not None:
        say(f"pictures in {overlay}")
    emit(
        {
            "predictions": str(out),
            "images": len(sources),
            "instances": len(results),
            "weights": model.which,
            "overlays": str(overlay) if overlay else None,
        },
        as_json=as_json,
    )


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
    try:
        config = RunConfig.model_validate(checkpoint.run["config"])
        categories = checkpoint.run["categories"]
        network = build_model(config.model)
        network.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{folder}: does not fit this version: {reason}") from error
    return Model(
        network=network.to(device).eval(),
        config=config,
        category_ids=tuple(int(c["id"]) for c in categories),
        category_names=tuple(str(c["name"]) for c in categories),
        which=which,
    )


def _store_sources(validation: Any) -> list[Source]:
    return [
        Source(image_id=validation.image_id(row), name=validation.name(row), row=row)
        for row in range(len(validation))
    ]


def _file_sources(paths: Sequence[Path]) -> list[Source]:
    """Files in the order given, folders sorted; COCO names (digits) are their own image ids."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path}: no such image or folder")
    if not files:
        raise ConfigError("nothing to predict on: give images, folders of JPEG or PNG, or --store")
    digits = all(file.stem.isdecimal() for file in files)
    ids = [int(file.stem) for file in files] if digits else list(range(1, len(files) + 1))
    if len(set(ids)) < len(ids):
        ids = list(range(1, len(files) + 1))
    return [Source(image_id=i, name=f.name, path=f) for i, f in zip(ids, files, strict=True)]


def _read_image(source: Source) -> np.ndarray:
    assert source.path is not None
    try:
        data = source.path.read_bytes()
    except OSError as error:
        raise DataError(f"{source.path}: {error.strerror or error}") from error
    return decode_image(data, expected_size=None, name=str(source.path))


def _read_boxes(path: Path, sources: Sequence[Source]) -> dict[int, list[GivenBox]]:
    """Boxes by image id; images of a COCO document are found by file name too."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON: {error}") from error
    rows = document.get("annotations") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a list of boxes, or a COCO document with annotations")
    names = {source.name: source.image_id for source in sources}
    listed = document.get("images", []) if isinstance(document, dict) else []
    ids = {image["id"]: names.get(Path(image["file_name"]).name) for image in listed}
    known = {source.image_id for source in sources}
    boxes: dict[int, list[GivenBox]] = defaultdict(list)
    for number, row in enumerate(rows):
        try:
            x, y, width, height = (float(value) for value in row["bbox"])
            image_id = int(ids.get(row["image_id"]) or row["image_id"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: box {number}: expected image_id and bbox [x, y, width, height]"
            ) from error
        if image_id not in known:
            raise DataError(f"{path}: box {number} is on image {image_id}, which is not given")
        boxes[image_id].append(
            GivenBox(
                id=row.get("id"),
                category_id=row.get("category_id"),
                xyxy=(x, y, x + width, y + height),
            )
        )
    return boxes


def _array(boxes: Sequence[GivenBox]) -> np.ndarray:
    return np.array([box.xyxy for box in boxes], dtype=np.float32).reshape(-1, 4)


def _results(
    source: Source,
    instances: Instances,
    model: Model,
    given: dict[int, list[GivenBox]] | None,
    score_threshold: float | None,
) -> list[dict[str, Any]]:
    results = to_coco_results(instances, image_id=source.image_id, category_ids=model.category_ids)
    if given is not None:
        for result, box in zip(results, given[source.image_id], strict=True):
            if box.category_id is not None:
                result["category_id"] = box.category_id
            if box.id is not None:
                result["id"] = box.id
    if source.path is not None:
        results = [{**result, "file_name": source.name} for result in results]
    floor = score_threshold or 0.0
    return [result for result in results if given is not None or result["score"] >= floor]


def _save(picture: np.ndarray, folder: Path, source: Source) -> None:
    stem = Path(source.name).stem
    Image.fromarray(picture).save(folder / f"{source.image_id}-{stem}.png")
