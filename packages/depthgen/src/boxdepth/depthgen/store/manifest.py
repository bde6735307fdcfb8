"""What a finished store says about itself, checked against the objects that are there."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boxdepth.depthgen.store.canonical import sha256_hex
from boxdepth.depthgen.store.errors import EnvironmentFailure, StoreError, summarise
from boxdepth.depthgen.store.location import NOT_A_FILE, Location
from boxdepth.depthgen.store.records import (
    ObjectRecord,
    is_plain_name,
    record_name,
    unit_key,
)
from boxdepth.depthgen.store.schema import (
    ARRAYS,
    CONTROL,
    DATASET_RECORD,
    MANIFEST,
    RECORDS,
    SCHEMA,
    VERSION,
    StoreAttributes,
    attributes_from_json,
)

_MAX_CONTROL_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRecord:
    """The record of one unit (or of the dataset's own arrays): its objects and its images."""

    key: str
    objects: Mapping[str, ObjectRecord]
    image_ids: tuple[int, ...]
    skipped: Mapping[int, str]
    remarks: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A finished store's manifest with everything it vouches for.

    Attributes:
        fingerprint: SHA-256 of the manifest file: equal stores have equal fingerprints.
        metadata: The bytes of every ``zarr.json``, by name.
        present: The size of every object that was there when the manifest was read.
    """

    location: Location
    fingerprint: str
    attributes: StoreAttributes
    dataset: UnitRecord
    units: tuple[UnitRecord, ...]
    metadata: Mapping[str, bytes]
    present: Mapping[str, int]

    @property
    def records(self) -> tuple[UnitRecord, ...]:
        """All records, the dataset's first."""
        return (self.dataset, *self.units)


def read_manifest(location: Location) -> Manifest:
    """Read the manifest and all records, each against its recorded hash.

    Raises:
        StoreError: No store, an unfinished one, another version, or damaged records or metadata.
        EnvironmentFailure: The disk or the network fails.
    """
    body, fingerprint = _read_manifest_file(location)
    damaged = f"{location}/{MANIFEST}: damaged"
    try:
        hashes = {f"{RECORDS}/{name}": str(digest) for name, digest in body["records"].items()}
        hashes |= {name: str(digest) for name, digest in body["metadata"].items()}
        if not all(is_plain_name(name) for name in hashes):
            raise ValueError("a name that leads out of the store")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(f"{damaged} ({error!r}); repeat the depthgen run") from error
    present = location.sizes()
    read = _read_checked(location, hashes, present)
    try:
        records = {name: json.loads(read[f"{RECORDS}/{name}"]) for name in body["records"]}
    except ValueError as error:
        raise StoreError(f"{damaged} ({error!r}); repeat the depthgen run") from error
    metadata = {name: read[name] for name in body["metadata"]}
    attributes = _attributes(location, records)
    if len(records) != attributes.units + 1:
        raise StoreError(
            f"{location}: the manifest names {len(records) - 1} units, the store has "
            f"{attributes.units}; build it again"
        )
    keys = [unit_key(unit) for unit in range(attributes.units)]
    if missing := [key for key in keys if f"{key}.json" not in records]:
        raise StoreError(
            f"{location}: the manifest lacks units {', '.join(missing[:5])}; build it again"
        )
    units = tuple(_unit_record(key, records[f"{key}.json"], location) for key in keys)
    _check_arrays(location, attributes, units)
    if sum(len(unit.image_ids) for unit in units) != attributes.images:
        raise StoreError(f"{location}: the records do not add up to {attributes.images} images")
    return Manifest(
        location=location,
        fingerprint=fingerprint,
        attributes=attributes,
        dataset=_unit_record(DATASET_RECORD, records[f"{DATASET_RECORD}.json"], location),
        units=units,
        metadata=metadata,
        present=present,
    )


def _attributes(location: Location, records: Mapping[str, Any]) -> StoreAttributes:
    try:
        written = records[f"{DATASET_RECORD}.json"]["attributes"]
    except (KeyError, TypeError) as error:
        raise StoreError(f"{location}: no dataset record, or damaged; build it again") from error
    return attributes_from_json(written, path=location)


def _check_arrays(
    location: Location, attributes: StoreAttributes, units: Sequence[UnitRecord]
) -> None:
    """Every unit has its part of each array that is written even where it is all zeros."""
    arrays = {a.name for a in ARRAYS if a.per_unit and a.whole and a.belongs_to(attributes)}
    for unit in units:
        if missing := arrays - {name.split("/c/")[0] for name in unit.objects}:
            raise StoreError(
                f"{location}: record {unit.key} names no object of {', '.join(sorted(missing))}; "
                "build it again"
            )


def object_problems(manifest: Manifest) -> Iterator[str]:
    """Objects that are missing, of another size than recorded, or links; with the images they
    hold."""
    present = manifest.present
    links = {name for name, nbytes in present.items() if nbytes == NOT_A_FILE}
    for record in manifest.records:
        for name, item in record.objects.items():
            if name in links:
                yield f"{describe(name, record)}: a link or a special file"
            elif name not in present:
                yield f"{describe(name, record)}: missing"
            elif present[name] != item.nbytes:
                yield f"{describe(name, record)}: {present[name]} bytes, expected {item.nbytes}"
    known = {name for record in manifest.records for name in record.objects}
    for link in sorted(links - known):
        if any(name.startswith(f"{link}/") for name in known):
            yield f"{manifest.location}/{link}: a link; copy the files into the store"


def describe(name: str, record: UnitRecord) -> str:
    """Name an object in words: array, shard, and the images that it holds."""
    if name.endswith("zarr.json"):
        return f"metadata {name}"
    array = name.split("/c/")[0]
    if not record.image_ids:
        return f"array {array} ({name})"
    return (
        f"array {array}, shard {int(record.key)} ({name}), "
        f"images {record.image_ids[0]}..{record.image_ids[-1]} ({len(record.image_ids)})"
    )


def _read_manifest_file(location: Location) -> tuple[dict[str, Any], str]:
    if not location.exists(MANIFEST):
        raise StoreError(_why_no_manifest(location))
    data = location.read(MANIFEST, limit=_MAX_CONTROL_BYTES)
    try:
        body = json.loads(data)
        schema, version = body["schema"], body["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(
            f"{location}/{MANIFEST}: damaged ({error!r}); repeat the depthgen run"
        ) from error
    if schema != SCHEMA or version != VERSION:
        raise StoreError(
            f"{location}: format {schema!r} version {version!r}, this reader knows {SCHEMA!r} "
            f"version {VERSION}; use the matching release of boxdepth-depthgen"
        )
    return body, sha256_hex(data)


def _why_no_manifest(location: Location) -> str:
    control = location.sizes(f"{CONTROL}/")
    if not control:
        if location.is_empty():
            return f"{location}: no such store; make it with `depthgen run --store {location}`"
        return f"{location}: not a boxdepth store (no {CONTROL}/ in it)"
    done = sum(1 for name in control if name.startswith(f"{RECORDS}/") and name[-11:-5].isdecimal())
    return (
        f"{location}: unfinished ({done}{_of_units(location)} units are done); "
        "repeat the same `depthgen run` to go on"
    )


def _of_units(location: Location) -> str:
    try:
        record = json.loads(location.read(record_name(DATASET_RECORD), limit=_MAX_CONTROL_BYTES))
        return f" of {attributes_from_json(record['attributes'], path=location).units}"
    except EnvironmentFailure:
        raise
    except (ValueError, KeyError, TypeError):
        return ""


def _read_checked(
    location: Location, hashes: Mapping[str, str], present: Mapping[str, int]
) -> dict[str, bytes]:
    """Objects against the hashes that the manifest has of them."""
    problems, read = [], {}
    for name in hashes:
        if not 0 <= present.get(name, NOT_A_FILE) <= _MAX_CONTROL_BYTES:
            state = "a link, or too large" if name in present else "missing"
            problems.append(f"{location}/{name}: {state}")
    wanted = [] if problems else list(hashes)
    for name, data in zip(wanted, location.read_all(wanted), strict=True):
        read[name] = data
        if sha256_hex(data) != hashes[name]:
            problems.append(f"{location}/{name}: its hash differs from the manifest's")
    if problems:
        raise StoreError(f"{location}: damaged, repeat the depthgen run:\n{summarise(problems)}")
    return read


def _unit_record(key: str, body: Mapping[str, Any], location: Location) -> UnitRecord:
    try:
        if not all(is_plain_name(name) for name in body["objects"]):
            raise ValueError("a name that leads out of the store")
        return UnitRecord(
            key=key,
            objects={
                str(name): ObjectRecord(nbytes=int(item["nbytes"]), sha256=str(item["sha256"]))
                for name, item in body["objects"].items()
            },
            image_ids=tuple(int(image) for image in body.get("image_ids", ())),
            skipped={int(image): str(reason) for image, reason in body.get("skipped", {}).items()},
            remarks=dict(body.get("remarks", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{location}: damaged record {key} ({error!r}); build it again") from error
