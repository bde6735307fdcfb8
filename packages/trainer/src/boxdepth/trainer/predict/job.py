"""Predicting on many pictures: what can't be used is named, what is finished is written."""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boxdepth.depthgen.store import Category, DataError
from boxdepth.trainer.data.categories import listed
from boxdepth.trainer.data.pictures import PictureFile
from boxdepth.trainer.engine.checkpoint import write_atomically
from boxdepth.trainer.engine.run_folder import make_folder
from boxdepth.trainer.engine.signals import StopFlag, stop_flag
from boxdepth.trainer.errors import PicturesError, PredictionStoppedError
from boxdepth.trainer.predict.inference import Picture
from boxdepth.trainer.predict.overlay import draw_overlay
from boxdepth.trainer.predict.predictor import Predictor
from boxdepth.trainer.predict.results import Instances, to_coco_results
from boxdepth.trainer.predict.task import Task
from boxdepth.trainer.words import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlays:
    """Pictures of the predictions, in a folder that is made at once.

    Raises:
        ConfigError: the folder is a file, or below one.
    """

    folder: Path
    min_score: float
    """Least score of what is drawn."""

    def __post_init__(self) -> None:
        make_folder(self.folder)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a task."""

    of: int
    """Pictures that were to be predicted on."""
    results: list[dict[str, Any]] = field(default_factory=list)
    """COCO results."""
    images: list[dict[str, Any]] = field(default_factory=list)
    """Id, file name and size of every picture that was predicted on."""
    boxes: list[dict[str, Any]] = field(default_factory=list)
    """The given boxes, as COCO annotations."""
    category_names: dict[int, str] = field(default_factory=dict)
    """Names of their categories."""
    bad: list[tuple[str, Exception]] = field(default_factory=list)
    """Pictures that could not be used, and why."""
    cut: list[str] = field(default_factory=list)
    """Pictures on which more was found than `inference.max_detections` lets through."""
    turned: list[str] = field(default_factory=list)
    """Pictures with an EXIF orientation, which is ignored."""
    unfinished: list[str] = field(default_factory=list)
    """Pictures that a signal came before."""
    signal: int | None = None

    def __str__(self) -> str:
        return f"{counted(len(self.results), 'instance')} on {counted(len(self.images), 'image')}"

    def notes(self, limit: int) -> list[str]:
        """What a person should know, a line each.

        Args:
            limit: the detections that were let through an image.
        """
        notes = []
        if self.cut:
            notes.append(
                f"{len(self.cut)} of {len(self.images)} pictures hold more detections "
                f"than the {limit} that inference.max_detections lets through, and only the best "
                f"are kept ({listed(self.cut)}): --max-detections {2 * limit} keeps more, a higher "
                "--score-threshold wants fewer"
            )
        if self.turned:
            notes.append(
                f"{counted(len(self.turned), 'picture')} with an EXIF orientation, which is "
                f"ignored: masks lie on the pixels as they are stored ({listed(self.turned)}); to "
                "turn the pixels: exiftran -ai FILE"
            )
        return notes

    def to_json(self) -> dict[str, Any]:
        """Numbers, and the names of pictures that a person should look at."""
        return {
            "images": len(self.images),
            "instances": len(self.results),
            "cut": self.cut,
            "left_out": [*(name for name, _ in self.bad), *self.unfinished],
        }

    def check(self, kept: Path, *, skip_bad: bool = False) -> None:
        """Whether all that was asked for is there.

        Args:
            kept: where the results were written.
            skip_bad: pictures that can't be used are no error, unless there are no others.

        Raises:
            PredictionStoppedError: a signal ended it.
            PicturesError: pictures that can't be used.
        """
        file = str(kept) if self.images else None
        if self.signal is not None:
            raise PredictionStoppedError(self.signal, done=len(self.images), of=self.of, kept=file)
        if self.bad and not (skip_bad and self.images):
            raise PicturesError(self.bad, kept=file)


def predict_task(
    predictor: Predictor,
    task: Task,
    *,
    overlays: Overlays | None = None,
    on_picture: Callable[[], None] = lambda: None,
) -> Outcome:
    """Predict on every picture of a task that can be used.

    SIGINT and SIGTERM end it after the pictures at hand, with what is finished; a second one ends
    it at once.

    Args:
        on_picture: called when a picture is done, or found to be of no use.
    """
    outcome = Outcome(of=len(task.pictures), category_names=dict(task.given_names))
    waiting: deque[tuple[PictureFile, np.ndarray]] = deque()
    with stop_flag() as stop:
        pictures = _readable(task, outcome, waiting, stop, on_picture)
        for instances in predictor.stream(pictures):
            source, rgb = waiting.popleft()
            height, width = instances.size
            outcome.results += _results(source, instances, task)
            outcome.boxes += _annotations(source, task)
            if instances.cut:
                outcome.cut.append(source.name)
            outcome.images.append(
                {
                    "id": task.image_id(source),
                    "file_name": source.name,
                    "height": height,
                    "width": width,
                }
            )
            if overlays is not None:
                _draw(rgb, instances, source, task, overlays, predictor.classes)
            on_picture()
    outcome.signal = stop.number
    seen = len(outcome.images) + len(outcome.bad)
    outcome.unfinished = [picture.name for picture in task.pictures[seen:]]
    return outcome


def _readable(
    task: Task,
    outcome: Outcome,
    waiting: deque[tuple[PictureFile, np.ndarray]],
    stop: StopFlag,
    on_picture: Callable[[], None],
) -> Iterator[Picture]:
    """The pictures that can be used, until a signal comes."""
    for source in task.pictures:
        if stop.number is not None:
            return
        try:
            rgb, turned = task.read(source)
        except (DataError, OSError) as error:
            outcome.bad.append((source.name, error))
            on_picture()
            continue
        if turned:
            outcome.turned.append(source.name)
        waiting.append((source, rgb))
        yield Picture(rgb=rgb, boxes_xyxy=task.boxes_xyxy(source))


def _results(source: PictureFile, instances: Instances, task: Task) -> list[dict[str, Any]]:
    results = to_coco_results(
        instances, image_id=task.image_id(source), category_ids=task.category_ids
    )
    if task.given is not None:
        for result, box in zip(results, task.given[source.image_id].boxes, strict=True):
            if box.category_id is not None:
                result["category_id"] = box.category_id
            if box.id is not None:
                result["id"] = box.id
    if source.path is not None:
        return [{**result, "file_name": source.name} for result in results]
    return results


def _annotations(source: PictureFile, task: Task) -> list[dict[str, Any]]:
    """The boxes given for a picture; none if one of them has no id or category to be told by."""
    boxes = () if task.given is None else task.given[source.image_id].boxes
    if any(box.id is None or box.category_id is None for box in boxes):
        return []
    rows = []
    for box in boxes:
        x1, y1, x2, y2 = box.xyxy
        rows.append(
            {
                "id": box.id,
                "image_id": task.image_id(source),
                "category_id": box.category_id,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
        )
    return rows


def _draw(
    rgb: np.ndarray,
    instances: Instances,
    source: PictureFile,
    task: Task,
    overlays: Overlays,
    names: Sequence[str],
) -> None:
    if task.given is not None:
        boxes = task.given[source.image_id].boxes
        names = [
            names[label]
            if box.category_id is None
            else task.given_names.get(box.category_id, str(box.category_id))
            for box, label in zip(boxes, instances.labels.tolist(), strict=True)
        ]
        instances = replace(instances, labels=np.arange(len(boxes), dtype=np.int64))
    drawn = draw_overlay(rgb, instances, names, min_score=overlays.min_score)
    data = BytesIO()
    Image.fromarray(drawn).save(data, "PNG")
    file = f"{task.image_id(source)}-{Path(source.name).stem}.png"
    write_atomically(overlays.folder / file, data.getvalue())


def images_file(out: Path) -> Path:
    """Where the images of a results file are listed."""
    return out.with_name(f"{out.name.removesuffix('.json')}.images.json")


def write_outcome(out: Path, outcome: Outcome, categories: Sequence[Category]) -> None:
    """COCO results, and beside them what they belong to, as a COCO annotation file: the images,
    the classes, the boxes where some were given; and what was left out and why."""
    write_atomically(out, (json.dumps(outcome.results) + "\n").encode())
    left_out = [
        *({"file_name": name, "why": str(why)} for name, why in outcome.bad),
        *({"file_name": name, "why": "stopped before it"} for name in outcome.unfinished),
    ]
    names = outcome.category_names or {c.id: c.name for c in categories}
    sidecar = {
        "images": outcome.images,
        "annotations": outcome.boxes,
        "categories": [{"id": number, "name": name} for number, name in names.items()],
        "left_out": left_out,
    }
    write_atomically(images_file(out), (json.dumps(sidecar, indent=1) + "\n").encode())
