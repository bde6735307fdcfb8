"""Names of image files: what may be opened, and under which form of its name a file lies there."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Final

_HEAD_BYTES: Final = 16


class ImageFolder:
    """A folder of images, and the way from a name in an annotation file to a file in it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.links_followed = 0
        self._inside: dict[Path, bool] = {}
        self._names: dict[Path, dict[str, str]] = {}

    def locate(self, name: object) -> tuple[Path, str]:
        """Where the file ``name`` lies, and its name with forward slashes. It need not exist.

        NFC and NFD forms of a name are one name (macOS writes the second). A link may lead out of
        the folder (FiftyOne, DVC and hub caches make such folders), but only to a regular file that
        begins as an image does.

        Raises:
            ValueError: ``name`` is no text, empty, absolute, a URL, or leads out of the folder.
        """
        relative = plain_relative(name, self.root)
        path = self._spelled(relative)
        if self._parent_is_inside(path.parent) and not path.is_symlink():
            return path, relative.as_posix()
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(self.root) and os.path.lexists(target):
            if not (target.is_file() and begins_as_image(target)):
                raise ValueError(
                    f"file_name {name!a} is a link that leads out of the image folder "
                    f"{self.root} to {str(target)!a}, which is no image; copy the file, or correct "
                    "the link"
                )
            self.links_followed += 1
        return path, relative.as_posix()

    def files(self) -> Iterator[PurePath]:
        """Every file below the folder as a relative path, in order of names."""
        return walk(self.root)

    def _spelled(self, relative: Path) -> Path:
        path = self.root / relative
        if str(relative).isascii() or path.exists():
            return path
        found = self.root
        for part in relative.parts:
            found /= self._listing(found).get(unicodedata.normalize("NFC", part), part)
        return found

    def _listing(self, folder: Path) -> dict[str, str]:
        if folder not in self._names:
            names = os.listdir(folder) if folder.is_dir() else []
            self._names[folder] = {unicodedata.normalize("NFC", name): name for name in names}
        return self._names[folder]

    def _parent_is_inside(self, folder: Path) -> bool:
        if folder not in self._inside:
            self._inside[folder] = Path(os.path.realpath(folder)).is_relative_to(self.root)
        return self._inside[folder]


def plain_relative(name: object, root: Path) -> Path:
    """``name`` as a relative path that stays below ``root``.

    Any character that a file system takes is fine, narrow and wide spaces included; control
    characters and half surrogate pairs are not.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"file_name {name!a} is not a text")
    if "://" in name or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise ValueError(f"file_name {name!a} is not a plain relative path")
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"file_name {name!a} leads out of the image folder {root}")
    return path


def begins_as_image(path: Path) -> bool:
    """True if the file's first bytes are those of a picture in one of the formats we read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError:
        return False
    return (
        head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*"))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or head[4:8] == b"ftyp"
    )


def hidden(relative: PurePath) -> bool:
    """True for what a file manager hides: ``.DS_Store``, ``._photo.jpg``, ``__MACOSX/``."""
    return any(part.startswith(".") or part == "__MACOSX" for part in relative.parts)


def walk(root: Path) -> Iterator[Path]:
    """Every file below ``root`` as a relative path, in order of names; links to folders too.

    A folder that contains itself by way of a link is entered once.
    """
    seen = {os.path.realpath(root)}
    for folder, folders, files in os.walk(root, followlinks=True):
        fresh = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(folder, name))
            if real not in seen:
                seen.add(real)
                fresh.append(name)
        folders[:] = fresh
        yield from (Path(folder, name).relative_to(root) for name in sorted(files))
