"""Boxes in COCO format whose masks are wanted: read, checked, and matched with pictures."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from boxdepth.depthgen.store import DataError
from boxdepth.trainer.data.coco_fields import (
    MAX_AREA,
    MAX_SIDE,
    FieldError,
    Findings,
    Reader,
    quoted,
    read_json_document,
    real_number,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenBox:
    """A box whose mask is wanted."""

    id: int | None
    category_id: int | None
    xyxy: tuple[float, float, float, float]
    """In pixels of the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedImage:
    """An image that a boxes file speaks of."""

    id: int
    file_name: str | None
    """None: the file does not say."""
    size: tuple[int, int] | None
    """(height, width); None: the file does not say."""
    boxes: tuple[GivenBox, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxFile:
    """The images of a boxes file with their boxes, in its order."""

    path: Path
    images: tuple[ListedImage, ...]
    category_names: Mapping[int, str]
    notes: tuple[str, ...]
    """What was mended, in words."""


def read_box_file(path: Path) -> BoxFile:
    """A COCO document, or a list of boxes (``image_id``, ``bbox``; perhaps ``file_name``).

    Raises:
        DataError: no such document, or records that can't be used; names all of them.
    """
    document = read_json_document(path)
    findings = Findings()
    if isinstance(document, list):
        images, names = _from_list(document, findings), dict[int, str]()
    elif isinstance(document, dict) and isinstance(document.get("annotations"), list):
        images, names = _from_document(document, findings)
    else:
        raise DataError(f"{path}: expected a list of boxes, or a COCO document with annotations")
    findings.raise_for(path)
    return BoxFile(path=path, images=images, category_names=names, notes=findings.notes())


def _from_document(
    document: Mapping[str, Any], findings: Findings
) -> tuple[tuple[ListedImage, ...], dict[int, str]]:
    listed: dict[int, tuple[str | None, tuple[int, int]]] = {}
    names: dict[int, str] = {}

    def image(reader: Reader) -> int:
        number = reader.whole("id")
        listed.setdefault(
            number,
            (
                reader.text("file_name"),
                (
                    reader.whole("height", least=1, most=MAX_SIDE),
                    reader.whole("width", least=1, most=MAX_SIDE),
                ),
            ),
        )
        return number

    def category(reader: Reader) -> int:
        number = reader.whole("id")
        names.setdefault(number, reader.name("name", otherwise=f"category {number}"))
        return number

    boxes: dict[int, list[GivenBox]] = {}

    def annotation(reader: Reader) -> int:
        number, image_id = reader.whole("id"), reader.whole("image_id")
        category_id = reader.whole("category_id")
        _check_others(reader)
        if "images" in document and image_id not in listed:
            raise FieldError(f"{reader.where}: image_id is {image_id}, which no image has")
        if "categories" in document and category_id not in names:
            raise FieldError(f"{reader.where}: category_id is {category_id}, which no category has")
        box = GivenBox(id=number, category_id=category_id, xyxy=_xyxy(reader))
        boxes.setdefault(image_id, []).append(box)
        return number

    _read_table(document, "images", image, findings)
    _read_table(document, "categories", category, findings)
    _read_table(document, "annotations", annotation, findings)
    return (
        tuple(
            ListedImage(
                id=number,
                file_name=listed[number][0] if number in listed else None,
                size=listed[number][1] if number in listed else None,
                boxes=tuple(boxes.get(number, ())),
            )
            for number in {**listed, **boxes}
        ),
        names,
    )


def _from_list(rows: Sequence[Any], findings: Findings) -> tuple[ListedImage, ...]:
    boxes: dict[int, list[GivenBox]] = {}
    files: dict[int, str | None] = {}

    def box(reader: Reader) -> None:
        image_id, file_name = reader.whole("image_id"), reader.text("file_name")
        _check_others(reader)
        if files.setdefault(image_id, file_name) != file_name:
            raise FieldError(
                f"{reader.where}: image {image_id} is called {quoted(file_name)} here and "
                f"{quoted(files[image_id])} before"
            )
        one = GivenBox(
            id=reader.whole("id") if "id" in reader.row else None,
            category_id=reader.whole("category_id") if "category_id" in reader.row else None,
            xyxy=_xyxy(reader),
        )
        boxes.setdefault(image_id, []).append(one)

    _read_rows(rows, "box", "boxes", box, findings)
    return tuple(
        ListedImage(id=number, file_name=files[number], size=None, boxes=tuple(found))
        for number, found in boxes.items()
    )


def _read_table(
    document: Mapping[str, Any],
    table: str,
    read: Callable[[Reader], int],
    findings: Findings,
) -> None:
    rows = document.get(table, [])
    if not isinstance(rows, list):
        findings.problems.append(f"{table} is {quoted(rows)}, expected a list")
        return
    one = {"images": "image", "categories": "category", "annotations": "annotation"}[table]
    ids = _read_rows(rows, one, table, read, findings)
    findings.problems += [
        f"{table}: id {number} stands there {count} times"
        for number, count in Counter(ids).items()
        if count > 1
    ]


def _read_rows(
    rows: Sequence[Any],
    one: str,
    kind: str,
    read: Callable[[Reader], int | None],
    findings: Findings,
) -> list[int]:
    ids = []
    for number, row in enumerate(rows):
        where = f"{one} {number}"
        if not isinstance(row, dict):
            findings.problems.append(f"{where} is {quoted(row)}, expected an object")
            continue
        if "id" in row:
            where += f" (id {quoted(row['id'])})"
        try:
            found = read(Reader(row=row, where=where, kind=kind, findings=findings))
        except FieldError as error:
            findings.problems.append(str(error))
        else:
            ids += [] if found is None else [found]
    return ids


def _check_others(reader: Reader) -> None:
    """Fields that make no difference to a mask, and that the other commands would refuse."""
    reader.number("area", least=0, most=MAX_AREA)
    reader.flag("iscrowd")


def _xyxy(reader: Reader) -> tuple[float, float, float, float]:
    box = reader.xywh("bbox") or _around_mask(reader.row.get("segmentation"))
    if box is None:
        raise FieldError(
            f"{reader.where}: no bbox, and no mask to take it from; expected "
            "bbox: [x, y, width, height] in pixels"
        )
    x, y, width, height = box
    return x, y, x + width, y + height


def _around_mask(mask: Any) -> tuple[float, float, float, float] | None:
    """The box of a mask that stands where no box does: xywh, or None where there is no mask."""
    if isinstance(mask, dict) and mask.get("counts"):
        try:
            height, width = (int(side) for side in mask["size"])
            rle = (
                coco_mask.frPyObjects(mask, height, width)
                if isinstance(mask["counts"], list)
                else mask
            )
            x, y, w, h = (float(side) for side in coco_mask.toBbox(rle))
        except Exception:  # pycocotools raises whatever it likes for what is no run length
            return None
        return (x, y, w, h) if w > 0 and h > 0 else None
    if not isinstance(mask, list):
        return None
    points = [real_number(side) for part in mask if isinstance(part, list) for side in part]
    if len(points) < 6 or None in points or any(len(part) % 2 for part in mask):
        return None
    sides = [side for side in points if side is not None]
    left, right = min(sides[::2]), max(sides[::2])
    top, bottom = min(sides[1::2]), max(sides[1::2])
    return left, top, right - left, bottom - top
