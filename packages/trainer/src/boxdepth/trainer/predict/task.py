"""What is predicted on: picture files or a store's images, whole or in given boxes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from boxdepth.depthgen.store import Category, DataError
from boxdepth.trainer.data.box_file import BoxFile, GivenBox, ListedImage, read_box_file
from boxdepth.trainer.data.categories import listed
from boxdepth.trainer.data.pictures import (
    Matched,
    PictureFile,
    find_pictures,
    match_pictures,
    read_picture,
)
from boxdepth.trainer.data.validation_set import ValidationSet, open_validation_set
from boxdepth.trainer.errors import ConfigError
from boxdepth.trainer.predict.classes import category_ids_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Pictures to predict on, what results on them are called, and what is odd about them."""

    pictures: tuple[PictureFile, ...]
    category_ids: tuple[int | None, ...]
    """Id of each class of the network; None: it is left out."""
    store: ValidationSet | None = None
    given: dict[int, ListedImage] | None = None
    """By the picture's image id; None: detections are wanted."""
    given_names: dict[int, str] = field(default_factory=dict)
    """Names of the given boxes' categories."""
    notes: tuple[str, ...] = ()
    """What a person should know before the first picture."""

    def read(self, source: PictureFile) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
        """The pixels of a picture, and whether it has an EXIF orientation, which is ignored.

        Raises:
            DataError: not a picture that can be used, or of another size than its boxes.
            OSError: the machine is at fault.
        """
        if source.row is not None:
            assert self.store is not None
            return self.store.rgb(source.row), False
        size = self.given[source.image_id].size if self.given is not None else None
        pixels = read_picture(source, size=size)
        return pixels.rgb, pixels.turned

    def boxes_xyxy(self, source: PictureFile) -> Float32[np.ndarray, "n 4"] | None:
        """The boxes given for a picture; None: detections are wanted."""
        if self.given is None:
            return None
        boxes = [box.xyxy for box in self.given[source.image_id].boxes]
        return np.array(boxes, dtype=np.float32).reshape(-1, 4)

    def image_id(self, source: PictureFile) -> int:
        """The id that results on a picture carry."""
        return source.image_id if self.given is None else self.given[source.image_id].id


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Pictures, before it is known what is predicted on them."""

    pictures: tuple[PictureFile, ...]
    store: ValidationSet | None = None
    notes: tuple[str, ...] = ()


def files(paths: Sequence[Path]) -> Source:
    """Picture files and folders of them.

    Raises:
        DataError: no such file or folder.
        ConfigError: there is no picture among them.
    """
    found = find_pictures(paths)
    notes = []
    if found.passed_over:
        notes.append(
            f"{len(found.passed_over)} pictures of formats that are not read are left out "
            f"({listed(found.passed_over)}): convert them to JPEG, PNG, WebP or TIFF"
        )
    if not found.pictures:
        raise ConfigError(
            "nothing to predict on: give images, folders of JPEG, PNG, WebP or TIFF, or --store"
            + "".join(f"; {note}" for note in notes)
        )
    return Source(pictures=found.pictures, notes=tuple(notes))


def stored(path: Path) -> Source:
    """All images of a store.

    Raises:
        StoreError: unfinished or damaged.
    """
    store = open_validation_set(path)
    pictures = tuple(
        PictureFile(image_id=store.image_id(row), name=store.name(row), row=row, id_is_its_own=True)
        for row in range(len(store))
    )
    return Source(pictures=pictures, store=store)


def source_of(paths: Sequence[Path], store: Path | None) -> Source:
    """Picture files and folders of them, or all images of a store.

    Raises:
        ConfigError: both are named, or there is no picture.
        DataError: no such file or folder.
        StoreError: a store that is unfinished or damaged.
    """
    if store is not None and paths:
        raise ConfigError("give images or --store, not both")
    return files(paths) if store is None else stored(store)


def task_on(
    source: Source, learnt: Sequence[Category], *, boxes: Path | Literal["store"] | None = None
) -> Task:
    """What a network that learnt these classes predicts on these pictures.

    Results on a store carry the ids that it gives to the classes' names, results in given boxes
    those of the boxes.

    Args:
        boxes: a COCO file of the boxes whose masks are wanted; ``store``: the store's own.

    Raises:
        ConfigError: the boxes of a store are wanted, and there is no store.
        DataError: a store without any of the classes, a boxes file that can't be used.
    """
    task = Task(
        pictures=source.pictures,
        category_ids=tuple(category.id for category in learnt),
        store=source.store,
        notes=source.notes,
    )
    if boxes == "store":
        return in_stored_boxes(task)
    if boxes is not None:
        return in_given_boxes(task, boxes)
    if source.store is None:
        return task
    where = str(source.store.store.path)
    ids, notes = category_ids_for(learnt, source.store.categories, where=where)
    return replace(task, category_ids=ids, notes=(*task.notes, *notes))


def in_given_boxes(task: Task, path: Path) -> Task:
    """The task with the boxes of a file, on the pictures that have some.

    Raises:
        DataError: a file that can't be used, or none of whose images is given.
    """
    boxes = read_box_file(path)
    matched = match_pictures(boxes, task.pictures)
    notes = [f"{path}: {note}" for note in boxes.notes]
    if not matched.images:
        raise DataError(_no_box_here(boxes, matched, task.pictures))
    if matched.absent:
        count = sum(len(image.boxes) for image in matched.absent)
        notes.append(
            f"{path}: {count} boxes are on {len(matched.absent)} images that are not given, and "
            f"are left out ({listed(_named(matched))})"
        )
    pictures = tuple(picture for picture in task.pictures if picture.name in matched.images)
    without = len(task.pictures) - len(pictures)
    if without:
        notes.append(f"{without} pictures have no boxes in {path} and are left out")
    return replace(
        task,
        pictures=pictures,
        given={picture.image_id: matched.images[picture.name] for picture in pictures},
        given_names=dict(boxes.category_names),
        notes=(*task.notes, *notes),
    )


def in_stored_boxes(task: Task) -> Task:
    """The task with the store's own boxes, but for crowd regions and boxes without area.

    Raises:
        ConfigError: there is no store.
        DataError: it holds no box to fill.
    """
    if task.store is None:
        raise ConfigError("--boxes store means the boxes of a store: give it with --store")
    crowds = empty = 0
    given = {}
    for picture in task.pictures:
        assert picture.row is not None
        boxes = task.store.store.boxes(picture.row)
        bare = ((boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]) <= 0).any(axis=1)
        crowds, empty = crowds + int(boxes.crowd.sum()), empty + int((bare & ~boxes.crowd).sum())
        wanted = tuple(
            GivenBox(
                id=int(boxes.id[k]),
                category_id=task.store.category_ids[int(boxes.label[k])],
                xyxy=(float(x1), float(y1), float(x2), float(y2)),
            )
            for k, (x1, y1, x2, y2) in enumerate(boxes.xyxy.tolist())
            if not (boxes.crowd[k] or bare[k])
        )
        if wanted:
            given[picture.image_id] = ListedImage(
                id=picture.image_id, file_name=picture.name, size=None, boxes=wanted
            )
    where = task.store.store.path
    if not given:
        raise DataError(f"{where}: holds no box to give a mask to")
    left_out = ((crowds, "crowd boxes"), (empty, "boxes without area"))
    counted = [f"{count} {what}" for count, what in left_out if count]
    notes = [f"{where}: {' and '.join(counted)} are left out"] if counted else []
    return replace(
        task,
        pictures=tuple(picture for picture in task.pictures if picture.image_id in given),
        given=given,
        given_names={category.id: category.name for category in task.store.categories},
        notes=(*task.notes, *notes),
    )


def _no_box_here(boxes: BoxFile, matched: Matched, pictures: Sequence[PictureFile]) -> str:
    if not matched.absent:
        return f"{boxes.path}: holds no boxes"
    nameless = all(image.file_name is None for image in matched.absent)
    cure = (
        "the file names no files: give a COCO document with images, or rows with file_name"
        if nameless
        else "file_name must be the end of a given picture's path, folders included"
    )
    return (
        f"{boxes.path}: no box is on a picture that is given (boxes are on "
        f"{listed(_named(matched))}; given: {listed([picture.name for picture in pictures])}); "
        + cure
    )


def _named(matched: Matched) -> list[str]:
    return [image.file_name or f"image {image.id}" for image in matched.absent]
