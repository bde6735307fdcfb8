"""Bytes that survive a power cut: write aside, flush, rename, flush the folder."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRecord:
    """What a unit's record remembers of one object (file): its size in bytes and its SHA-256."""

    nbytes: int
    sha256: str


def canonical_json(value: Any) -> bytes:
    """One value, one spelling: sorted keys, no spaces, no NaN, a newline at the end."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hash a file without holding it in memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Make ``path`` hold ``data``, or leave it as it was, whatever happens in between."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(root: Path, names: Iterable[str]) -> dict[str, ObjectRecord]:
    """Flush the objects ``names`` under ``root`` (those that exist) to disk and describe them."""
    sealed = {}
    folders: set[Path] = set()
    for name in sorted(names):
        path = root / name
        if not path.is_file():
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # The folders up to the root too: each may have been made for this object.
        folders.update(parent for parent in path.parents if parent.is_relative_to(root))
        sealed[name] = ObjectRecord(nbytes=path.stat().st_size, sha256=sha256_file(path))
    for folder in sorted(folders):
        fsync_folder(folder)
    return sealed
