"""One COCO-format annotation file, read as ``docs/input-fields.md`` has it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from boxdepth.depthgen.datasets import fields
from boxdepth.depthgen.datasets.fields import Notes
from boxdepth.depthgen.datasets.masks import mask_box, run_length_mask
from boxdepth.depthgen.datasets.places import Images, open_images
from boxdepth.depthgen.datasets.records import (
    DRAWN,
    Annotation,
    Dataset,
    ImageFile,
    OnBad,
    RecordBuilder,
    load_json,
    settle,
)
from boxdepth.depthgen.store.errors import DataError
from boxdepth.depthgen.store.schema import Category

_TABLES: Final = {"categories": "category", "images": "image", "annotations": "annotation"}


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What one pass over an annotation file gathers."""

    folder: Images
    masks: bool
    keep_boxes_of_bad_masks: bool
    notes: Notes = field(default_factory=Notes)
    categories: dict[int, str] = field(default_factory=dict)
    images: dict[int, ImageFile] = field(default_factory=dict)
    labels: dict[int, int] = field(default_factory=dict)
    boxes: dict[int, list[Annotation]] = field(default_factory=lambda: defaultdict(list))
    seen: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def read_coco_file(
    image_root: Path, annotations: Path, *, name: str, split: str, masks: bool, on_bad: OnBad
) -> Dataset:
    """Read one COCO-format annotation file; all its problems are reported together.

    Boxes alone suffice: ``segmentation`` is not looked at without ``masks``, unless a record has no
    box of its own. Boxes are cut to their image, those without area are dropped; both are counted.
    Crowds are kept with their flag. A file without annotations is a list of images (COCO's own
    ``image_info_*.json``).

    Args:
        on_bad: ``error`` raises what is refused; ``skip`` leaves refused records out and counts
            them. A mask that cannot be read costs its mask only, not the box.

    Raises:
        DataError: Records that the table of input fields refuses.
    """
    document = load_json(annotations)
    if not isinstance(document, dict):
        raise DataError(
            f"{annotations}: an object with images, annotations and categories expected"
        )
    reading = _Reading(
        folder=open_images(image_root), masks=masks, keep_boxes_of_bad_masks=on_bad is OnBad.skip
    )
    _read_table(reading, document, "categories", _read_category, annotations)
    ordered = sorted(reading.categories.items())
    reading.labels.update({number: label for label, (number, _) in enumerate(ordered)})
    _read_table(reading, document, "images", _read_image, annotations)
    _read_table(reading, document, "annotations", _read_annotation, annotations)
    rejected = settle(reading.problems, source=annotations, on_bad=on_bad)
    builder = RecordBuilder(masks=masks)
    records = tuple(
        builder.build(reading.images[number], reading.boxes.get(number, ()))
        for number in sorted(reading.images)
    )
    _note_what_is_odd(reading, document)
    return Dataset(
        name=name,
        split=split,
        categories=tuple(Category(id=number, name=text) for number, text in ordered),
        records=records,
        report=builder.report(records, rejected=rejected, notes=reading.notes.lines()),
        drawn=_is_drawn(document),
    )


def _is_drawn(document: Mapping[str, Any]) -> bool:
    info = document.get("info")
    return isinstance(info, dict) and info.get("description") == DRAWN


def _read_table(
    reading: _Reading,
    document: Mapping[str, Any],
    table: str,
    read: Callable[[_Reading, dict[str, Any]], None],
    path: Path,
) -> None:
    kind = _TABLES[table]
    for index, item in enumerate(_list(document, table, path)):
        kept = False
        try:
            if not isinstance(item, dict):
                raise ValueError("an object is expected")
            read(reading, item)
            kept = True
        except ValueError as error:
            number = f" (id {fields.shown(item.get('id'))})" if isinstance(item, dict) else ""
            reading.problems.append(f"{table}[{index}]{number}: {error}")
        finally:
            reading.notes.settle(kind, kept=kept)


def _list(document: Mapping[str, Any], table: str, path: Path) -> list[Any]:
    """A table of the file; only what has no annotations may lack categories, too."""
    value = document.get(table)
    if value is None and table != "images" and not document.get("annotations"):
        return []
    if not isinstance(value, list):
        raise DataError(f"{path}: {table!r} is {type(value).__name__}, a list is expected")
    return value


def _read_category(reading: _Reading, item: dict[str, Any]) -> None:
    number = fields.whole_id(item, "id", reading.notes)
    name = fields.category_name(item, number, reading.notes)
    if number in reading.categories:
        raise ValueError("this category id occurs twice")
    reading.categories[number] = name


def _read_image(reading: _Reading, item: dict[str, Any]) -> None:
    number = fields.whole_id(item, "id", reading.notes)
    height, width = (fields.side(item, key, reading.notes) for key in ("height", "width"))
    if number in reading.images:
        raise ValueError("this image id occurs twice")
    path, name = reading.folder.locate(item.get("file_name"))
    reading.images[number] = ImageFile(id=number, name=name, path=path, height=height, width=width)


def _read_annotation(reading: _Reading, item: dict[str, Any]) -> None:
    notes = reading.notes
    number = fields.whole_id(item, "id", notes)
    if number in reading.seen:
        raise ValueError("this annotation id occurs twice")
    reading.seen.add(number)
    image = fields.whole_id(item, "image_id", notes)
    category = fields.whole_id(item, "category_id", notes)
    if image not in reading.images:
        raise ValueError(f"image_id {image} is not among the images")
    if category not in reading.labels:
        raise ValueError(f"category_id {category} is not among the categories")
    box, area = fields.bbox(item, notes), fields.area(item, notes)
    crowd = fields.crowd(item, notes)
    mask = None
    if reading.masks or box is None:
        mask = _mask(reading, item, reading.images[image], needed=box is None)
    if box is None:
        box = mask_box(mask) if mask else [0.0, 0.0, 0.0, 0.0]
        notes.record("without a box of its own, taken from its mask")
    x, y, width, height = box
    reading.boxes[image].append(
        Annotation(
            xyxy=(x, y, x + width, y + height),
            label=reading.labels[category],
            id=number,
            crowd=crowd,
            area=area,
            mask=mask if reading.masks else None,
        )
    )


def _mask(
    reading: _Reading, item: Mapping[str, Any], image: ImageFile, *, needed: bool
) -> dict[str, Any] | None:
    try:
        mask = run_length_mask(item.get("segmentation"), height=image.height, width=image.width)
    except ValueError:
        if needed or not reading.keep_boxes_of_bad_masks:
            raise
        reading.notes.record("mask cannot be read and is left out, the box stays")
        return None
    if needed and mask is None:
        raise ValueError(
            "neither a bbox nor a mask to take it from; [x, y, width, height] expected"
        )
    return mask


def _note_what_is_odd(reading: _Reading, document: Mapping[str, Any]) -> None:
    if not document.get("annotations"):
        reading.notes.add("file", "without annotations: its images get depth and no boxes")
    reading.notes.add(
        "image", "a link that leads out of the image folder", reading.folder.links_followed
    )
    labels_used = {item.label for boxes in reading.boxes.values() for item in boxes}
    used = [reading.categories[number] for number, label in reading.labels.items()
            if label in labels_used]  # fmt: skip
    for name, count in Counter(used).items():
        if count > 1:
            reading.notes.add("class", f"of one name ({name!r}), kept apart by their ids", count)
