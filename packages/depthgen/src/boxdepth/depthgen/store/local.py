"""A store in a local folder: bytes that survive a power cut, and a lock of the kernel's."""

import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import final

from boxdepth.depthgen.store.errors import (
    StoreError,
    environment_failure,
    is_of_the_machine,
    writing,
)
from boxdepth.depthgen.store.location import NOT_A_FILE, Location, ObjectMissingError
from boxdepth.depthgen.store.lock import hold_lock, refuse_if_busy
from boxdepth.depthgen.store.schema import CONTROL, LOCK


@final
class LocalFolder(Location):
    """Objects are files; write aside, flush, rename, flush the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = root

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return LocalFolder, (self.root,)

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        with self._open(name) as descriptor:
            nbytes = os.fstat(descriptor).st_size
            if limit is not None and nbytes > limit:
                raise StoreError(f"{self.root / name}: {nbytes} bytes, at most {limit} expected")
            return _pread(descriptor, start=0, nbytes=nbytes)

    def read_range(self, name: str, *, start: int, nbytes: int) -> bytes:
        with self._open(name) as descriptor:
            data = _pread(descriptor, start=start, nbytes=nbytes)
        if len(data) != nbytes:
            raise StoreError(
                f"{self.root / name}: {len(data)} bytes at {start}, expected {nbytes}; verify the "
                "store"
            )
        return data

    def sizes(self, prefix: str = "") -> dict[str, int]:
        found: dict[str, int] = {}
        below = prefix.rpartition("/")[0]
        for folder, folders, files in os.walk(self.root / below, onerror=_refuse_to_miss):
            for entry in (*files, *(f for f in folders if os.path.islink(f"{folder}/{f}"))):
                path = Path(folder) / entry
                name = path.relative_to(self.root).as_posix()
                # Another writer's temporary file may be renamed between the two looks.
                with suppress(FileNotFoundError):
                    if name.startswith(prefix):
                        info = path.lstat()
                        found[name] = info.st_size if stat.S_ISREG(info.st_mode) else NOT_A_FILE
        return found

    def exists(self, name: str) -> bool:
        return (self.root / name).is_file()

    def is_empty(self) -> bool:
        return not self.root.exists() or (self.root.is_dir() and not any(self.root.iterdir()))

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        with writing(self.root):
            made = _make_folders(path.parent)
            # Of its own name: a task that another took over may still be writing the same.
            aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
            for folder in dict.fromkeys((path.parent, *(f.parent for f in made))):
                _fsync_folder(folder)

    def remove(self, names: Iterable[str]) -> None:
        with writing(self.root):
            for name in names:
                path = self.root / name
                path.unlink(missing_ok=True)
                _prune(path.parent, self.root)

    def prepare(self) -> None:
        root = self.root
        with writing(root):
            if root.is_symlink() or (root.exists() and not root.is_dir()):
                raise StoreError(f"{root}: not a folder; name another place for the store")
            if not self.is_empty() and not (root / CONTROL).is_dir():
                raise StoreError(
                    f"{root}: the folder is not empty and is not a boxdepth store; name another "
                    "place"
                )
            for folder in _make_folders(root / CONTROL):
                _fsync_folder(folder.parent)

    @contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        with hold_lock(self.root / LOCK):
            yield lambda: None

    def refuse_if_busy(self) -> None:
        refuse_if_busy(self.root / LOCK)

    def free_bytes(self) -> int | None:
        parent = next(p for p in (self.root, *self.root.absolute().parents) if p.exists())
        return shutil.disk_usage(parent).free

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        path = self.root / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
        except OSError as error:
            if is_of_the_machine(error):
                raise environment_failure(error, path) from error
            raise ObjectMissingError(
                f"{path}: {error.strerror}; `depthgen verify` tells what else is"
            ) from error


def _pread(descriptor: int, *, start: int, nbytes: int) -> bytes:
    # One call gives 2 GiB at most.
    parts, got = [], 0
    while got < nbytes and (part := os.pread(descriptor, nbytes - got, start + got)):
        parts.append(part)
        got += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder with its parents; those that were not there, outermost last."""
    missing = []
    for candidate in (folder, *folder.parents):
        if candidate.exists():
            break
        missing.append(candidate)
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _prune(folder: Path, root: Path) -> None:
    """Remove folders that have become empty, but never the root or the control folder."""
    while folder not in (root, root / CONTROL) and folder.is_relative_to(root):
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_to_miss(error: OSError) -> None:
    """A folder that cannot be listed is an error, not an empty folder."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return
    raise environment_failure(error, str(error.filename)) from error
