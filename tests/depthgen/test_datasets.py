"""Annotations: the layouts people have, the dirt they hold, and what is refused."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from boxdepth.depthgen.datasets.cityscapes import THING_CLASSES, draw_instance_ids, read_cityscapes
from boxdepth.depthgen.datasets.coco import read_coco, read_custom
from boxdepth.depthgen.datasets.masks import decode_counts, encode_mask, run_length_mask
from boxdepth.depthgen.datasets.paths import ImageFolder
from boxdepth.depthgen.datasets.records import OnBad, load_json
from boxdepth.depthgen.store import ConfigError, DataError

from .conftest import encode, photo

Build = Callable[..., Path]
Document = dict[str, Any]


def test_coco_records_hold_what_the_file_says(coco_root: Build) -> None:
    data = read_coco(coco_root(6), split="train2017")
    assert [category.name for category in data.categories] == ["cat", "toaster"]
    assert [record.id for record in data.records] == [1, 2, 3, 4, 5, 6]
    third = data.records[2]
    assert (third.height, third.width, third.name) == (64, 48, "000000000002.jpg")
    np.testing.assert_array_equal(third.boxes_xyxy, [[4, 6, 24, 31.5], [5, 6, 25, 31.5]])
    np.testing.assert_array_equal(third.labels, [0, 1])
    np.testing.assert_array_equal(third.box_ids, [21, 22])
    np.testing.assert_array_equal(third.areas, [510, 510])
    assert data.report.images_without_boxes == 2


@pytest.mark.parametrize("variable", ["BOXDEPTH_DATA", "DETECTRON2_DATASETS"])
def test_the_root_is_found(
    coco_root: Build, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = coco_root(2)
    for name in ("BOXDEPTH_DATA", "DETECTRON2_DATASETS"):
        monkeypatch.delenv(name, raising=False)
    assert len(read_coco(root / "coco", split="train2017").records) == 2
    monkeypatch.setenv(variable, str(root))
    assert len(read_coco(None, split="train2017").records) == 2
    with pytest.raises(ConfigError, match="no COCO split 'val2017'"):
        read_coco(None, split="val2017")


@pytest.mark.parametrize("spelling", ["missing", None, [], {}])
def test_boxes_alone_suffice_in_every_spelling(coco_root: Build, spelling: object) -> None:
    def change(document: Document) -> None:
        for item in document["annotations"]:
            if spelling != "missing":
                item["segmentation"] = spelling

    data = read_coco(coco_root(3, change=change), split="train2017", masks=True)
    assert data.records[2].masks == (None, None)
    assert len(data.records[2].labels) == 2


def test_crowds_are_kept_and_bad_boxes_cut_or_dropped_and_counted(coco_root: Build) -> None:
    def change(document: Document) -> None:
        boxes = [[-9, 10, 20, 20], [10, 10, 0, 5], [90, 90, 5, 5], [4, 6, 20, 0], [40, 40, 9, 26]]
        document["annotations"] = [
            {"id": k, "image_id": 1, "category_id": 3, "bbox": box, "iscrowd": int(k == 4)}
            for k, box in enumerate(boxes)
        ]

    data = read_coco(coco_root(1, change=change), split="train2017")
    (only,) = data.records
    np.testing.assert_array_equal(only.boxes_xyxy, [[0, 10, 11, 30], [40, 40, 48, 64]])
    assert only.crowd.tolist() == [False, True]
    report = data.report
    assert (report.boxes_clipped, report.boxes_dropped, report.crowds) == (2, 3, 1)


_BAD: list[tuple[str, Any, str]] = [
    ("annotations", {"image_id": 99}, "image_id 99 is not among the images"),
    ("annotations", {"category_id": 1}, "category_id 1 is not among the categories"),
    ("annotations", {"id": 11}, "this annotation id occurs twice"),
    ("annotations", {"bbox": None}, "neither a bbox nor a mask"),
    ("images", {"id": 1}, "this image id occurs twice"),
    ("images", {"file_name": "../secret.jpg"}, "leads out of the image folder"),
    ("images", {"file_name": "/etc/hostname"}, "leads out of the image folder"),
    ("images", {"file_name": "."}, "leads out of the image folder"),
    ("images", {"file_name": "http://x/y.jpg"}, "not a plain relative path"),
    ("images", {"file_name": "a\0.jpg"}, "not a plain relative path"),
    ("images", {"file_name": "a\n.jpg"}, "not a plain relative path"),
    ("images", {"file_name": "a\x85.jpg"}, "not a plain relative path"),
    ("images", {"file_name": "\ud800.jpg"}, "not a plain relative path"),
    ("images", {"file_name": None}, "is not a text"),
    ("categories", {"id": 70}, "this category id occurs twice"),
]


@pytest.mark.parametrize(("key", "fault", "message"), _BAD)
def test_a_bad_record_is_named_and_can_be_left_out(
    coco_root: Build, key: str, fault: Document, message: str
) -> None:
    root = coco_root(3, change=lambda document: document[key][-1].update(fault))
    with pytest.raises(DataError, match=message) as error:
        read_coco(root, split="train2017")
    assert "instances_train2017.json" in str(error.value)
    assert f"{key}[" in str(error.value)
    data = read_coco(root, split="train2017", on_bad=OnBad.skip)
    assert data.report.rejected
    assert len(data.records) in (2, 3)


def test_all_problems_of_a_file_are_told_at_once(coco_root: Build) -> None:
    def change(document: Document) -> None:
        for item in document["annotations"]:
            item["category_id"] = 5
        document["images"][0]["file_name"] = "/a.jpg"

    with pytest.raises(DataError, match="10 bad records") as error:
        read_coco(coco_root(9, change=change), split="train2017")
    assert str(error.value).count("\n") == 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = (tmp_path / "images").resolve()
    root.mkdir()
    return root


def test_links_to_images_elsewhere_are_followed_and_counted(folder: Path, tmp_path: Path) -> None:
    """FiftyOne's exports, DVC and hub caches are folders of such links."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0a1b").write_bytes(encode(photo(0)))
    (folder / "a.png").symlink_to(tmp_path / "blobs" / "0a1b")
    (folder / "b.png").symlink_to("../blobs/0a1b")
    (folder / "part").symlink_to(tmp_path / "blobs")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")  # told later, as a missing file
    images = ImageFolder(folder)
    for name in ("a.png", "b.png", "part/0a1b", "gone.png"):
        assert images.locate(name) == (folder / name, name)
    assert images.links_followed == 3


def test_links_to_anything_else_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("password")
    (folder / "a.jpg").symlink_to(tmp_path / "secret.txt")
    (folder / "b.jpg").symlink_to("/dev/zero")
    (folder / "c.jpg").symlink_to(tmp_path)
    (folder / "d").symlink_to(tmp_path)
    for name in ("a.jpg", "b.jpg", "c.jpg", "d/secret.txt"):
        with pytest.raises(ValueError, match="is a link that leads out"):
            ImageFolder(folder).locate(name)


def test_links_inside_the_folder_are_plain_files(folder: Path) -> None:
    (folder / "text").write_text("not looked at here")
    (folder / "a.jpg").symlink_to("text")
    images = ImageFolder(folder)
    assert images.locate("a.jpg")[1] == "a.jpg"
    assert images.links_followed == 0


@pytest.mark.parametrize(
    "name",
    ["Screenshot at 4.42.48\u202fPM.png", "v\u00a013.05.png", "\u5199\u3000\u771f.png",
     "a\u200d\U0001f469\u200db.png", "x [1]\\.png", " .png", "a\u202eb.png"],
)  # fmt: skip
def test_names_take_what_a_file_system_takes(folder: Path, name: str) -> None:
    (folder / name).write_bytes(encode(photo(0)))
    path, stored = ImageFolder(folder).locate(name)
    assert path.is_file()
    assert stored == name


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_composed_and_decomposed_names_are_one(folder: Path, on_disk: Any) -> None:
    (folder / unicodedata.normalize(on_disk, "Ö")).mkdir()
    file = folder / unicodedata.normalize(on_disk, "Ö/für é.png")
    file.write_bytes(b"")
    for written in ("NFC", "NFD"):
        name = unicodedata.normalize(written, "Ö/für é.png")  # type: ignore[arg-type]
        assert ImageFolder(folder).locate(name) == (file, name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ('{"images": [', "not JSON"),
        ("[" * 200_000, "nested too deeply"),
        ('{"images": [], "images": []}', "key 'images' occurs twice"),
        ("[]", "an object with images"),
        ('{"categories": 3}', "'categories' is int, a list is expected"),
    ],
)
def test_files_that_are_no_annotations_are_refused(
    coco_root: Build, text: str, message: str
) -> None:
    root = coco_root(1)
    (root / "coco" / "annotations" / "instances_train2017.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_coco(root, split="train2017")


def test_a_huge_file_is_refused_by_its_size(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with file.open("wb") as stream:
        stream.truncate((2 << 30) + 1)
    with pytest.raises(DataError, match="the limit is"):
        load_json(file)


def test_custom_data_are_read_in_three_ways(coco_root: Build, tmp_path: Path) -> None:
    root = coco_root(3) / "coco"
    file = root / "annotations" / "instances_train2017.json"
    images = root / "train2017"
    given_ = {"split": "train", "data_root": None}
    assert len(read_custom(images=images, annotations=file, **given_).records) == 3
    file.rename(images / "_annotations.coco.json")
    assert len(read_custom(images=images, annotations=None, **given_).records) == 3
    images.rename(root / "valid")
    found = read_custom(root, images=None, annotations=None, split="valid")
    assert found.name == "custom"
    with pytest.raises(ConfigError, match="no image folder at"):
        read_custom(root, images=None, annotations=None, split="train")


def _cityscapes(root: Path, ids: np.ndarray | None, polygons: Document | None) -> Path:
    images = root / "leftImg8bit" / "train" / "aachen"
    labels = root / "gtFine" / "train" / "aachen"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    Image.new("RGB", (32, 16)).save(images / "aachen_000000_000019_leftImg8bit.png")
    stem = labels / "aachen_000000_000019_gtFine"
    if ids is not None:
        Image.fromarray(ids.astype(np.uint16)).save(f"{stem}_instanceIds.png")
    if polygons is not None:
        Path(f"{stem}_polygons.json").write_text(json.dumps(polygons))
    return root


def test_cityscapes_boxes_enclose_the_visible_pixels(tmp_path: Path) -> None:
    ids = np.full((16, 32), 7)  # road
    ids[2:6, 4:9] = 26000  # a car ...
    ids[2:6, 6:8] = 24001  # ... that a person parts in two
    ids[10:12, 20:30] = 26  # cargroup
    ids[14, 1:3] = 29000  # a caravan: not one of the eight
    data = read_cityscapes(_cityscapes(tmp_path, ids, None), split="train", masks=True)
    (only,) = data.records
    assert data.categories == THING_CLASSES
    assert [data.categories[k].name for k in only.labels] == ["car", "person", "car"]
    np.testing.assert_array_equal(only.boxes_xyxy, [[20, 10, 30, 12], [6, 2, 8, 6], [4, 2, 9, 6]])
    assert only.crowd.tolist() == [True, False, False]
    assert only.areas.tolist() == [20, 8, 12]
    assert only.name == "aachen/aachen_000000_000019_leftImg8bit.png"
    assert only.masks is not None
    assert only.masks[2] == encode_mask(ids == 26000)


def test_cityscapes_polygons_cover_what_lies_behind(tmp_path: Path) -> None:
    def square(label: str, left: int, right: int) -> Document:
        corners = [[left, 2], [right, 2], [right, 5], [left, 5]]
        return {"label": label, "polygon": corners}

    polygons = {
        "imgHeight": 16,
        "imgWidth": 32,
        "objects": [square("car", 4, 20), square("building", 4, 9), square("persongroup", 18, 25)],
    }
    (only,) = read_cityscapes(_cityscapes(tmp_path, None, polygons), split="train").records
    np.testing.assert_array_equal(only.boxes_xyxy, [[18, 2, 26, 6], [10, 2, 18, 6]])
    assert only.crowd.tolist() == [True, False]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"imgHeight": 4, "imgWidth": 4, "objects": [{"label": "car"}]},
        {"imgHeight": 4, "imgWidth": 4, "objects": [{"label": "car", "polygon": [[0, "a"]] * 3}]},
        {"imgHeight": 4, "imgWidth": 4, "objects": [{"label": "car", "polygon": [[1e99, 0]] * 3}]},
        {"imgHeight": 60000, "imgWidth": 60000, "objects": []},
    ],
)
def test_malformed_polygons_are_refused(document: Document) -> None:
    with pytest.raises(ValueError, match="polygon"):
        draw_instance_ids(document)


@pytest.mark.data
def test_real_polygons_and_real_instance_ids_give_the_same_boxes(
    shared_data: Path, tmp_path: Path
) -> None:
    import shutil

    root = tmp_path / "cityscapes"
    shutil.copytree(shared_data / "cityscapes-dev", root)
    from_ids = read_cityscapes(root, split="train").records
    for file in root.rglob("*_instanceIds.png"):
        file.unlink()
    from_polygons = read_cityscapes(root, split="train").records
    for a, b in zip(from_ids, from_polygons, strict=True):
        assert sorted(a.boxes_xyxy.tolist()) == sorted(b.boxes_xyxy.tolist())


def test_instance_ids_saved_again_with_fewer_bits_are_refused(tmp_path: Path) -> None:
    """26001 would become 145, and the car would be gone without a word."""
    ids = np.full((16, 32), 7)
    ids[2:6, 4:9] = 26001
    root = _cityscapes(tmp_path, ids, None)
    file = next(root.rglob("*_instanceIds.png"))
    for mode in ("L", "P", "RGB"):
        Image.fromarray((ids % 256).astype(np.uint8)).convert(mode).save(file)
        with pytest.raises(DataError, match=rf"pixel mode '{mode}' where one channel of 16 bits"):
            read_cityscapes(root, split="train")
    data = read_cityscapes(root, split="train", on_bad=OnBad.skip)
    assert (len(data.records), len(data.report.rejected)) == (0, 1)


def test_hidden_files_are_no_cityscapes_images(tmp_path: Path) -> None:
    root = _cityscapes(tmp_path, np.full((16, 32), 7), None)
    image = next(root.rglob("*_leftImg8bit.png"))
    image.with_name(f"._{image.name}").write_bytes(b"\0\5\x16\7")
    assert len(read_cityscapes(root, split="train").records) == 1


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_run_lengths_are_read_as_the_library_writes_them(seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((9, 7)) < share
    encoded = encode_mask(mask)
    runs = decode_counts(encoded["counts"])
    values = np.repeat(np.arange(len(runs)) % 2, runs).astype(bool)
    np.testing.assert_array_equal(values.reshape(7, 9).T, mask)
    expected = encoded if mask.any() else None
    assert run_length_mask(encoded, height=9, width=7) == expected
    plain = {"size": [9, 7], "counts": runs}
    assert run_length_mask(plain, height=9, width=7) == expected


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=12), st.lists(st.integers(-5, 99), max_size=6)))
def test_malformed_run_lengths_never_reach_the_library(counts: object) -> None:
    try:
        mask = run_length_mask({"size": [5, 4], "counts": counts}, height=5, width=4)
    except ValueError:
        return
    if mask is None:  # nothing but background
        runs = decode_counts(counts) if isinstance(counts, str) else counts
        assert sum(runs[1::2]) == 0  # type: ignore[index]
        return
    assert sum(decode_counts(mask["counts"])) == 20


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[0, 0, 1e9, 0, 3, 3]],
        [[0, 0, float("nan"), 0, 3, 3]],
        ["abc"],
        "abc",
        {"size": [5, 5], "counts": [20]},
        {"size": [5, 4], "counts": [21]},
        {"size": [5, 4]},
    ],
)
def test_malformed_segmentations_are_refused(segmentation: object) -> None:
    with pytest.raises(ValueError, match="segmentation"):
        run_length_mask(segmentation, height=5, width=4)
