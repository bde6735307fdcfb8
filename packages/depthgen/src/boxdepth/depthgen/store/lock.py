"""One writer a store, by ``flock``: the kernel lets go of it when the holder dies."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from boxdepth.depthgen.store.errors import StoreBusyError, environment_failure, writing

_PATIENCE_SECONDS = 10.0
"""A killed holder's children may keep the lock for some seconds (measured: 2 restarts of 170)."""


@contextmanager
def hold_lock(path: Path, *, patience: float = _PATIENCE_SECONDS) -> Iterator[None]:
    """Hold the lock file ``path``, which is left empty afterwards.

    Raises:
        StoreBusyError: A living process holds it, or it stayed held for ``patience`` seconds.
        EnvironmentFailure: The file system fails, or knows no locks.
    """
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with writing(path):
            _acquire(descriptor, path, patience=patience)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{describe_holder()}\n".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def describe_holder() -> str:
    """This process: host, process and time."""
    return f"{socket.gethostname()} {os.getpid()} {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def refuse_if_busy(path: Path) -> None:
    """Look at a lock file early, so that nobody waits for a model only to be turned away.

    Raises:
        StoreBusyError: A living process of this host holds it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise environment_failure(error, path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 4096, 0).decode(errors="replace").split()
        if is_alive(holder):
            raise StoreBusyError(busy_message(path.parent.parent, holder)) from None
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, *, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 4096, 0).decode(errors="replace").split()
            if is_alive(holder) or time.monotonic() > deadline:
                raise StoreBusyError(busy_message(path.parent.parent, holder)) from None
            time.sleep(0.1)
        else:
            return


def is_alive(holder: Sequence[str]) -> bool:
    """True if the holder (host, process, time) is a living process of this host."""
    if len(holder) != 3 or holder[0] != socket.gethostname() or not holder[1].isdigit():
        return False
    try:
        os.kill(int(holder[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def is_gone(holder: Sequence[str]) -> bool:
    """True if the holder was a process of this host and is no more."""
    ours = len(holder) == 3 and holder[0] == socket.gethostname() and holder[1].isdigit()
    return ours and not is_alive(holder)


def busy_message(store: object, holder: Sequence[str]) -> str:
    """Who holds the store, since when, and what to do."""
    who = f"process {holder[1]} on {holder[0]} since {holder[2]}" if len(holder) == 3 else "unknown"
    return (
        f"{store}: another writer holds this store ({who}); "
        "wait for it, or end it: nothing that it has finished will be lost"
    )
