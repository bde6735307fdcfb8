"""COCO ground truth as checked columns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxdepth.evaluate.results import records, rle
from boxdepth.evaluate.results.json_document import JsonLimits, load_json
from boxdepth.evaluate.results.masks import MaskTable, read_masks
from boxdepth.evaluate.results.problems import DataError, Problems, quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruth:
    """Images, categories and annotations of one COCO file, each sorted by its id.

    Attributes:
        source: the file, or a word for a document in memory.
        image_ids: original ids.
        image_sizes: (height, width) in pixels.
        image_names: `file_name`, empty where the file has none.
        category_ids: original ids.
        category_names: one for each.
        ids: original annotation ids.
        image_index, category_index: each annotation's place in the two lists above.
        boxes_xywh: in pixels of the original image.
        areas: the file's `area` (mask pixels, as a rule), which decides small, medium and large.
        crowd: regions that can be matched any number of times and never missed.
        masks: one per annotation, absent where the file has boxes alone.
        notes: what was filled in or looks odd, in sentences.
    """

    source: str
    image_ids: Int64[np.ndarray, " i"]
    image_sizes: Int64[np.ndarray, "i 2"]
    image_names: tuple[str, ...]
    category_ids: Int64[np.ndarray, " k"]
    category_names: tuple[str, ...]
    ids: Int64[np.ndarray, " n"]
    image_index: Int64[np.ndarray, " n"]
    category_index: Int64[np.ndarray, " n"]
    boxes_xywh: Float64[np.ndarray, "n 4"]
    areas: Float64[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    masks: MaskTable
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Int64[np.ndarray, " m"]) -> "GroundTruth":
        """The same images and categories with annotations `rows` alone."""
        columns = ("ids", "image_index", "category_index", "boxes_xywh", "areas", "crowd")
        chosen = {column: getattr(self, column)[rows] for column in columns}
        return replace(self, **chosen, masks=self.masks.take(rows))

    def only_images(self, kept: Int64[np.ndarray, " m"]) -> "GroundTruth":
        """The same with the images at the (rising) places `kept` alone."""
        return _only_images(self, kept)


def _only_images(truth: GroundTruth, kept: np.ndarray) -> GroundTruth:
    rows = np.flatnonzero(np.isin(truth.image_index, kept))
    part = truth.take(rows)
    names = truth.image_names
    return replace(
        part,
        image_ids=truth.image_ids[kept],
        image_sizes=truth.image_sizes[kept],
        image_names=tuple(names[i] for i in kept.tolist()) if names else (),
        image_index=np.searchsorted(kept, part.image_index),
    )


def read_annotations(
    annotations: Path | dict[str, Any],
    *,
    with_masks: bool = True,
    limits: JsonLimits = JsonLimits(),
) -> GroundTruth:
    """Read and check a COCO annotation file.

    Args:
        annotations: the file, or its document (which is left as it is).
        with_masks: read segmentations even where there are boxes.
        limits: how large a file may be.

    Raises:
        DataError: names every fault that would change the score, with record and cure.
    """
    if isinstance(annotations, dict):
        source, document = "annotations", cast(object, annotations)
    else:
        source, document = str(annotations), load_json(annotations, limits=limits)
    problems = Problems(source=source)
    tables = _tables(document, source)
    images = _Images.read(tables["images"], problems)
    categories = _Categories.read(tables["categories"], problems)
    problems.raise_if_any()
    truth = _read_objects(source, tables["annotations"], images, categories, with_masks, problems)
    problems.raise_if_any()
    return truth


@dataclass(frozen=True, slots=True, kw_only=True)
class _Images:
    ids: np.ndarray
    sizes: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def read(cls, raw: list[object], problems: Problems) -> "_Images":
        def name(index: int) -> str:
            return f"images[{index}]"

        rows = records.only_objects(raw, name=name, problems=problems)
        ids = records.integers(rows, "id", name=name, problems=problems)
        sides = [
            records.integers(rows, key, name=name, problems=problems, low=1, high=2**20)
            for key in ("height", "width")
        ]
        sizes = np.stack(sides, axis=1)
        for index in np.flatnonzero(sizes.prod(axis=1) > rle.MAX_PIXELS).tolist():
            problems.add(name(index), f"has more than {rle.MAX_PIXELS:,} pixels")
        if not problems.count:
            records.report_duplicates(ids, what="image", problems=problems)
        names = [row.get("file_name") for row in rows]
        order = np.argsort(ids, kind="stable")
        kept = tuple(n if isinstance(n, str) else "" for n in (names[i] for i in order.tolist()))
        return cls(ids=ids[order], sizes=sizes[order], names=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Categories:
    ids: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def read(cls, raw: list[object], problems: Problems) -> "_Categories":
        def name(index: int) -> str:
            return f"categories[{index}]"

        rows = records.only_objects(raw, name=name, problems=problems)
        ids = records.integers(rows, "id", name=name, problems=problems)
        if not problems.count:
            records.report_duplicates(ids, what="category", problems=problems)
        names = [row.get("name", f"category {row.get('id')}") for row in rows]
        for index, value in enumerate(names):
            if not isinstance(value, str):
                problems.add(name(index), f"name is {quoted(value)}, expected a string")
        strings = [str(value) for value in names]
        for value in sorted({v for v in strings if strings.count(v) > 1}):
            problems.add(f"category name {quoted(value)}", "stands twice, expected unique names")
        order = np.argsort(ids, kind="stable")
        return cls(ids=ids[order], names=tuple(strings[i] for i in order.tolist()))


def _tables(document: object, source: str) -> dict[str, list[object]]:
    if not isinstance(document, dict):
        kind = "a list (these look like results)" if isinstance(document, list) else "no object"
        raise DataError(
            f"{source}: is {kind}, expected COCO annotations {{images, annotations, categories}}"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key), list):
            seen = quoted(document[key]) if key in document else "missing"
            raise DataError(
                f"{source}: {key} is {seen}, expected a list. Is this a COCO annotation file?"
            )
    return {key: document[key] for key in ("images", "annotations", "categories")}


def _read_objects(
    source: str,
    raw: list[object],
    images: _Images,
    categories: _Categories,
    with_masks: bool,
    problems: Problems,
) -> GroundTruth:
    rows = records.only_objects(raw, name=lambda i: f"annotations[{i}]", problems=problems)

    def name(index: int) -> str:
        return f"annotation {quoted(rows[index].get('id'))}"

    ids = records.integers(rows, "id", name=lambda i: f"annotations[{i}]", problems=problems)
    problems.raise_if_any()
    records.report_duplicates(ids, what="annotation", problems=problems)
    image_index = _known(rows, "image_id", images.ids, name, problems)
    category_index = _known(rows, "category_id", categories.ids, name, problems)
    crowd = _crowd(rows, name, problems)
    boxes, has_box = records.boxes(rows, name=name, problems=problems)
    areas, has_area = records.numbers(rows, "area", name=name, problems=problems, optional=True)
    for index in np.flatnonzero(areas < 0).tolist():
        problems.add(name(index), f"area is {areas[index]:g}, expected at least 0")
    problems.raise_if_any()
    sizes = images.sizes[image_index].reshape(-1, 2)
    wanted = with_masks | ~has_box
    segmentations = [
        row.get("segmentation") if is_wanted else None
        for row, is_wanted in zip(rows, wanted.tolist(), strict=True)
    ]
    masks = read_masks(segmentations, sizes, name=name, problems=problems)
    for index in np.flatnonzero(~has_box & ~masks.present).tolist():
        problems.add(name(index), "has neither bbox nor segmentation")
    boxes = _filled(boxes, has_box, masks)
    notes = _notes(has_box, has_area, rows, boxes, sizes)
    computed = np.where(masks.present, masks.areas, boxes[:, 2] * boxes[:, 3])
    order = np.argsort(ids, kind="stable")
    return GroundTruth(
        source=source,
        image_ids=images.ids,
        image_sizes=images.sizes,
        image_names=images.names,
        category_ids=categories.ids,
        category_names=categories.names,
        ids=ids[order],
        image_index=image_index[order],
        category_index=category_index[order],
        boxes_xywh=boxes[order],
        areas=np.where(has_area, areas, computed)[order],
        crowd=crowd[order],
        masks=masks.take(order),
        notes=notes,
    )


def _known(
    rows: Sequence[records.Record], key: str, ids: np.ndarray, name: Any, problems: Problems
) -> Int64[np.ndarray, " n"]:
    values = records.integers(rows, key, name=name, problems=problems)
    place, found = records.positions(values, ids)
    table = "images" if key == "image_id" else "categories"
    for index in np.flatnonzero(~found).tolist():
        if records.is_whole(rows[index].get(key)):
            problems.add(name(index), f"{key} {values[index]} is not in {table}")
    return place


def _crowd(rows: Sequence[records.Record], name: Any, problems: Problems) -> Bool[np.ndarray, " n"]:
    column = [row.get("iscrowd", 0) for row in rows]
    for index, value in enumerate(column):
        if type(value) not in (int, bool) or value not in (0, 1):
            problems.add(name(index), f"iscrowd is {quoted(value)}, expected 0 or 1")
    return np.array([value == 1 for value in column], dtype=bool)


def _filled(boxes: np.ndarray, has_box: np.ndarray, masks: MaskTable) -> np.ndarray:
    return boxes if has_box.all() else np.where(has_box[:, None], boxes, masks.boxes_xywh())


def _notes(
    has_box: np.ndarray,
    has_area: np.ndarray,
    rows: Sequence[records.Record],
    boxes: np.ndarray,
    sizes: np.ndarray,
) -> tuple[str, ...]:
    notes = []
    no_crowd = sum("iscrowd" not in row for row in rows)
    if no_crowd:
        notes.append(f"{no_crowd} annotations have no iscrowd: taken as 0.")
    if not has_area.all():
        missing = int((~has_area).sum())
        notes.append(f"{missing} annotations have no area: computed from the mask, else the box.")
    if not has_box.all():
        notes.append(f"{int((~has_box).sum())} annotations have no bbox: computed from the mask.")
    outside = boxes[:, :2] + boxes[:, 2:] > sizes[:, ::-1] + 1.5
    outside = outside.any(axis=1) | (boxes[:, :2] < -1.5).any(axis=1)
    if outside.any():
        notes.append(
            f"{int(outside.sum())} annotation boxes leave their image: are height and width in "
            "images[] right, and boxes xywh?"
        )
    return tuple(notes)
