"""Which files are pictures, what they are called, and which image of a boxes file each one is."""

import errno
import os
import unicodedata
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxdepth.depthgen.store import DataError
from boxdepth.trainer.data.box_file import BoxFile, GivenBox, ListedImage
from boxdepth.trainer.data.pictures import (
    find_pictures,
    match_pictures,
    read_picture,
)
from boxdepth.trainer.errors import PicturesError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names(*paths: Path) -> list[str]:
    return [picture.name for picture in find_pictures(paths).pictures]


def test_hidden_files_and_folders_are_no_pictures(tmp_path: Path) -> None:
    kept = ["a.jpg", "b.JPEG", "sub/c.png", "sub/d.webp"]
    left = ["._a.jpg", ".DS_Store", ".trash/x.jpg", "sub/.hidden.png", "notes.txt", "e.gif"]
    touch(*(tmp_path / name for name in kept + left))
    (tmp_path / "folder.jpg").mkdir()
    found = find_pictures([tmp_path])
    assert [picture.name for picture in found.pictures] == kept
    assert found.passed_over == ("e.gif",)


def test_a_folder_that_is_hidden_itself_may_be_given(tmp_path: Path) -> None:
    touch(tmp_path / ".cache" / "a.jpg", tmp_path / ".b.jpg")
    assert names(tmp_path / ".cache") == ["a.jpg"]
    assert names(tmp_path / ".b.jpg") == [".b.jpg"]


def test_links_to_files_and_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    touch(tmp_path / "blobs" / "0a1b", tmp_path / "far" / "y.png")
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "x.jpg").symlink_to(tmp_path / "blobs" / "0a1b")
    (folder / "more").symlink_to(tmp_path / "far")
    (folder / "round").symlink_to(folder)
    assert names(folder) == ["more/y.png", "x.jpg"]


def test_equal_names_are_told_apart_by_the_path_that_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(Path("a/x.jpg"), Path("b/x.jpg"), Path("b/y.jpg"))
    assert names(Path("a"), Path("b")) == ["a/x.jpg", "b/x.jpg", "y.jpg"]
    assert names(Path("a/x.jpg"), Path("b/x.jpg")) == ["a/x.jpg", "b/x.jpg"]
    assert names(Path()) == ["a/x.jpg", "b/x.jpg", "b/y.jpg"]


def test_a_picture_that_is_given_twice_is_predicted_on_once(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    assert names(tmp_path, tmp_path / "a.jpg") == ["a.jpg"]


@pytest.mark.parametrize(
    ("files", "ids", "own"),
    [
        (["000000.jpg", "000042.jpg"], [0, 42], True),
        (["a.jpg", "b.jpg"], [1, 2], False),
        (["1.jpg", "1.png"], [1, 2], False),
        (["1.jpg", "b.jpg"], [1, 2], False),
        (["9007199254740993.jpg"], [1], False),
        (["12345678901234567890.jpg"], [1], False),
        (["٣.jpg"], [1], False),
    ],
)
def test_names_of_digits_are_ids(tmp_path: Path, files: list[str], ids, own) -> None:
    touch(*(tmp_path / name for name in files))
    found = find_pictures([tmp_path]).pictures
    assert [picture.image_id for picture in found] == ids
    assert {picture.id_is_its_own for picture in found} == {own}


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cat\.jpg: no such image or folder"):
        find_pictures([tmp_path / "cat.jpg"])


def boxes(*listed: tuple[int, str | None]) -> BoxFile:
    one = GivenBox(id=1, category_id=1, xyxy=(0.0, 0.0, 5.0, 5.0))
    images = tuple(ListedImage(id=i, file_name=n, size=None, boxes=(one,)) for i, n in listed)
    return BoxFile(path=Path("boxes.json"), images=images, category_names={}, notes=())


def match(folder: Path, *listed: tuple[int, str | None]) -> tuple[dict[str, int], list[int]]:
    found = match_pictures(boxes(*listed), find_pictures([folder]).pictures)
    return (
        {name: image.id for name, image in found.images.items()},
        [image.id for image in found.absent],
    )


def test_an_absent_image_takes_no_other_picture(tmp_path: Path) -> None:
    touch(tmp_path / "cat.jpg")
    assert match(tmp_path, (1, "dog.jpg"), (2, "cat.jpg")) == ({"cat.jpg": 2}, [1])


def test_image_zero_is_an_image(tmp_path: Path) -> None:
    touch(tmp_path / "000000.jpg", tmp_path / "000001.jpg")
    listed = [(1, "000000.jpg"), (0, "000001.jpg")]
    assert match(tmp_path, *listed) == ({"000000.jpg": 1, "000001.jpg": 0}, [])
    assert match(tmp_path, (0, None), (7, None)) == ({"000000.jpg": 0}, [7])


def test_an_id_without_a_name_finds_nothing_where_ids_only_count(tmp_path: Path) -> None:
    touch(tmp_path / "cat.jpg")
    assert match(tmp_path, (1, None)) == ({}, [1])


def test_folders_tell_equal_names_apart(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "x.jpg", tmp_path / "b" / "x.jpg")
    both = [(1, "a/x.jpg"), (2, "b/x.jpg")]
    assert match(tmp_path, *both) == ({"a/x.jpg": 1, "b/x.jpg": 2}, [])
    assert match(tmp_path / "b", *both) == ({"x.jpg": 2}, [1])
    assert match(tmp_path / "b", (1, "a/x.jpg")) == ({}, [1])
    with pytest.raises(DataError, match=r"image 1 \(x.jpg\) may be a/x.jpg or b/x.jpg"):
        match(tmp_path, (1, "x.jpg"))
    with pytest.raises(DataError, match=r"images 1 and 2 are both b/x.jpg"):
        match(tmp_path, (1, "b/x.jpg"), (2, "./b/x.jpg"))


def test_a_name_beats_the_end_of_a_longer_one(tmp_path: Path) -> None:
    touch(tmp_path / "x.jpg", tmp_path / "sub" / "x.jpg")
    assert match(tmp_path, (1, "x.jpg"), (2, "sub\\x.jpg")) == ({"x.jpg": 1, "sub/x.jpg": 2}, [])


def test_the_two_unicode_forms_of_a_name_are_one_name(tmp_path: Path) -> None:
    name = "Bär 写真\u202f1.jpg"
    touch(tmp_path / unicodedata.normalize("NFD", name))
    matched, absent = match(tmp_path, (5, unicodedata.normalize("NFC", name)))
    assert (list(matched.values()), absent) == ([5], [])


def save(path: Path, *, size: tuple[int, int] = (6, 8), **options: object) -> Path:
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path, **options)
    return path


def read(path: Path, **options: object):
    return read_picture(find_pictures([path]).pictures[0], **options)


def test_a_turned_picture_is_said_to_be(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = read(save(tmp_path / "turned.jpg", exif=exif))
    assert turned.turned
    assert turned.rgb.shape == (6, 8, 3)
    assert not read(save(tmp_path / "upright.jpg")).turned


def test_a_picture_of_another_size_than_its_boxes_promise_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    assert read(path, size=(6, 8)).rgb.shape == (6, 8, 3)
    with pytest.raises(DataError, match="8x6"):
        read(path, size=(8, 6))


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_a_sick_machine_is_no_bad_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = save(tmp_path / "a.png")

    def fail(self: Path) -> bytes:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        read(path)
    assert PicturesError([("a.png", caught.value)], kept=None).exit_code == 6


def test_a_dangling_link_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "photos" / "a.jpg")
    (tmp_path / "photos" / "b.jpg").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"b\.jpg"):
        read_picture(find_pictures([tmp_path / "photos"]).pictures[1])


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    data = BytesIO()
    Image.new("1", (30_000, 30_000)).save(data, "PNG")
    (tmp_path / "bomb.png").write_bytes(data.getvalue())
    with pytest.raises(DataError, match=r"bomb\.png"):
        read(tmp_path / "bomb.png")
