"""COCO ground truth as checked columns."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET

from boxdepth.evaluate.results import schema
from boxdepth.evaluate.results.arrays import Bool, Float64, Int64
from boxdepth.evaluate.results.bulk import without_collector
from boxdepth.evaluate.results.columns import MAX_AREA, MAX_SIDE, ColumnReader, positions
from boxdepth.evaluate.results.json_document import JsonLimits, parse, parse_as, read_text
from boxdepth.evaluate.results.masks import MaskTable, read_masks
from boxdepth.evaluate.results.problems import DataError, Problems, quoted
from boxdepth.evaluate.results.schema import Columns, columns_of


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruth:
    """Images, categories and annotations of one COCO file, each sorted by its id.

    Attributes:
        source: the file, or a word for a document in memory.
        image_ids: original ids.
        image_sizes: (height, width) in pixels.
        image_names: `file_name`, empty where the file has none.
        category_ids: original ids.
        category_names: one for each, unique: what two categories share is followed by the id.
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
        part = self.take(np.flatnonzero(np.isin(self.image_index, kept)))
        names = self.image_names
        return replace(
            part,
            image_ids=self.image_ids[kept],
            image_sizes=self.image_sizes[kept],
            image_names=tuple(names[i] for i in kept.tolist()) if names else (),
            image_index=np.searchsorted(kept, part.image_index),
        )


@without_collector
def read_annotations(
    annotations: Path | dict[str, Any] | GroundTruth,
    *,
    with_masks: bool = True,
    limits: JsonLimits = JsonLimits(),
) -> GroundTruth:
    """Read and check a COCO annotation file.

    Args:
        annotations: the file, or its document (which is left as it is); a table that was read
            before comes back as it is.
        with_masks: read segmentations even where there are boxes.
        limits: how large a file may be.

    Raises:
        DataError: names every fault that would change the score, with record and cure.
    """
    if isinstance(annotations, GroundTruth):
        return annotations
    source = str(annotations) if isinstance(annotations, Path) else "annotations"
    tables = _tables(annotations, source, limits, with_masks)
    problems = Problems(source=source)
    images = _Images.read(tables["images"], problems)
    categories = _Categories.read(tables["categories"], problems)
    problems.raise_if_any()
    return _Objects(source, images, categories, problems).read(tables["annotations"], with_masks)


Keys = {
    "images": schema.IMAGE_KEYS,
    "categories": schema.CATEGORY_KEYS,
    "annotations": schema.ANNOTATION_KEYS,
}


def _tables(
    annotations: Path | dict[str, Any], source: str, limits: JsonLimits, with_masks: bool
) -> dict[str, Columns]:
    value: object = annotations
    if isinstance(annotations, Path):
        text = read_text(annotations, limits)
        shapes = (schema.Annotation,) if with_masks else (schema.BoxAnnotation, schema.Annotation)
        for shape in shapes:
            typed: Any = parse_as(text, schema.Document[shape])  # type: ignore[valid-type]
            if typed is not None:
                return {key: columns_of(getattr(typed, key), Keys[key]) for key in Keys}
        value = parse(text, name=source)
    if not isinstance(value, dict):
        kind = "a list (these look like results)" if isinstance(value, list) else "no object"
        raise DataError(
            f"{source}: is {kind}, expected COCO annotations {{images, annotations, categories}}"
        )
    problems, tables = Problems(source=source), {}
    for key in Keys:
        rows = value.get(key, UNSET)
        if not isinstance(rows, list | tuple):
            seen = "missing" if rows is UNSET else quoted(rows)
            raise DataError(
                f"{source}: {key} is {seen}, expected a list. Is this a COCO annotation file?"
            )
        for index, row in enumerate(rows):
            if not isinstance(row, dict):
                problems.add(f"{key}[{index}]", f"is {quoted(row)}, expected an object {{...}}")
        tables[key] = columns_of([row for row in rows if isinstance(row, dict)], Keys[key])
    problems.raise_if_any()
    return tables


@dataclass(frozen=True, slots=True, kw_only=True)
class _Images:
    ids: np.ndarray
    sizes: np.ndarray
    names: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, columns: Columns, problems: Problems) -> "_Images":
        reader = ColumnReader(table="images", where=lambda i: f"images[{i}]", problems=problems)
        ids = reader.whole("id", columns["id"])
        sides = [reader.whole(key, columns[key], 1, MAX_SIDE) for key in ("height", "width")]
        if not problems.count:
            reader.unique(ids, "image")
        order = np.argsort(ids, kind="stable")
        names = [columns["file_name"][index] for index in order.tolist()]
        return cls(
            ids=ids[order],
            sizes=np.stack(sides, axis=1)[order],
            names=tuple(name if isinstance(name, str) else "" for name in names),
            notes=reader.notes(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Categories:
    ids: np.ndarray
    names: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, columns: Columns, problems: Problems) -> "_Categories":
        reader = ColumnReader(
            table="categories", where=lambda i: f"categories[{i}]", problems=problems
        )
        ids = reader.whole("id", columns["id"])
        names = reader.names(columns["name"], ids)
        if not problems.count:
            reader.unique(ids, "category")
        order = np.argsort(ids, kind="stable")
        ordered = tuple(names[index] for index in order.tolist())
        return cls(ids=ids[order], names=ordered, notes=reader.notes())

    def unique_names(self, annotated: set[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of which none stands twice, and a note on those that did.

        The only annotated category of a name keeps it (Roboflow's root has the name of class 1).
        """
        shared = {name for name, count in Counter(self.names).items() if count > 1}
        users = Counter(self.names[place] for place in annotated)
        names = tuple(
            f"{name} (id {number})"
            if name in shared and (users[name] != 1 or place not in annotated)
            else name
            for place, (name, number) in enumerate(zip(self.names, self.ids.tolist(), strict=True))
        )
        notes = (
            f"Several categories are called {quoted(name)}: they are told apart by their ids."
            for name in sorted(shared)
        )
        return names, tuple(notes)


@dataclass(frozen=True, slots=True)
class _Objects:
    """Reads annotations[] once images and categories are known."""

    source: str
    images: _Images
    categories: _Categories
    problems: Problems

    def read(self, columns: Columns, with_masks: bool) -> GroundTruth:
        problems = self.problems
        ids_reader = ColumnReader(
            table="annotations", where=lambda i: f"annotations[{i}]", problems=problems
        )
        ids = ids_reader.whole("id", columns["id"])
        problems.raise_if_any()
        ids_reader.unique(ids, "annotation")
        named = ids.tolist()
        reader = replace(ids_reader, where=lambda i: f"annotation {named[i]}")
        image_index = self._known(reader, "image_id", columns, self.images.ids)
        category_index = self._known(reader, "category_id", columns, self.categories.ids)
        crowd = reader.flags("iscrowd", columns["iscrowd"])
        boxes, has_box = reader.boxes(columns["bbox"])
        areas, has_area = reader.numbers(
            "area", columns["area"], low=0, high=MAX_AREA, optional=True
        )
        problems.raise_if_any()
        sizes = self.images.sizes[image_index].reshape(-1, 2)
        segmentations: Sequence[object] = columns["segmentation"]
        if not with_masks:
            segmentations = [
                UNSET if box else s for s, box in zip(segmentations, has_box.tolist(), strict=True)
            ]
        masks = read_masks(segmentations, sizes, where=reader.where, problems=problems)
        for index in np.flatnonzero(~has_box & ~masks.present).tolist():
            problems.add(reader.where(index), "has neither bbox nor segmentation")
        problems.raise_if_any()
        if not has_box.all():
            boxes = np.where(has_box[:, None], boxes, masks.boxes_xywh())
        computed = np.where(masks.present, masks.areas, boxes[:, 2] * boxes[:, 3])
        names, name_notes = self.categories.unique_names(set(category_index.tolist()))
        notes = (
            *self.images.notes, *self.categories.notes, *name_notes, *reader.notes(),
            *_filled_in(columns["iscrowd"], has_area, has_box), *_odd(boxes, sizes, crowd),
        )  # fmt: skip
        order = np.argsort(ids, kind="stable")
        return GroundTruth(
            source=self.source,
            image_ids=self.images.ids,
            image_sizes=self.images.sizes,
            image_names=self.images.names,
            category_ids=self.categories.ids,
            category_names=names,
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
        self, reader: ColumnReader, key: str, columns: Columns, ids: np.ndarray
    ) -> Int64[np.ndarray, " n"]:
        before = self.problems.count
        values = reader.whole(key, columns[key])
        place, found = positions(values, ids)
        if self.problems.count == before:
            table = "images" if key == "image_id" else "categories"
            for index in np.flatnonzero(~found).tolist():
                self.problems.add(reader.where(index), f"{key} {values[index]} is not in {table}")
        return place


def _filled_in(crowd: Sequence[object], has_area: np.ndarray, has_box: np.ndarray) -> Iterator[str]:
    no_crowd = sum(value is UNSET for value in crowd)
    if no_crowd:
        yield f"{no_crowd} annotations have no iscrowd: taken as 0."
    if not has_area.all():
        missing = int((~has_area).sum())
        yield f"{missing} annotations have no area: computed from the mask, else the box."
    if not has_box.all():
        yield f"{int((~has_box).sum())} annotations have no bbox: computed from the mask."


def _odd(boxes: np.ndarray, sizes: np.ndarray, crowd: np.ndarray) -> Iterator[str]:
    if not len(boxes):
        yield "There are no annotations: nothing is to be found, so every AP is undefined."
    elif crowd.all():
        yield (
            "Every annotation is a crowd region (iscrowd 1): nothing is to be found, so every AP "
            "is undefined. CVAT's mask export does that: write iscrowd 0 for single objects."
        )
    outside = boxes[:, :2] + boxes[:, 2:] > sizes[:, ::-1] + 1.5
    outside = outside.any(axis=1) | (boxes[:, :2] < -1.5).any(axis=1)
    if outside.any():
        yield (
            f"{int(outside.sum())} annotation boxes leave their image: are height and width in "
            "images[] right, and boxes xywh?"
        )
