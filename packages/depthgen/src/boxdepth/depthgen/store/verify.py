"""Checking a finished store, object by object."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from boxdepth.depthgen.store.files import sha256_file
from boxdepth.depthgen.store.manifest import describe, object_problems, read_manifest
from boxdepth.depthgen.store.schema import CONTROL


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What ``verify_store`` found.

    Attributes:
        objects: Objects that the records name.
        nbytes: Their recorded size in bytes.
        problems: One text a fault, naming array, shard and images.
        extra: Files in the store that no record names.
    """

    objects: int
    nbytes: int
    problems: tuple[str, ...]
    extra: tuple[str, ...]


def verify_store(
    path: Path | str, *, deep: bool, progress: Callable[[int], None] | None = None
) -> Verification:
    """Compare every object with its record: presence and size, with ``deep`` the SHA-256 too.

    Args:
        progress: Called with the bytes of every object that has been hashed.

    Raises:
        StoreError: There is no readable manifest, or records or metadata differ from it.
    """
    root = Path(path)
    manifest = read_manifest(root)
    problems = list(object_problems(manifest))
    records = (manifest.dataset, *manifest.units)
    if deep:
        for record in records:
            for name, item in record.objects.items():
                file = root / name
                whole = file.is_file() and file.stat().st_size == item.nbytes
                if whole and sha256_file(file) != item.sha256:
                    problems.append(
                        f"{describe(name, record)}: its bytes have changed (SHA-256 differs)"
                    )
                if progress:
                    progress(item.nbytes)
    known = {name for record in records for name in record.objects}
    present = {p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir()}
    extra = sorted(name for name in present - known if not name.startswith(f"{CONTROL}/"))
    return Verification(
        objects=len(known),
        nbytes=sum(item.nbytes for record in records for item in record.objects.values()),
        problems=tuple(problems),
        extra=tuple(extra),
    )
