"""Picture files to predict on: which ones a person means, what they are called, their pixels."""

import errno
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from boxdepth.depthgen.store import DataError, decode_image
from boxdepth.depthgen.store.images import IMAGE_SUFFIXES
from boxdepth.trainer.data.box_file import BoxFile, ListedImage
from boxdepth.trainer.data.coco_fields import MAX_ID

SUFFIXES = IMAGE_SUFFIXES
"""What a store takes."""
OTHER_PICTURES = (".gif", ".avif", ".jp2", ".jxl")
"""Pictures in a folder that nobody should think were predicted on."""
_ORIENTATION = 0x0112
NOT_THE_FILES_FAULT = {errno.ESTALE, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE}

LARGEST_PICTURE = 100_000_000
"""Pixels; 10,000 x 10,000 are 0.3 GB decoded and as much again while they are being decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFile:
    """A picture to predict on, by a name that no other one has."""

    image_id: int
    name: str
    """Relative to the folder that was given, with forward slashes."""
    path: Path | None = None
    """None: it lies in a store."""
    row: int | None = None
    """Of the store."""
    id_is_its_own: bool = False
    """Whether the id says which picture it is: a store's, or a name of digits as COCO's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The picture files below some paths."""

    pictures: tuple[PictureFile, ...]
    passed_over: tuple[str, ...]
    """Pictures in folders whose format is not read."""


def find_pictures(paths: Sequence[Path]) -> Found:
    """Files in the order given; folders sorted, with their subfolders, links followed.

    Hidden files (``.DS_Store``, ``._x.jpg``) and folders are no pictures. A name is relative to the
    folder given; where two would be equal, as the path was typed, then whole. Names of digits are
    image ids, as COCO's; otherwise ids count from 1.

    Raises:
        DataError: no such file or folder.
    """
    files: dict[Path, str] = {}
    passed_over = []
    for path in paths:
        if path.is_dir():
            for file in _below(path):
                if file.suffix.lower() in SUFFIXES:
                    files.setdefault(file.absolute(), file.relative_to(path).as_posix())
                elif file.suffix.lower() in OTHER_PICTURES:
                    passed_over.append(file.relative_to(path).as_posix())
        elif path.exists():
            files.setdefault(path.absolute(), path.name)
        else:
            raise DataError(f"{path}: no such image or folder")
    names = _distinct(list(files.values()), list(files), paths)
    ids, own = _ids(list(files))
    return Found(
        pictures=tuple(
            PictureFile(image_id=i, name=name, path=path, id_is_its_own=own)
            for i, name, path in zip(ids, names, files, strict=True)
        ),
        passed_over=tuple(passed_over),
    )


def _below(folder: Path) -> Iterator[Path]:
    """All files below a folder that are not hidden, sorted by path; links are followed once."""
    seen = set()
    found: list[Path] = []
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [name for name in folders if not name.startswith(".")]
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return iter(sorted(found))


def _distinct(names: list[str], files: Sequence[Path], given: Iterable[Path]) -> list[str]:
    """Names that are unique: longer ones for those that are not."""
    counts = Counter(map(_folded, names))
    if max(counts.values(), default=1) == 1:
        return names
    roots = [(path.absolute(), path) for path in given]

    def typed(file: Path) -> str:
        for absolute, path in roots:
            if file.is_relative_to(absolute):
                return (path / file.relative_to(absolute)).as_posix()
        return file.as_posix()

    longer = [
        typed(file) if counts[_folded(name)] > 1 else name
        for name, file in zip(names, files, strict=True)
    ]
    if max(Counter(map(_folded, longer)).values()) == 1:
        return longer
    return [file.as_posix() for file in files]


def _ids(files: Sequence[Path]) -> tuple[list[int], bool]:
    """Image ids, and whether the names say them."""
    digits = all(file.stem.isascii() and file.stem.isdecimal() for file in files)
    if digits and all(len(file.stem) <= 16 for file in files):
        ids = [int(file.stem) for file in files]
        if len(set(ids)) == len(ids) and max(ids, default=0) <= MAX_ID:
            return ids, True
    return list(range(1, len(files) + 1)), False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """A decoded picture."""

    rgb: UInt8[np.ndarray, "h w 3"]
    turned: bool
    """It has an EXIF orientation, which is ignored."""


def read_picture(picture: PictureFile, *, size: tuple[int, int] | None = None) -> Pixels:
    """The pixels of a picture file as they lie in it.

    Args:
        size: (height, width) that the boxes file promises.

    Raises:
        DataError: not a picture that can be used, or of another size.
        OSError: the machine is at fault, not the picture.
    """
    assert picture.path is not None
    data = _bytes_of(picture.path)
    rgb = decode_image(data, expected_size=size, name=str(picture.path), max_pixels=LARGEST_PICTURE)
    return Pixels(rgb=rgb, turned=_orientation(data) not in (0, 1))


def read_file(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a picture as they lie in its file.

    Raises:
        DataError: there is no such file, or it is not a picture that can be used.
        OSError: the machine is at fault, not the picture.
    """
    return decode_image(
        _bytes_of(path), expected_size=None, name=str(path), max_pixels=LARGEST_PICTURE
    )


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno in NOT_THE_FILES_FAULT or isinstance(error, PermissionError):
            raise
        raise DataError(f"{path}: {error.strerror or error}") from error


def _orientation(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a tag that can't be read turns nothing
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """Which picture each image of a boxes file is."""

    images: dict[str, ListedImage]
    """By the picture's name."""
    absent: tuple[ListedImage, ...]
    """Images with boxes that are none of the pictures."""


def match_pictures(boxes: BoxFile, pictures: Sequence[PictureFile]) -> Matched:
    """Find the picture of each image that has boxes.

    By its file name, folders included: the picture's path must end with all of it. An image
    without a file name is found by its id where ids say which picture it is (a store's, or names of
    digits).

    Raises:
        DataError: a name that several pictures have, or two images that are one picture.
    """
    by_last: dict[str, list[PictureFile]] = {}
    for picture in pictures:
        by_last.setdefault(_parts(picture.name)[-1], []).append(picture)
    own_ids = {p.image_id: p for p in pictures if p.id_is_its_own}
    images: dict[str, ListedImage] = {}
    absent, problems = [], []
    for image in (image for image in boxes.images if image.boxes):
        if image.file_name is None:
            fits = [own_ids[image.id]] if image.id in own_ids else []
        else:
            wanted = _parts(image.file_name)
            fits = _called(wanted, by_last.get(wanted[-1], []) if wanted else [])
        if not fits:
            absent.append(image)
        elif len(fits) > 1:
            problems.append(
                f"image {image.id} ({image.file_name}) may be {fits[0].name} or {fits[1].name}"
            )
        elif fits[0].name in images:
            problems.append(
                f"images {images[fits[0].name].id} and {image.id} are both {fits[0].name}"
            )
        else:
            images[fits[0].name] = image
    if problems:
        raise DataError(
            f"{boxes.path}: {len(problems)} images can't be told apart; write file_name with its "
            "folders:\n  " + "\n  ".join(problems[:20])
        )
    return Matched(images=images, absent=tuple(absent))


def _called(wanted: tuple[str, ...], candidates: Sequence[PictureFile]) -> list[PictureFile]:
    exact = [picture for picture in candidates if _parts(picture.name) == wanted]
    if exact:
        return exact
    return [picture for picture in candidates if _whole(picture)[-len(wanted) :] == wanted]


def _whole(picture: PictureFile) -> tuple[str, ...]:
    return _parts(picture.name if picture.path is None else picture.path.absolute().as_posix())


def _parts(name: str) -> tuple[str, ...]:
    """A path's parts, whatever slashes and form of Unicode it is written in."""
    return tuple(
        part for part in _folded(name).replace("\\", "/").split("/") if part not in ("", ".")
    )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name)
