"""The images and classes of a COCO annotation file; the annotations themselves are not read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from boxdepth.depthgen.store import Category, DataError
from boxdepth.trainer.data.coco_fields import (
    FieldError,
    Findings,
    Reader,
    quoted,
    read_json_document,
)

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """What an annotation file is about."""

    image_ids: frozenset[int]
    categories: tuple[Category, ...]


def read_annotated(path: Path) -> Annotated:
    """The image ids and classes of an annotation file.

    Raises:
        DataError: no COCO document, or images or classes that can't be used.
    """
    document = read_json_document(path)
    findings = Findings()
    ids = _rows(document, "images", lambda reader: reader.whole("id"), findings)
    categories = _rows(document, "categories", _category, findings)
    findings.raise_for(path)
    if not ids or not categories:
        raise DataError(f"{path}: expected a COCO document with images, annotations and categories")
    return Annotated(image_ids=frozenset(ids), categories=tuple(categories))


def _category(reader: Reader) -> Category:
    number = reader.whole("id")
    return Category(id=number, name=reader.name("name", otherwise=f"category {number}"))


def _rows(
    document: Any, table: str, read: Callable[[Reader], Row], findings: Findings
) -> list[Row]:
    rows = document.get(table) if isinstance(document, dict) else None
    found = []
    for number, row in enumerate(rows if isinstance(rows, list) else []):
        where = f"{table} {number}"
        if not isinstance(row, dict):
            findings.problems.append(f"{where} is {quoted(row)}, expected an object")
            continue
        try:
            found.append(read(Reader(row=row, where=where, kind=table, findings=findings)))
        except FieldError as error:
            findings.problems.append(str(error))
    return found
