"""COCO's annotation format: the official layout, and anyone's own folder and file."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boxdepth.depthgen.datasets.masks import run_length_mask
from boxdepth.depthgen.datasets.records import (
    MAX_SIDE,
    Dataset,
    DatasetReport,
    clip_boxes,
    find_root,
    finite,
    integer,
    load_json,
    require_folder,
    safe_path,
    settle,
)
from boxdepth.depthgen.store.errors import ConfigError, DataError
from boxdepth.depthgen.store.schema import Category, ImageRecord

ROOT_VARIABLES = ("BOXDEPTH_DATA", "DETECTRON2_DATASETS")
ROBOFLOW_NAME = "_annotations.coco.json"


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What one pass over an annotation file gathers."""

    images: dict[int, tuple[Path, str, int, int]] = field(default_factory=dict)
    labels: dict[int, int] = field(default_factory=dict)
    boxes: dict[int, list[tuple[list[float], int, int, bool, float, Any]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    problems: list[str] = field(default_factory=list)
    dropped: int = 0


def read_coco(
    data_root: Path | None, *, split: str, masks: bool = False, on_bad: str = "error"
) -> Dataset:
    """Read a split of COCO in its official layout.

    The root is ``data_root``, else ``$BOXDEPTH_DATA``, else ``$DETECTRON2_DATASETS``, else
    ``./datasets``; COCO lies in its folder ``coco``, or fills the root itself.

    Args:
        split: Such as ``train2017``: the folder of that name, and
            ``annotations/instances_<split>.json``.

    Raises:
        ConfigError: The layout is not there.
        DataError: The annotations are not usable.
    """
    root = find_root(data_root, variables=ROOT_VARIABLES)
    for candidate in (root / "coco", root):
        annotations = candidate / "annotations" / f"instances_{split}.json"
        if annotations.is_file() and (candidate / split).is_dir():
            return read_coco_file(
                candidate / split, annotations, name="coco", split=split, masks=masks, on_bad=on_bad
            )
    raise ConfigError(
        f"no COCO split {split!r} under {root}: expected {split}/ and "
        f"annotations/instances_{split}.json in {root / 'coco'} or in {root} itself; "
        "give --data-root, or set BOXDEPTH_DATA"
    )


def read_custom(
    data_root: Path | None,
    *,
    images: Path | None,
    annotations: Path | None,
    split: str,
    masks: bool = False,
    on_bad: str = "error",
) -> Dataset:
    """Read one's own images with a COCO-format file.

    Give ``images`` and ``annotations``; or only ``images`` with ``_annotations.coco.json`` in it;
    or a data root in Roboflow's layout, ``<root>/<split>/_annotations.coco.json`` beside the
    images.

    Raises:
        ConfigError: Neither is there.
        DataError: The annotations are not usable.
    """
    folder = images or (annotations.parent if annotations else None)
    if folder is None:
        folder = find_root(data_root, variables=ROOT_VARIABLES) / split
    require_folder(folder, what="image folder")
    file = annotations or folder / ROBOFLOW_NAME
    if not file.is_file():
        raise ConfigError(f"no annotation file at {file}; give --annotations FILE")
    return read_coco_file(folder, file, name="custom", split=split, masks=masks, on_bad=on_bad)


def read_coco_file(
    image_root: Path, annotations: Path, *, name: str, split: str, masks: bool, on_bad: str
) -> Dataset:
    """Read one COCO-format annotation file; all its problems are reported together.

    Boxes alone suffice: ``segmentation`` may be missing, ``null``, ``[]`` or ``{}``, and is not
    looked at without ``masks``. Boxes are cut to their image, those without area are dropped; both
    are counted. Crowds are kept with their flag.

    Raises:
        DataError: Unknown, duplicate or missing ids, boxes that are no numbers, unsafe file names.
    """
    document = load_json(annotations)
    if not isinstance(document, dict):
        raise DataError(
            f"{annotations}: an object with images, annotations and categories expected"
        )
    reading = _Reading()
    categories = _read_categories(_list(document, "categories", annotations), reading)
    root = image_root.resolve()
    for index, item in enumerate(_list(document, "images", annotations)):
        _collect(reading, f"images[{index}]", item, lambda r, i: _read_image(r, i, root))
    read_annotation = _annotation_reader(masks)
    for index, item in enumerate(_list(document, "annotations", annotations)):
        _collect(reading, f"annotations[{index}]", item, read_annotation)
    rejected = settle(reading.problems, source=annotations, on_bad=on_bad)
    clipped, records = _records(reading, masks=masks)
    report = DatasetReport(
        boxes_clipped=clipped,
        boxes_dropped=reading.dropped,
        crowds=sum(int(record.crowd.sum()) for record in records),
        images_without_boxes=sum(1 for record in records if not len(record.labels)),
        rejected=rejected,
    )
    return Dataset(name=name, split=split, categories=categories, records=records, report=report)


def _list(document: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise DataError(f"{path}: {key!r} is {type(value).__name__}, a list is expected")
    return value


def _collect(reading: _Reading, where: str, item: Any, read: Any) -> None:
    if not isinstance(item, dict):
        reading.problems.append(f"{where}: an object is expected")
        return
    try:
        read(reading, item)
    except ValueError as error:
        reading.problems.append(f"{where} (id {item.get('id')!r}): {error}")


def _read_categories(items: list[Any], reading: _Reading) -> tuple[Category, ...]:
    found: dict[int, Category] = {}

    def read(_: _Reading, item: dict[str, Any]) -> None:
        number, name = integer(item, "id"), item.get("name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"name is {name!r}, a text is expected")
        if number in found:
            raise ValueError("this category id occurs twice")
        found[number] = Category(id=number, name=name)

    for index, item in enumerate(items):
        _collect(reading, f"categories[{index}]", item, read)
    ordered = tuple(found[number] for number in sorted(found))
    reading.labels.update({category.id: label for label, category in enumerate(ordered)})
    return ordered


def _read_image(reading: _Reading, item: dict[str, Any], root: Path) -> None:
    number, height, width = (integer(item, key) for key in ("id", "height", "width"))
    if number in reading.images:
        raise ValueError("this image id occurs twice")
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ValueError(f"size {height}x{width}, sides of 1..{MAX_SIDE} pixels are expected")
    path = safe_path(root, item.get("file_name"))
    reading.images[number] = (path, path.relative_to(root).as_posix(), height, width)


def _annotation_reader(masks: bool) -> Any:
    seen: set[int] = set()

    def read(reading: _Reading, item: dict[str, Any]) -> None:
        number = integer(item, "id")
        if number in seen:
            raise ValueError("this annotation id occurs twice")
        seen.add(number)
        image, category = integer(item, "image_id"), integer(item, "category_id")
        if image not in reading.images:
            raise ValueError(f"image_id {image} is not among the images")
        if category not in reading.labels:
            raise ValueError(f"category_id {category} is not among the categories")
        x, y, width, height = _bbox(item.get("bbox"))
        area = item.get("area")
        area = width * height if area is None else finite(area, name="area")
        _, _, rows, columns = reading.images[image]
        mask = (
            run_length_mask(item.get("segmentation"), height=rows, width=columns) if masks else None
        )
        if width <= 0 or height <= 0:
            reading.dropped += 1
            return
        corners = [x, y, x + width, y + height]
        label, crowd = reading.labels[category], bool(item.get("iscrowd", 0))
        reading.boxes[image].append((corners, label, number, crowd, area, mask))

    return read


def _bbox(value: object) -> list[float]:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"bbox is {value!r}, [x, y, width, height] is expected")
    return [finite(number, name="bbox") for number in value]


def _records(reading: _Reading, *, masks: bool) -> tuple[int, tuple[ImageRecord, ...]]:
    records, clipped = [], 0
    for number in sorted(reading.images):
        path, name, height, width = reading.images[number]
        rows = reading.boxes.get(number, [])
        corners = np.array([row[0] for row in rows], dtype=np.float64).reshape(-1, 4)
        corners, moved, keep = clip_boxes(corners, height=height, width=width)
        clipped += int(moved.sum())
        reading.dropped += int((~keep).sum())
        kept = [row for row, good in zip(rows, keep, strict=True) if good]
        records.append(
            ImageRecord(
                id=number,
                name=name,
                path=path,
                height=height,
                width=width,
                boxes_xyxy=corners[keep].astype(np.float32),
                labels=np.array([row[1] for row in kept], dtype=np.int64),
                box_ids=np.array([row[2] for row in kept], dtype=np.int64),
                crowd=np.array([row[3] for row in kept], dtype=bool),
                areas=np.array([row[4] for row in kept], dtype=np.float32),
                masks=tuple(row[5] for row in kept) if masks else None,
            )
        )
    return clipped, tuple(records)
