"""The record of a unit: written last, it says that the unit is whole."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from boxdepth.depthgen.store.files import ObjectRecord, canonical_json, write_atomically
from boxdepth.depthgen.store.schema import RECORDS


def unit_key(unit: int) -> str:
    """The name of a unit's record."""
    return f"{unit:06d}"


def write_record(
    path: Path, key: str, record: Mapping[str, Any], objects: Mapping[str, ObjectRecord]
) -> None:
    """Write the record of a unit whose objects are on disk."""
    body = dict(record) | {"objects": {name: asdict(item) for name, item in objects.items()}}
    write_atomically(path / RECORDS / f"{key}.json", canonical_json(body))


def is_plain_name(name: object) -> bool:
    """True for a relative path that stays below the folder it is joined to."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def is_sealed(path: Path, key: str) -> bool:
    """True if there is a record and every object in it is there in its size."""
    try:
        record = json.loads((path / RECORDS / f"{key}.json").read_bytes())
        return all(
            is_plain_name(name) and (path / name).stat().st_size == item["nbytes"]
            for name, item in record["objects"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
