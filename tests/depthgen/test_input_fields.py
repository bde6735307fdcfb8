"""What fields of a COCO file may carry: the table of docs/input-fields.md, line by line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxdepth.depthgen.datasets.coco import read_custom
from boxdepth.depthgen.datasets.coco_file import read_coco_file
from boxdepth.depthgen.datasets.records import Dataset, OnBad
from boxdepth.depthgen.store import DataError

Document = dict[str, Any]
SQUARE = [[8, 8, 28, 8, 28, 28, 8, 28]]
BOX = [8.0, 8.0, 20.0, 20.0]
FULL = 1 << 53
HUGE = 10**400


def _document() -> Document:
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 48, "width": 64}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 3, "bbox": list(BOX)}],
        "categories": [{"id": 3, "name": "cat"}],
    }


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Dataset]:
    def read_it(document: Document, **options: Any) -> Dataset:
        file = tmp_path / "a.json"
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        settings = {"name": "custom", "split": "train", "masks": False, "on_bad": OnBad.error}
        return read_coco_file(tmp_path, file, **(settings | options))

    return read_it


def _with(table: str, **values: Any) -> Document:
    document = _document()
    document[table][0].update(values)
    for name, value in values.items():
        if value is ...:
            del document[table][0][name]
    return document


@pytest.mark.parametrize("value", [7, 7.0, "7", "7.0", " 7 ", "+7", "70e-1"])
def test_ids_as_number_float_or_text(read: Callable[..., Dataset], value: object) -> None:
    document = _with("annotations", id=value, image_id=value, category_id=value)
    document["images"][0]["id"] = document["categories"][0]["id"] = value
    data = read(document)
    assert (data.records[0].id, data.categories[0].id) == (7, 7)
    assert data.records[0].box_ids.tolist() == [7]
    mended = {
        "1 category: id written as text",
        "1 image: id written as text",
        "1 annotation: id written as text",
        "1 annotation: image_id written as text",
        "1 annotation: category_id written as text",
    }
    assert set(data.report.notes) == (mended if isinstance(value, str) else set())


@pytest.mark.parametrize("value", [0, -3, FULL, -FULL, str(FULL), float(FULL)])
def test_ids_at_the_ends_of_their_range(read: Callable[..., Dataset], value: Any) -> None:
    assert read(_with("annotations", id=value)).records[0].box_ids.tolist() == [int(value)]


@pytest.mark.parametrize(
    "value",
    [..., None, True, False, 1.5, "1.5", float("nan"), float("inf"), "seven", "", "0x7", "1_0",
     "٧", [1], {}, FULL + 1, -FULL - 1, str(FULL + 1), 2**64 + 1, HUGE, "1e400",
     "1e99999999999999999999", 1e300],
)  # fmt: skip
def test_other_ids_are_refused(read: Callable[..., Dataset], value: object) -> None:
    with pytest.raises(DataError, match=r"annotations\[0\].*: id is .*(whole number|2\^53)"):
        read(_with("annotations", id=value))
    with pytest.raises(DataError, match=r"images\[0\]"):
        read(_with("images", id=value))


def test_a_huge_id_is_told_its_range(read: Callable[..., Dataset]) -> None:
    with pytest.raises(DataError, match=r"18446744073709551617, ids from -2\^53 to 2\^53"):
        read(_with("annotations", id=2**64 + 1))


@pytest.mark.parametrize(("value", "pixels"), [(48, 48), (48.0, 48), ("48", 48), ("48.0", 48)])
def test_sides(read: Callable[..., Dataset], value: object, pixels: int) -> None:
    assert read(_with("images", height=value)).records[0].height == pixels


@pytest.mark.parametrize(
    "value", [..., None, 0, -4, 0.5, 65_536, True, "tall", float("nan"), float("inf"), HUGE]
)
def test_other_sides_are_refused(read: Callable[..., Dataset], value: object) -> None:
    with pytest.raises(DataError, match=r"images\[0\] \(id 1\): width is .*from 1 to 65535"):
        read(_with("images", width=value))


def test_numbers_of_a_box_as_text_are_counted_once_a_record(read: Callable[..., Dataset]) -> None:
    data = read(_with("annotations", bbox=["8", "8.0", " 20", "2e1"]))
    np.testing.assert_array_equal(data.records[0].boxes_xyxy, [[8, 8, 28, 28]])
    assert data.report.notes == ("1 annotation: bbox written as text",)


@pytest.mark.parametrize(
    "value",
    [[8, 8, 20], [8, 8, 20, 20, 1], "8,8,20,20", [8, 8, -1, 20], [8, 8, 20, -1], [8, 8, 2e9, 20],
     [float("nan"), 8, 20, 20], [8, float("inf"), 20, 20], [8, 8, 20, HUGE], [8, 8, 20, True],
     [8, 8, 20, None], {}, 0],
)  # fmt: skip
def test_other_boxes_are_refused(read: Callable[..., Dataset], value: object) -> None:
    with pytest.raises(DataError, match=r"annotations\[0\] \(id 5\): bbox is .* expected"):
        read(_with("annotations", bbox=value))


@pytest.mark.parametrize("value", [..., None, []])
@pytest.mark.parametrize("masks", [False, True])
def test_a_box_is_taken_from_the_mask_where_there_is_no_other(
    read: Callable[..., Dataset], value: object, masks: bool
) -> None:
    data = read(_with("annotations", bbox=value, segmentation=SQUARE), masks=masks)
    np.testing.assert_array_equal(data.records[0].boxes_xyxy, [[8, 8, 28, 28]])
    assert data.report.notes == ("1 annotation: without a box of its own, taken from its mask",)
    assert (data.records[0].masks is not None) == masks
    for nothing in (None, [], [[]], {}, "", {"size": [48, 64], "counts": [48 * 64]}):
        with pytest.raises(DataError, match="neither a bbox nor a mask"):
            read(_with("annotations", bbox=value, segmentation=nothing), masks=masks)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(..., 400), (None, 400), (0, 0), (12.5, 12.5), ("12.5", 12.5), (1e15, 1e15)],
)
def test_areas(read: Callable[..., Dataset], value: object, expected: float) -> None:
    data = read(_with("annotations", area=value))
    assert data.records[0].areas.tolist() == [np.float32(expected)]


def test_a_missing_area_is_that_of_the_mask_where_masks_are_read(
    read: Callable[..., Dataset],
) -> None:
    document = _with("annotations", segmentation=[[8, 8, 18, 8, 18, 28, 8, 28]])
    assert read(document, masks=True).records[0].areas.tolist() == [200]


@pytest.mark.parametrize(
    "value", [1e300, 1.1e15, -1, float("nan"), float("inf"), HUGE, "1e300", "big", True, [4]]
)
def test_other_areas_are_refused(read: Callable[..., Dataset], value: object) -> None:
    with pytest.raises(DataError, match=r"area is .*, a number from 0 to 1e15"):
        read(_with("annotations", area=value))


@pytest.mark.parametrize(
    ("value", "crowd", "note"),
    [(..., False, None), (0, False, None), (1, True, None), (0.0, False, None), (1.0, True, None),
     (False, False, None), (True, True, None), (None, False, "iscrowd null, taken as 0"),
     *((text, crowd, "iscrowd written as text") for text, crowd in
       (("0", False), ("1", True), ("0.0", False), ("1.0", True), ("false", False),
        ("true", True)))],
)  # fmt: skip
def test_crowds(read: Callable[..., Dataset], value: object, crowd: bool, note: str | None) -> None:
    data = read(_with("annotations", iscrowd=value))
    assert data.records[0].crowd.tolist() == [crowd]
    assert data.report.notes == ((f"1 annotation: {note}",) if note else ())


@pytest.mark.parametrize("value", ["", "no", "2", 2, -1, 0.5, float("nan"), [], {}, HUGE])
def test_other_crowd_flags_are_refused(read: Callable[..., Dataset], value: object) -> None:
    with pytest.raises(DataError, match=r"iscrowd is .*, 0 or 1 is expected"):
        read(_with("annotations", iscrowd=value))


@pytest.mark.parametrize(
    "value", [..., None, [], [[]], {}, "", {"size": [48, 64], "counts": [48 * 64]}]
)
def test_no_mask_in_every_spelling(read: Callable[..., Dataset], value: object) -> None:
    data = read(_with("annotations", segmentation=value), masks=True)
    assert data.records[0].masks == (None,)


@pytest.mark.parametrize(
    "value",
    [[[1, 2, 3]], [[]] * 2, 7, "text", [["1", "2", "3", "4", "5", "6"]], {"size": [9, 9]},
     {"size": [48, 64], "counts": "####"}, [[0, 0, 1e9, 0, 5, 5]], [[0, 0, HUGE, 0, 5, 5]]],
)  # fmt: skip
def test_a_mask_that_cannot_be_read_costs_no_box(
    read: Callable[..., Dataset], value: object
) -> None:
    document = _with("annotations", segmentation=value)
    assert read(document).report.notes == ()  # readers of boxes alone do not look at it
    with pytest.raises(DataError, match=r"annotations\[0\] \(id 5\): segmentation"):
        read(document, masks=True)
    data = read(document, masks=True, on_bad=OnBad.skip)
    assert data.records[0].masks == (None,)
    np.testing.assert_array_equal(data.records[0].boxes_xyxy, [[8, 8, 28, 28]])
    assert data.report.rejected == ()
    assert data.report.notes == (
        "1 annotation: mask cannot be read and is left out, the box stays",
    )


@pytest.mark.parametrize(
    ("value", "name"),
    [("cat", "cat"), ("[red]x[/]", "[red]x[/]"), (..., "category 3"), (None, "category 3"),
     ("", "category 3"), (5, "5"), (1.5, "1.5")],
)  # fmt: skip
def test_class_names(read: Callable[..., Dataset], value: object, name: str) -> None:
    data = read(_with("categories", name=value))
    assert [category.name for category in data.categories] == [name]
    assert len(data.report.notes) == (0 if value == name else 1)


@pytest.mark.parametrize("value", [True, [], {}, ["cat"], float("nan"), HUGE])
def test_other_class_names_are_refused(read: Callable[..., Dataset], value: object) -> None:
    with pytest.raises(DataError, match=r"categories\[0\] \(id 3\): name is .*, a text"):
        read(_with("categories", name=value))


def test_roboflows_root_class_and_classes_of_one_name(read: Callable[..., Dataset]) -> None:
    document = _document()
    document["categories"].insert(0, {"id": 0, "name": "cat", "supercategory": "none"})
    data = read(document)
    assert [category.id for category in data.categories] == [0, 3]
    assert data.records[0].labels.tolist() == [1]
    assert data.report.notes == ()
    document["annotations"].append({"id": 6, "image_id": 1, "category_id": 0, "bbox": [1, 1, 9, 9]})
    assert read(document).report.notes == (
        "2 classes: of one name ('cat'), kept apart by their ids",
    )


def test_numbers_of_thousands_of_digits_are_infinite_and_harmless_where_not_read(
    read: Callable[..., Dataset],
) -> None:
    text = json.dumps(_document())
    digits = "1" + "0" * 5000
    assert len(read(text[:-1] + f', "x": {digits}}}').records) == 1
    with pytest.raises(DataError, match="id is inf, a whole number"):
        read(text.replace('"id": 5', f'"id": {digits}'))


def test_what_is_refused_is_not_counted_as_mended(read: Callable[..., Dataset]) -> None:
    document = _with("annotations", id="5", category_id=99)
    data = read(document, on_bad=OnBad.skip)
    assert len(data.report.rejected) == 1
    assert data.report.notes == ()


@pytest.mark.parametrize("annotations", [..., [], None])
@pytest.mark.parametrize("categories", [..., []])
def test_a_file_without_annotations_is_a_list_of_images_and_says_so(
    read: Callable[..., Dataset], annotations: object, categories: object
) -> None:
    document = _document() | {"annotations": annotations, "categories": categories}
    data = read({key: value for key, value in document.items() if value is not ...})
    assert len(data.records) == data.report.images_without_boxes == 1
    assert data.report.notes == ("1 file: without annotations: its images get depth and no boxes",)


def test_annotations_without_categories_are_refused(read: Callable[..., Dataset]) -> None:
    document = _document()
    del document["categories"]
    with pytest.raises(DataError, match="'categories' is NoneType, a list is expected"):
        read(document)


def test_every_fault_is_told_with_its_record(tmp_path: Path) -> None:
    document = _document()
    document["annotations"] = [
        {"id": "x", "image_id": 1, "category_id": 3, "bbox": BOX},
        {"id": 2, "image_id": 1, "category_id": 3, "bbox": BOX, "area": 1e300},
        "nonsense",
    ]
    (tmp_path / "b.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"b\.json: 3 bad records") as error:
        read_custom(None, images=tmp_path, annotations=tmp_path / "b.json", split="train")
    for text in ("annotations[0] (id 'x')", "annotations[1] (id 2)", "annotations[2]: an object"):
        assert text in str(error.value)
