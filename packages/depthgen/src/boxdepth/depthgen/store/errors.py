"""The error families of depthgen; each carries the exit code its command ends with."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final


class DepthgenError(ValueError):
    """Something a person can cause and cure; the message names what, where and the cure."""

    exit_code = 2


class ConfigError(DepthgenError):
    """A command or a configuration that cannot be carried out."""

    exit_code = 2


class DataError(DepthgenError):
    """Input data that is not what it says it is."""

    exit_code = 3


class ImageError(DataError):
    """An image file that cannot be used."""


class StoreError(DataError):
    """A store that is unfinished, damaged, or not a store."""


class StoreMismatchError(DepthgenError):
    """A store that was started from other inputs than the ones given now."""

    exit_code = 2


class EnvironmentFailure(DepthgenError):
    """The machine is at fault: a full disk, too little memory, no network."""

    exit_code = 6


class StoreBusyError(DepthgenError):
    """Another process holds the store's lock."""

    exit_code = 75


class MissingExtraError(DepthgenError):
    """An optional dependency is not installed."""

    exit_code = 5


def summarise(problems: Sequence[str], *, shown: int = 20) -> str:
    """Join collected problems to one text: the first ``shown`` of them, and how many more."""
    lines = [f"  {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  ... and {len(problems) - shown} more")
    return "\n".join(lines)


def _numbers(*names: str) -> frozenset[int]:
    """The error numbers of these names, as far as the system knows them (macOS, Windows: not
    all)."""
    return frozenset(number for name in names if (number := getattr(errno, name, None)) is not None)


FULL: Final = _numbers("ENOSPC", "EDQUOT", "EFBIG")
"""No room is left: on the disk, in the quota, or under the file-size limit (``ulimit -f``)."""

_FAILING: Final = _numbers(
    "EIO", "ESTALE", "EROFS", "ENODEV", "ENXIO", "EREMOTEIO", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN",
    "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "EMFILE", "ENFILE", "ENOMEM", "ENOLCK",
)  # fmt: skip
"""The disk, the network file system or the system's limits fail; no file is at fault."""

_CURES: Final = {
    "ENOSPC": "the disk is full; free space",
    "EDQUOT": "the quota is used up; free space",
    "EFBIG": "a file may not grow that large here (ulimit -f, or the file system's own limit)",
    "ENOTDIR": "a part of this path is a file; name another place",
    "EACCES": "no permission; change it, or name another place",
    "EPERM": "not permitted; name another place",
    "EROFS": "read-only; name another place",
    "EIO": "the disk fails",
    "ESTALE": "the network file system has lost it; mount it again",
    "EMFILE": "too many open files (ulimit -n)",
}


def is_of_the_machine(error: OSError) -> bool:
    """True if the machine failed while a file was read; a missing or forbidden file is data."""
    return error.errno in FULL | _FAILING


def environment_failure(error: OSError, path: Path | str) -> EnvironmentFailure:
    """``error`` in words, with the path: the one it names itself, else ``path``."""
    named = error.filename if isinstance(error.filename, str) else None
    where = f"{path}" if named is None or str(path) in named else f"{path}: {named}"
    seen = os.strerror(error.errno) if error.errno else str(error)
    cure = _CURES.get(errno.errorcode.get(error.errno or 0, ""))
    return EnvironmentFailure(
        f"{where}: {f'{cure} ({seen})' if cure else seen}; then repeat the same command: what is "
        "finished stays"
    )


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Whatever goes wrong in the file system while ``path`` is written is the environment's.

    Raises:
        EnvironmentFailure: In place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise environment_failure(error, path) from error
