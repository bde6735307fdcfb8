"""What a finished store says about itself, checked against the files that are there."""

import json
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxdepth.depthgen.store.errors import StoreError, summarise
from boxdepth.depthgen.store.files import ObjectRecord, sha256_hex
from boxdepth.depthgen.store.schema import (
    CONTROL,
    DATASET_RECORD,
    MANIFEST,
    RECORDS,
    SCHEMA,
    VERSION,
    StoreAttributes,
    attributes_from_json,
)
from boxdepth.depthgen.store.seals import is_plain_name

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
    """

    path: Path
    fingerprint: str
    attributes: StoreAttributes
    dataset: UnitRecord
    units: tuple[UnitRecord, ...]


def read_manifest(path: Path) -> Manifest:
    """Read the manifest and all records, each against its recorded hash.

    Raises:
        StoreError: No store, an unfinished one, another version, or damaged records or metadata.
    """
    body, fingerprint = _read_manifest_file(path)
    problems: list[str] = []
    records: dict[str, dict[str, Any]] = {}
    try:
        if not all(is_plain_name(name) for name in (*body["records"], *body["metadata"])):
            raise ValueError("a name that leads out of the store")
        for name, digest in body["records"].items():
            data = _read_checked(path / RECORDS / name, digest, problems)
            records[name.removesuffix(".json")] = json.loads(data) if data else {}
        for name, digest in body["metadata"].items():
            _read_checked(path / name, digest, problems)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(
            f"{path / MANIFEST}: damaged ({error!r}); repeat the depthgen run"
        ) from error
    if problems:
        raise StoreError(f"{path}: damaged, repeat the depthgen run:\n{summarise(problems)}")
    attributes = attributes_from_json(records[DATASET_RECORD]["attributes"], path=path)
    keys = [f"{unit:06d}" for unit in range(attributes.units)]
    if missing := [key for key in (DATASET_RECORD, *keys) if key not in records]:
        raise StoreError(
            f"{path}: the manifest lacks units {', '.join(missing[:5])}; build it again"
        )
    units = tuple(_unit_record(key, records[key], path) for key in keys)
    if sum(len(unit.image_ids) for unit in units) != attributes.images:
        raise StoreError(f"{path}: the records do not add up to {attributes.images} images")
    return Manifest(
        path=path,
        fingerprint=fingerprint,
        attributes=attributes,
        dataset=_unit_record(DATASET_RECORD, records[DATASET_RECORD], path),
        units=units,
    )


def object_problems(manifest: Manifest) -> Iterator[str]:
    """Objects that are missing, of another size than recorded, or links; with the images they
    hold."""
    folders: set[Path] = set()
    for record in (manifest.dataset, *manifest.units):
        for name, item in record.objects.items():
            path = manifest.path / name
            folders.update(p for p in path.parents if p.is_relative_to(manifest.path))
            try:
                info = path.lstat()
            except OSError:
                yield f"{describe(name, record)}: missing"
                continue
            if not stat.S_ISREG(info.st_mode):
                yield f"{describe(name, record)}: a link or a special file"
            elif info.st_size != item.nbytes:
                yield f"{describe(name, record)}: {info.st_size} bytes, expected {item.nbytes}"
    yield from (
        f"{folder}: a link; copy the files into the store"
        for folder in sorted(folders - {manifest.path})
        if folder.is_symlink()
    )


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


def _read_manifest_file(path: Path) -> tuple[dict[str, Any], str]:
    if not path.is_dir():
        raise StoreError(f"{path}: no such store; make it with `depthgen run --store {path}`")
    if not (path / CONTROL).is_dir():
        raise StoreError(f"{path}: not a boxdepth store (no {CONTROL}/ in it)")
    file = path / MANIFEST
    if not file.is_file():
        done = sum(1 for entry in (path / RECORDS).glob("*.json") if entry.stem != DATASET_RECORD)
        raise StoreError(
            f"{path}: unfinished ({done}{_of_units(path)} units are done); "
            "repeat the same `depthgen run` to go on"
        )
    if file.stat().st_size > _MAX_CONTROL_BYTES:
        raise StoreError(f"{file}: larger than {_MAX_CONTROL_BYTES} bytes; not a manifest")
    data = file.read_bytes()
    try:
        body = json.loads(data)
        schema, version = body["schema"], body["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file}: damaged ({error!r}); repeat the depthgen run") from error
    if schema != SCHEMA or version != VERSION:
        raise StoreError(
            f"{path}: format {schema!r} version {version!r}, this reader knows {SCHEMA!r} version "
            f"{VERSION}; use the matching release of boxdepth-depthgen"
        )
    return body, sha256_hex(data)


def _of_units(path: Path) -> str:
    try:
        record = json.loads((path / RECORDS / f"{DATASET_RECORD}.json").read_bytes())
        return f" of {attributes_from_json(record['attributes'], path=path).units}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _read_checked(path: Path, digest: str, problems: list[str]) -> bytes:
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_CONTROL_BYTES:
            problems.append(f"{path}: a link, or too large")
            return b""
        data = path.read_bytes()
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
        return b""
    if sha256_hex(data) != digest:
        problems.append(f"{path}: its hash differs from the manifest's")
    return data


def _unit_record(key: str, body: Mapping[str, Any], path: Path) -> UnitRecord:
    try:
        if not all(is_plain_name(name) for name in body["objects"]):
            raise ValueError("a name that leads out of the store")
        return UnitRecord(
            key=key,
            objects={
                str(name): ObjectRecord(nbytes=item["nbytes"], sha256=item["sha256"])
                for name, item in body["objects"].items()
            },
            image_ids=tuple(body.get("image_ids", ())),
            skipped={int(image): reason for image, reason in body.get("skipped", {}).items()},
            remarks=dict(body.get("remarks", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path}: damaged record {key} ({error!r}); build it again") from error
