"""Before writing: is this our store, from the same inputs, and what of it is to be kept?"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boxdepth.depthgen.store.errors import StoreError, StoreMismatchError
from boxdepth.depthgen.store.files import sha256_hex
from boxdepth.depthgen.store.schema import (
    CONTROL,
    DATASET_RECORD,
    LOCK,
    MANIFEST,
    RECORDS,
    StoreAttributes,
)
from boxdepth.depthgen.store.seals import is_plain_name, is_sealed


def refuse_foreign_folder(path: Path) -> None:
    """Nothing of anybody's is ever removed or mixed with a store.

    Raises:
        StoreError: ``path`` holds something that is not a store.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise StoreError(f"{path}: not a folder; name another place for the store")
    if path.is_dir() and any(path.iterdir()) and not (path / CONTROL).is_dir():
        raise StoreError(
            f"{path}: the folder is not empty and is not a boxdepth store; name another place"
        )


def clear_store(path: Path) -> None:
    """Empty the store but for its lock, manifest first: at no moment is half a store readable."""
    (path / MANIFEST).unlink(missing_ok=True)
    (path / RECORDS / f"{DATASET_RECORD}.json").unlink(missing_ok=True)
    for entry in sorted(path.iterdir()):
        if entry.name == CONTROL:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    for entry in (path / RECORDS).iterdir():
        entry.unlink()


def remove_unsealed(path: Path) -> None:
    """Remove temporaries, and objects and records of units that are not sealed."""
    keep = {path / LOCK}
    for file in (path / RECORDS).glob("*.json"):
        if is_sealed(path, file.stem):
            keep.add(file)
            keep.update(path / name for name in json.loads(file.read_bytes())["objects"])
    for file in sorted(path.rglob("*")):
        if (file.is_file() or file.is_symlink()) and file not in keep and file.name != "zarr.json":
            file.unlink()


def remove_dataset_objects(path: Path) -> None:
    """Remove what ``_initialise`` writes; the units stay."""
    record = path / RECORDS / f"{DATASET_RECORD}.json"
    if record.is_file():
        for name in filter(is_plain_name, json.loads(record.read_bytes())["objects"]):
            (path / name).unlink(missing_ok=True)
        record.unlink()
    for file in sorted(path.rglob("zarr.json")):
        file.unlink()


def check_same_inputs(path: Path, attributes: StoreAttributes) -> None:
    """Compare a run's inputs with those that the store was started from.

    Raises:
        StoreMismatchError: They differ; the message lists how.
        StoreError: The store's own account of them is damaged.
    """
    try:
        record = json.loads((path / RECORDS / f"{DATASET_RECORD}.json").read_bytes())
        before = record["attributes"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: damaged dataset record; repeat with --overwrite") from error
    differences = list(_differences(before, attributes.to_json()))
    if differences:
        raise StoreMismatchError(
            f"{path}: this store was started from other inputs: {'; '.join(differences)}. "
            "Give another --store, the inputs of before, or --overwrite"
        )


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(set(before) | set(now)):
            if key != "config_hash":
                inner = f"{name}.{key}" if name else key
                yield from _differences(before.get(key), now.get(key), inner)
    elif before != now:
        yield f"{name} was {_short(before)}, is {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({sha256_hex(text.encode())[:8]})"
