"""Checking a finished store, object by object."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from boxdepth.depthgen.store.location import locate
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
    where: Path | str, *, deep: bool, progress: Callable[[int], None] | None = None
) -> Verification:
    """Compare every object with its record: presence and size, with ``deep`` the SHA-256 too.

    Args:
        where: Path or URL of the store.
        progress: Called with the bytes of every object that has been hashed.

    Raises:
        StoreError: There is no readable manifest, or records or metadata differ from it.
        EnvironmentFailure: The disk or the network fails.
    """
    location = locate(where)
    manifest = read_manifest(location)
    problems = list(object_problems(manifest))
    if deep:
        for record in manifest.records:
            for name, item in record.objects.items():
                whole = manifest.present.get(name) == item.nbytes
                if whole and location.sha256(name, nbytes=item.nbytes) != item.sha256:
                    problems.append(
                        f"{describe(name, record)}: its bytes have changed (SHA-256 differs)"
                    )
                if progress:
                    progress(item.nbytes)
    known = {name for record in manifest.records for name in record.objects}
    extra = sorted(n for n in set(manifest.present) - known if not n.startswith(f"{CONTROL}/"))
    return Verification(
        objects=len(known),
        nbytes=sum(item.nbytes for record in manifest.records for item in record.objects.values()),
        problems=tuple(problems),
        extra=tuple(extra),
    )
