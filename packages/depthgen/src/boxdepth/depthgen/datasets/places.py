"""Folders and files of a dataset, on this machine or in a bucket: one door to both.

A place is a ``Path``; a URL that has become one (``s3:/bucket/x``) is still known as a URL.
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import Final

from boxdepth.depthgen.datasets.paths import ImageFolder, plain_relative
from boxdepth.depthgen.datasets.records import require_folder
from boxdepth.depthgen.store.errors import ConfigError
from boxdepth.depthgen.store.location import is_remote, locate
from boxdepth.depthgen.store.remote_file import RemoteFile

HEADER_BYTES: Final = 1 << 16
"""Of an image file; its size nearly always stands there."""


class RemoteFolder:
    """A folder of images in a bucket; it is listed once, which tells the size of every file.

    Raises:
        ConfigError: Nothing is there.
        EnvironmentFailure: The network fails, or access is denied.
    """

    links_followed = 0
    """There are none in a bucket."""

    def __init__(self, url: Path) -> None:
        self.location = locate(url, bucket_itself=True)
        self.root = url
        found = self.location.sizes()
        if not found:
            raise ConfigError(f"no image folder at {self.location}: nothing lies below that name")
        # Composed and decomposed forms of a name are one name, as on a disk.
        self._files = {_composed(name): (name, size) for name, size in found.items()}

    def files(self) -> Iterator[PurePath]:
        """Every file as a relative path, in order of names."""
        return map(PurePosixPath, sorted(name for name, _ in self._files.values()))

    def locate(self, name: object) -> tuple[RemoteFile, str]:
        """As ``ImageFolder.locate``; a file that is not there has 0 bytes.

        Raises:
            ValueError: ``name`` is no text, empty, absolute, a URL, or leads out of the folder.
        """
        relative = plain_relative(name, self.root).as_posix()
        found, size = self._files.get(_composed(relative), (relative, 0))
        return RemoteFile(self.location, found, size), relative


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


Images = ImageFolder | RemoteFolder


def open_images(place: Path) -> Images:
    """The image folder at ``place``.

    Raises:
        ConfigError: There is none.
        MissingExtraError: A URL, and the extra ``remote`` is not installed.
    """
    if is_remote(place):
        return RemoteFolder(place)
    return ImageFolder(require_folder(place, what="image folder"))


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
