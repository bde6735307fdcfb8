"""Boxes whose masks are wanted: which fields are taken, which are mended, which are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from boxdepth.depthgen.store import DataError
from boxdepth.trainer.data.box_file import read_box_file


def document(**changes: Any) -> dict[str, Any]:
    """One image with one box; ``image__id=0`` changes a field, ``image__id=...`` removes it."""
    rows: dict[str, dict[str, Any]] = {
        "image": {"id": 7, "file_name": "a.jpg", "height": 48, "width": 64},
        "annotation": {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4]},
        "category": {"id": 2, "name": "cup"},
    }
    for path, value in changes.items():
        table, _, name = path.partition("__")
        if value is ...:
            del rows[table][name]
        else:
            rows[table][name] = value
    return {
        "images": [rows["image"]],
        "annotations": [rows["annotation"]],
        "categories": [rows["category"]],
    }


@pytest.fixture
def read(tmp_path: Path):
    def go(content: object):
        path = tmp_path / "boxes.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_box_file(path)

    return go


def test_a_document_is_read_as_it_stands(read) -> None:
    found = read(document())
    (image,) = found.images
    assert (image.id, image.file_name, image.size) == (7, "a.jpg", (48, 64))
    assert (image.boxes[0].id, image.boxes[0].category_id) == (1, 2)
    assert image.boxes[0].xyxy == (1.0, 2.0, 4.0, 6.0)
    assert found.category_names == {2: "cup"}
    assert found.notes == ()


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"image__id": 7.0}, None),
        ({"image__id": "7"}, "1 images: id written as text"),
        ({"annotation__image_id": "7.0"}, "1 annotations: image_id written as text"),
        ({"annotation__category_id": " 2 "}, "1 annotations: category_id written as text"),
        ({"annotation__id": "1e0"}, "1 annotations: id written as text"),
        ({"image__height": 48.0}, None),
        ({"image__width": "64"}, "1 images: width written as text"),
        ({"annotation__bbox": ["1", 2, "3.0", 4]}, "1 annotations: bbox written as text"),
        ({"annotation__area": None}, None),
        ({"annotation__area": 1e15}, None),
        ({"annotation__area": "12.5"}, "1 annotations: area written as text"),
        ({"annotation__iscrowd": True}, None),
        ({"annotation__iscrowd": 0.0}, None),
        ({"annotation__iscrowd": None}, "1 annotations: iscrowd written as null (taken as 0)"),
        ({"annotation__iscrowd": "0"}, "1 annotations: iscrowd written as text"),
        ({"annotation__iscrowd": "false"}, "1 annotations: iscrowd written as text"),
        ({"category__name": 5}, "1 categories: name written as a number"),
        ({"category__name": None}, "1 categories: name missing (named by their ids)"),
        ({"category__name": ""}, "1 categories: name missing (named by their ids)"),
        ({"annotation__segmentation": "not looked at"}, None),
        ({"annotation__extra": {"deep": [None]}}, None),
    ],
)
def test_what_exporters_write_is_taken_and_mending_is_said(read, changes, note) -> None:
    found = read(document(**changes))
    assert found.images[0].boxes[0].xyxy == (1.0, 2.0, 4.0, 6.0)
    assert found.notes == (() if note is None else (note,))


HUGE = "@10^400@"


@pytest.mark.parametrize(
    "changes",
    [
        {f"{table}__{name}": value}
        for table, name in (
            ("image", "id"),
            ("annotation", "id"),
            ("annotation", "image_id"),
            ("annotation", "category_id"),
            ("category", "id"),
        )
        for value in (..., None, True, 7.5, "seven", "0x7", "7_0", "", 2**53 + 1, 1e300, HUGE, [7])
    ]
    + [
        {f"image__{side}": value}
        for side in ("height", "width")
        for value in (..., None, 0, -4, 65_536, 1.5, True, "x", HUGE)
    ]
    + [
        {"annotation__bbox": value}
        for value in (
            ..., None, [], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, -3, 4], [1, 2, 3, float("nan")],
            [1, 2, float("inf"), 4], [1e10, 2, 3, 4], [1, 2, 3, None], [1, 2, 3, True], "1 2 3 4",
            {"x": 1}, [1, 2, 3, "four"], [1, 2, 3, HUGE],
        )
    ]
    + [{"annotation__area": value} for value in (1e300, -1, float("nan"), True, "big", [1], HUGE)]
    + [{"annotation__iscrowd": value} for value in (2, -1, 0.5, "yes", "", [0], float("nan"))]
    + [{"category__name": value} for value in (["cup"], {"en": "cup"}, True)]
    + [{"image__file_name": 5}, {"annotation__image_id": 8}, {"annotation__category_id": 3}],
)  # fmt: skip
def test_what_nobody_can_mean_is_refused_with_record_and_value(read, changes) -> None:
    text = json.dumps(document(**changes)).replace(f'"{HUGE}"', "1" + "0" * 400)
    with pytest.raises(DataError) as caught:
        read(text)
    ((path, _),) = changes.items()
    table, _, name = path.partition("__")
    assert f"{table} 0" in str(caught.value)
    assert name in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_all_faults_of_a_file_are_told_at_once(read) -> None:
    broken = document(annotation__bbox=[1], image__height="x")
    broken["annotations"].append({"id": 1, "image_id": 7, "category_id": 99, "bbox": [0, 0, 1, 1]})
    with pytest.raises(DataError) as caught:
        read(broken)
    for words in ("image 0 (id 7): height", "annotation 0 (id 1): ", "annotation 1 (id 1): "):
        assert words in str(caught.value)


@pytest.mark.parametrize("table", ["images", "annotations", "categories"])
def test_an_id_that_stands_twice_is_refused(read, table: str) -> None:
    twice = document()
    twice[table] *= 2
    with pytest.raises(DataError, match=rf"{table}: id \d stands there 2 times"):
        read(twice)


def test_two_categories_may_share_a_name(read) -> None:
    shared = document()
    shared["categories"].append({"id": 0, "name": "cup"})
    assert read(shared).category_names == {2: "cup", 0: "cup"}


@pytest.mark.parametrize(
    ("mask", "xyxy"),
    [
        ([[5, 6, 15, 6, 15, 26, 5, 26]], (5.0, 6.0, 15.0, 26.0)),
        ([[5, 6, 15, 6, 15, 26], ["1", 30, 2, 31, 2, 30]], (1.0, 6.0, 15.0, 31.0)),
        ({"size": [48, 64], "counts": [48 * 2 + 3, 4, 48 * 64 - 48 * 2 - 7]}, (2.0, 3.0, 3.0, 7.0)),
    ],
)
def test_a_missing_box_is_taken_from_the_mask(read, mask, xyxy) -> None:
    for none in (..., None, []):
        found = read(document(annotation__bbox=none, annotation__segmentation=mask))
        assert found.images[0].boxes[0].xyxy == xyxy


@pytest.mark.parametrize("mask", [[], [[]], {}, "", [[1, 2, 3]], {"size": [1], "counts": "x"}])
def test_neither_box_nor_mask_is_refused(read, mask) -> None:
    with pytest.raises(DataError, match="no bbox, and no mask to take it from"):
        read(document(annotation__bbox=None, annotation__segmentation=mask))


def test_a_list_of_boxes_may_name_its_files(read) -> None:
    rows = [
        {"image_id": 1, "file_name": "b/x.jpg", "bbox": [0, 0, 5, 5], "score": 0.5},
        {"image_id": 1, "file_name": "b/x.jpg", "bbox": [1, 0, 5, 5], "id": 4, "category_id": 2},
    ]
    (image,) = read(rows).images
    assert (image.file_name, image.size) == ("b/x.jpg", None)
    assert [(box.id, box.category_id) for box in image.boxes] == [(None, None), (4, 2)]
    rows[1]["file_name"] = "a/x.jpg"
    with pytest.raises(DataError, match=r'called "a/x.jpg" here and "b/x.jpg" before'):
        read(rows)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nest too deep"),
        ('{"annotations": ' + '{"a": ' * 100_000, "nest too deep"),
        ("", "not readable as JSON"),
        ("{", "not readable as JSON"),
        ("{}", "expected a list of boxes, or a COCO document"),
        ("7", "expected a list of boxes, or a COCO document"),
        ('{"annotations": 7}', "expected a list of boxes, or a COCO document"),
        ('{"annotations": [7]}', "annotation 0 is 7, expected an object"),
        ('{"annotations": [], "images": {"a": 1}}', "images is .*, expected a list"),
    ],
)
def test_what_is_no_boxes_file_is_said_to_be_none(read, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(text)


def test_a_nest_that_python_can_read_but_not_print_is_refused_too(read) -> None:
    deep = "[" * 900 + "]" * 900
    with pytest.raises(DataError, match="bbox is"):
        read(f'[{{"image_id": 1, "bbox": {deep}}}]')


def test_numbers_longer_than_python_reads_are_no_crash_where_nobody_looks(read) -> None:
    text = json.dumps(document(annotation__extra="@")).replace('"@"', "1" + "0" * 10_000)
    assert read(text).images[0].id == 7


def test_byte_order_marks_are_no_fault_and_other_encodings_are(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(document()), encoding="utf-8-sig")
    assert read_box_file(path).images[0].id == 7
    path.write_text(json.dumps(document()), encoding="utf-16")
    with pytest.raises(DataError, match="no UTF-8 text"):
        read_box_file(path)
    with pytest.raises(DataError, match="Is a directory"):
        read_box_file(tmp_path)
