"""The record of a unit: written last, it says that the unit is whole."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from boxdepth.depthgen.store.canonical import canonical_json, sha256_hex
from boxdepth.depthgen.store.location import Location
from boxdepth.depthgen.store.schema import RECORDS


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRecord:
    """What a record remembers of one object: its size in bytes and its SHA-256."""

    nbytes: int
    sha256: str


def unit_key(unit: int) -> str:
    """The name of a unit's record."""
    return f"{unit:06d}"


def record_name(key: str) -> str:
    """The object that holds the record ``key``."""
    return f"{RECORDS}/{key}.json"


def write_sealed(
    location: Location, key: str, record: Mapping[str, Any], objects: Mapping[str, bytes]
) -> int:
    """Write objects, and then the record that vouches for them.

    Returns:
        Bytes of the objects.
    """
    described = {}
    for name, data in objects.items():
        location.write(name, data)
        described[name] = asdict(ObjectRecord(nbytes=len(data), sha256=sha256_hex(data)))
    location.write(record_name(key), canonical_json(dict(record) | {"objects": described}))
    return sum(len(data) for data in objects.values())


def sealed_records(location: Location, keys: Iterable[str]) -> dict[str, bytes]:
    """The records, as they lie there, whose objects are all present in their recorded size."""
    present = location.sizes()
    there = [key for key in keys if present.get(record_name(key), -1) >= 0]
    bodies = location.read_all(record_name(key) for key in there)
    return {key: data for key, data in zip(there, bodies, strict=True) if _is_whole(data, present)}


def is_plain_name(name: object) -> bool:
    """True for a relative path that stays below the folder it is joined to."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def object_names(record: bytes) -> list[str]:
    """The objects of a record that may be damaged: only names that stay inside the store."""
    try:
        return [name for name in json.loads(record)["objects"] if is_plain_name(name)]
    except (ValueError, KeyError, TypeError):
        return []


def _is_whole(record: bytes, present: Mapping[str, int]) -> bool:
    try:
        objects = json.loads(record)["objects"].items()
        return all(
            is_plain_name(name) and present[name] == item["nbytes"] for name, item in objects
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
