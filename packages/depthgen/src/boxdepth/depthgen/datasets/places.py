"""Folders and files of a dataset, on this machine or in a bucket: one door to both.

A place is a ``Path``; a URL that has become one (``s3:/bucket/x``) is still known as a URL.
"""

import os
import unicodedata
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path, PurePath, PurePosixPath
from typing import Final

from boxdepth.depthgen.datasets.paths import ImageFolder, plain_relative, walk
from boxdepth.depthgen.datasets.records import require_folder
from boxdepth.depthgen.store.errors import (
    ConfigError,
    environment_failure,
    is_of_the_machine,
)
from boxdepth.depthgen.store.location import is_remote, locate, place_text
from boxdepth.depthgen.store.remote_file import RemoteFile

HEADER_BYTES: Final = 1 << 16
"""Of an image file; its size nearly always stands there."""

MAX_LABEL_BYTES: Final = 16 << 20
"""Of a file with the labels of one image, or with the classes."""


class RemoteFolder:
    """A folder of images in a bucket, by its listing, which told the size of every file.

    Attributes:
        root: Its URL, as a path.
    """

    links_followed = 0
    """There are none in a bucket."""

    def __init__(self, root: Path, files: Mapping[str, RemoteFile]) -> None:
        self.root = root
        # Composed and decomposed forms of a name are one name, as on a disk.
        self._files = {_composed(name): (name, file) for name, file in files.items()}
        self._location = locate(root, bucket_itself=True)

    def files(self) -> Iterator[PurePath]:
        """Every file as a relative path, in order of names."""
        return map(PurePosixPath, sorted(name for name, _ in self._files.values()))

    def locate(self, name: object) -> tuple[RemoteFile, str]:
        """As ``ImageFolder.locate``; a file that is not there has 0 bytes.

        Raises:
            ValueError: ``name`` is no text, empty, absolute, a URL, or leads out of the folder.
        """
        relative = plain_relative(name, self.root).as_posix()
        missing = RemoteFile(self._location, relative, 0)
        _, file = self._files.get(_composed(relative), (relative, missing))
        return file, relative


Images = ImageFolder | RemoteFolder


class LocalTree:
    """A dataset's root on this machine: label files and image folders below it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def __str__(self) -> str:
        return place_text(self.root)

    def below(self, place: Path) -> "LocalTree":
        """The tree whose root is ``place``."""
        return LocalTree(place)

    def is_folder(self, place: Path) -> bool:
        """True if there is a folder at ``place``."""
        return place.is_dir()

    def images(self, place: Path) -> Images:
        """The image folder at ``place``."""
        return ImageFolder(place)

    def files(self, place: Path) -> Iterator[Path]:
        """Every file below ``place``, in order of names."""
        return (place / name for name in walk(place))

    def read(self, place: Path) -> bytes | None:
        """A label file; ``None`` where there is none.

        Raises:
            ValueError: It is too large, or not a plain file.
            EnvironmentFailure: The disk fails.
        """
        try:
            if not place.is_file():
                return None
            _refuse_large(place.name, place.stat().st_size)
            return place.read_bytes()
        except OSError as error:
            if is_of_the_machine(error):
                raise environment_failure(error, place) from error
            raise ValueError(f"{place.name}: {error.strerror}") from error


class RemoteTree:
    """A dataset's root in a bucket, listed once: what lies where costs no further request.

    Raises:
        ConfigError: Nothing is there.
        EnvironmentFailure: The network fails, or access is denied.
    """

    def __init__(self, root: Path, *, what: str) -> None:
        location = locate(root, bucket_itself=True)
        files = [RemoteFile(location, name, size) for name, size in location.sizes().items()]
        if not files:
            raise ConfigError(f"no {what} at {location}: nothing lies below that name")
        self.root = self._listed = root
        self._files = {_composed(file.name): file for file in files}
        self._folders = {
            folder.as_posix() for name in self._files for folder in PurePosixPath(name).parents
        }

    def __str__(self) -> str:
        return place_text(self.root)

    def below(self, place: Path) -> "RemoteTree":
        """The tree whose root is ``place``, by the same listing."""
        tree = copy(self)
        tree.root = place
        return tree

    def is_folder(self, place: Path) -> bool:
        """True if something lies below ``place``; what leads out of the root is not there."""
        return self._inside(place) in self._folders

    def images(self, place: Path) -> Images:
        """The image folder at ``place``."""
        root = self._listed / self._inside(place)
        below = self._below(place)
        return RemoteFolder(root, {name.as_posix(): file for name, file in below})

    def files(self, place: Path) -> Iterator[Path]:
        """Every file below ``place``, in order of names."""
        return (place / name for name in sorted(name for name, _ in self._below(place)))

    def read(self, place: Path) -> bytes | None:
        """A label file; ``None`` where there is none.

        Raises:
            ValueError: It is too large.
            DataError: It went after the root was listed.
            EnvironmentFailure: The network fails, or access is denied.
        """
        file = self._files.get(self._inside(place))
        if file is None:
            return None
        _refuse_large(place.name, file.nbytes)
        return file.read_bytes()

    def _below(self, place: Path) -> list[tuple[PurePosixPath, RemoteFile]]:
        folder = PurePosixPath(self._inside(place))
        return [
            (PurePosixPath(*PurePosixPath(file.name).parts[len(folder.parts) :]), file)
            for name, file in self._files.items()
            if folder in PurePosixPath(name).parents
        ]

    def _inside(self, place: Path) -> str:
        """``place`` relative to the root, composed; a name that nothing has, where it leads out."""
        relative = os.path.relpath(place, self._listed)
        return _composed(PurePosixPath(relative).as_posix())


def _refuse_large(name: str, nbytes: int) -> None:
    if nbytes > MAX_LABEL_BYTES:
        raise ValueError(f"{name}: more than {MAX_LABEL_BYTES >> 20} MB of labels")


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


Tree = LocalTree | RemoteTree


def open_tree(place: Path, *, what: str) -> Tree:
    """The folder at ``place``, and what lies below it.

    Raises:
        ConfigError: There is no such folder (it is called ``what``).
        MissingExtraError: A URL, and the extra ``remote`` is not installed.
        EnvironmentFailure: The network fails, or access is denied.
    """
    if is_remote(place):
        return RemoteTree(place, what=what)
    return LocalTree(require_folder(place, what=what))


def open_images(place: Path) -> Images:
    """The image folder at ``place``.

    Raises:
        As ``open_tree`` has it.
    """
    tree = open_tree(place, what="image folder")
    return tree.images(tree.root)


def is_file(place: Path) -> bool:
    """True if there is a file at ``place``."""
    if not is_remote(place):
        return place.is_file()
    return locate(place.parent, bucket_itself=True).exists(place.name)


def is_folder(place: Path) -> bool:
    """True if there is a folder at ``place``; in a bucket it shows when it is listed."""
    return is_remote(place) or place.is_dir()


def read_head(file: Path | RemoteFile) -> bytes:
    """The first ``HEADER_BYTES`` bytes of a file, or all of it."""
    if isinstance(file, RemoteFile):
        return file.read_head(HEADER_BYTES)
    with file.open("rb") as stream:
        return stream.read(HEADER_BYTES)
