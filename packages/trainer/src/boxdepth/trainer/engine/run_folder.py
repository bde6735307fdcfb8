"""The folder of a run: who may write there, and what stands in it."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boxdepth.trainer.engine.checkpoint import write_atomically
from boxdepth.trainer.errors import BusyError, ConfigError, RunFileError

PATIENCE_SECONDS = 10.0
"""A killed run's children may hold its lock for a moment."""


@contextmanager
def lock_run(folder: Path, *, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Hold the run folder for this process; the kernel lets go even after a kill.

    Raises:
        BusyError: someone else holds it; names host, process and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(descriptor, folder, patience=patience)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{socket.gethostname()} {os.getpid()} since {since}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, folder: Path, *, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "unknown"
                raise BusyError(
                    f"{folder}: another process trains there (host and process: {holder}); "
                    "wait for it, or give another --out"
                ) from None
            time.sleep(0.2)
        else:
            return


def write_json(path: Path, value: Any) -> None:
    """A JSON file, whole or not at all."""
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no file.

    Raises:
        RunFileError: no JSON, or no object.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunFileError(
            f"{path}: not readable as JSON ({error}); it was changed after the run wrote it: put "
            "it back, or start a new run"
        ) from error
    if not isinstance(found, dict):
        raise RunFileError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found


def require_writable(path: Path, *, overwrite: bool) -> None:
    """Notice before the work, not after it, that a result can't be written.

    Raises:
        ConfigError: the file is there already, is a folder, or lies below a file.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, expected the name of a file to write")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists already; --overwrite replaces it")
    make_folder(path.parent)


def make_folder(path: Path) -> None:
    """A folder, with those above it.

    Raises:
        ConfigError: there is a file of that name, or in the way to it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"{path}: can't be a folder, for {error.filename or path} is a file or below one"
        ) from error
