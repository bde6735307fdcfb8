"""Before writing: is this our store, from the same inputs, and what of it is to be kept?"""

import json
from collections.abc import Iterator
from typing import Any

from boxdepth.depthgen.store.canonical import sha256_hex
from boxdepth.depthgen.store.errors import StoreError, StoreMismatchError
from boxdepth.depthgen.store.location import Location
from boxdepth.depthgen.store.records import object_names, record_name, sealed_records
from boxdepth.depthgen.store.schema import DATASET_RECORD, LOCK, MANIFEST, RECORDS, StoreAttributes


def clear_store(location: Location) -> None:
    """Empty the store but for its lock, manifest first: at no moment is half a store readable."""
    location.remove([MANIFEST])
    location.remove([record_name(DATASET_RECORD)])
    location.remove(name for name in location.sizes() if name != LOCK)


def remove_unsealed(location: Location) -> None:
    """Remove temporaries, and objects and records of units that are not sealed."""
    present = location.sizes()
    prefix, suffix = f"{RECORDS}/", ".json"
    keys = [
        name.removeprefix(prefix).removesuffix(suffix)
        for name in present
        if name.startswith(prefix) and name.endswith(suffix)
    ]
    keep = {LOCK}
    for key, record in sealed_records(location, keys).items():
        keep.add(record_name(key))
        keep.update(object_names(record))
    metadata = {name for name in present if name.rpartition("/")[2] == "zarr.json"}
    location.remove(sorted(set(present) - keep - metadata))


def remove_dataset_objects(location: Location) -> None:
    """Remove what was written before the first unit; the units stay."""
    name = record_name(DATASET_RECORD)
    if location.exists(name):
        location.remove([*object_names(location.read(name)), name])
    location.remove(name for name in location.sizes() if name.rpartition("/")[2] == "zarr.json")


def check_same_inputs(location: Location, attributes: StoreAttributes) -> None:
    """Compare a run's inputs with those that the store was started from.

    Raises:
        StoreMismatchError: They differ; the message lists how.
        StoreError: The store's own account of them is damaged.
    """
    record = location.read(record_name(DATASET_RECORD))
    try:
        before = json.loads(record)["attributes"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{location}: damaged dataset record; repeat with --overwrite") from error
    differences = list(_differences(before, attributes.to_json()))
    if differences:
        raise StoreMismatchError(
            f"{location}: this store was started from other inputs: {'; '.join(differences)}. "
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
