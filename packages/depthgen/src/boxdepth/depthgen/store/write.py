"""Writing: whole units, each by one task, each sealed by a record; the manifest last."""

import json
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import google_crc32c
import numpy as np
import zarr
from jaxtyping import Float32
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore

from boxdepth.depthgen.store.depth import quantise
from boxdepth.depthgen.store.errors import DataError, StoreError, StoreMismatchError
from boxdepth.depthgen.store.files import (
    ObjectRecord,
    canonical_json,
    fsync_folder,
    seal,
    sha256_file,
    sha256_hex,
    write_atomically,
)
from boxdepth.depthgen.store.lock import hold_lock
from boxdepth.depthgen.store.schema import (
    CONTROL,
    DATASET_RECORD,
    LOCK,
    MANIFEST,
    RECORDS,
    SCHEMA,
    VERSION,
    ArraySpec,
    Category,
    DepthInfo,
    ImageRecord,
    StoreAttributes,
    dataset_array_specs,
    dataset_arrays,
    per_unit_arrays,
    plan_store,
)

_COMPRESSORS: Mapping[str, tuple[Any, ...]] = {
    "none": (),
    "zstd": (ZstdCodec(level=3), Crc32cCodec()),
    # typesize is written out: zarr would fill it in from the dtype, but only when the array is
    # created.
    "blosc": (
        BloscCodec(typesize=2, cname="zstd", clevel=3, shuffle="bitshuffle", blocksize=0),
        Crc32cCodec(),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRows:
    """Everything that one unit stores, row by row.

    Attributes:
        images: Bytes of every image file; ``None`` for an image that is skipped.
        depth: Depth on the store's grid; ``None`` where there is none.
        skipped: Reasons, by image id.
        remarks: What else the record should remember (JSON).
    """

    images: Sequence[bytes | None]
    depth: Sequence[Float32[np.ndarray, "rows columns"] | None]
    skipped: Mapping[int, str] = field(default_factory=dict)
    remarks: Mapping[str, Any] = field(default_factory=dict)


@final
class StoreWriter:
    """A store under its lock. Use ``open_writer``."""

    def __init__(
        self, path: Path, attributes: StoreAttributes, records: Sequence[ImageRecord]
    ) -> None:
        self.path = path
        self.attributes = attributes
        self._records = records

    @property
    def finished(self) -> bool:
        """True if the manifest is there."""
        return (self.path / MANIFEST).is_file()

    def rows(self, unit: int) -> range:
        """The rows that belong to ``unit``."""
        size = self.attributes.unit
        return range(unit * size, min((unit + 1) * size, self.attributes.images))

    def pending(self) -> tuple[int, ...]:
        """Units that have no record yet, or whose objects are not of the recorded size."""
        return tuple(
            unit for unit in range(self.attributes.units) if not _is_sealed(self.path, _key(unit))
        )

    def write_unit(self, unit: int, rows: UnitRows) -> int:
        """Write one unit, all arrays together, and seal it with its record.

        Returns:
            Bytes written.

        Raises:
            DataError: The unit's images hold more bytes than planned: a file has changed meanwhile.
            OSError: The disk is full, or fails.
        """
        members = [self._records[row] for row in self.rows(unit)]
        values, statistics = _unit_values(self.attributes, unit, members, rows)
        group = zarr.open_group(LocalStore(self.path), mode="r+", use_consolidated=False)
        specs = per_unit_arrays(self.attributes)
        for spec in specs:
            length = spec.shards[0] if spec.name == "image/data" and spec.shards else len(members)
            start = unit * (spec.shards or spec.chunks)[0]
            _array(group, spec)[start : start + length] = values[spec.name]
        objects = seal(self.path, [spec.object_name(unit) for spec in specs])
        record = {
            "unit": unit,
            "image_ids": [record.id for record in members],
            "skipped": {str(key): reason for key, reason in sorted(rows.skipped.items())},
            "depth_range": statistics,
            "remarks": dict(rows.remarks),
        }
        _write_record(self.path, _key(unit), record, objects)
        return sum(item.nbytes for item in objects.values())

    def finish(self) -> None:
        """Write the manifest: from now on the store can be read.

        Raises:
            StoreError: Units are missing.
        """
        if missing := self.pending():
            raise StoreError(f"{self.path}: {len(missing)} units are missing (first: {missing[0]})")
        records = {
            file.name: sha256_file(file) for file in sorted((self.path / RECORDS).glob("*.json"))
        }
        metadata = {
            file.relative_to(self.path).as_posix(): sha256_file(file)
            for file in sorted(self.path.rglob("zarr.json"))
        }
        manifest = {
            "schema": SCHEMA,
            "version": VERSION,
            "units": self.attributes.units,
            "images": self.attributes.images,
            "boxes": self.attributes.boxes,
            "config_hash": self.attributes.to_json()["config_hash"],
            "records": records,
            "metadata": metadata,
        }
        write_atomically(self.path / MANIFEST, canonical_json(manifest))


@contextmanager
def open_writer(
    path: Path,
    attributes: StoreAttributes,
    records: Sequence[ImageRecord],
    *,
    overwrite: bool = False,
    rejected: Sequence[str] = (),
) -> Iterator[StoreWriter]:
    """Create the store, or take up again one that was started from the same inputs.

    What an interrupted run left without a record is removed; sealed units stay.

    Args:
        overwrite: Start anew, whatever the store holds.
        rejected: Annotations that were left out while reading; the store remembers them.

    Raises:
        StoreBusyError: Another process is writing there.
        StoreMismatchError: The store was started from other inputs; the message lists them.
        StoreError: ``path`` holds something that is not a store.
    """
    _refuse_foreign_folder(path)
    (path / RECORDS).mkdir(parents=True, exist_ok=True)
    with hold_lock(path / LOCK):
        if overwrite or not (path / RECORDS / f"{DATASET_RECORD}.json").is_file():
            _clear(path)
        else:
            _check_same_inputs(path, attributes)
        if not _is_sealed(path, DATASET_RECORD):
            _remove_dataset_objects(path)
            _initialise(path, attributes, records, rejected)
        writer = StoreWriter(path, attributes, records)
        if writer.pending():
            (path / MANIFEST).unlink(missing_ok=True)
            _remove_unsealed(path)
        yield writer


def write_store(
    path: Path | str,
    records: Sequence[ImageRecord],
    *,
    images: Sequence[bytes],
    depth: Sequence[Float32[np.ndarray, "rows columns"] | None],
    categories: Sequence[Category],
    depth_info: DepthInfo | None = None,
    dataset: str = "custom",
    split: str = "train",
    unit: int = 256,
    generator: Mapping[str, Any] | None = None,
    masks: bool = False,
) -> Path:
    """Write a whole store from what is in memory, by the same protocol as a long run.

    Args:
        records: One record an image, in the order of the rows.
        images: The bytes of every image file (JPEG or PNG).
        depth: One map an image in the sense of ``depth_info``, all on its grid; ``None`` = invalid.
        categories: Classes in the order of the records' labels.
        depth_info: Meaning of the depth; by default relative inverse depth on the first map's grid.
        masks: Store the records' masks too.

    Returns:
        The path of the finished store.
    """
    if depth_info is None:
        grid = next((item.shape for item in depth if item is not None), DepthInfo().grid)
        depth_info = DepthInfo(grid=(grid[0], grid[1]))
    attributes = plan_store(
        list(records),
        dataset=dataset,
        split=split,
        categories=tuple(categories),
        image_nbytes=np.array([len(data) for data in images], dtype=np.int64),
        depth=depth_info,
        generator=generator or {"model": "given"},
        unit=unit,
        masks=masks,
    )
    with open_writer(Path(path), attributes, records) as writer:
        for index in writer.pending():
            rows = writer.rows(index)
            part = slice(rows.start, rows.stop)
            writer.write_unit(index, UnitRows(images=images[part], depth=depth[part]))
        writer.finish()
    return Path(path)


def _key(unit: int) -> str:
    return f"{unit:06d}"


def _array(group: zarr.Group, spec: ArraySpec) -> zarr.Array:
    array = group[spec.name]
    assert isinstance(array, zarr.Array)
    # A column of zeros is written too: an object that must exist cannot go missing unseen.
    return array.with_config({"write_empty_chunks": spec.shards is None})


def _unit_values(
    attributes: StoreAttributes, unit: int, members: Sequence[ImageRecord], rows: UnitRows
) -> tuple[dict[str, np.ndarray], list[list[float] | None]]:
    count, (height, width) = len(members), attributes.depth.grid
    values: dict[str, np.ndarray] = {
        "image/data": np.zeros(attributes.image_capacity, dtype=np.uint8),
        "image/start": np.zeros(count, dtype=np.int64),
        "image/nbytes": np.zeros(count, dtype=np.uint32),
        "image/crc32c": np.zeros(count, dtype=np.uint32),
        "depth/q": np.zeros((count, height, width), dtype=np.uint16),
        "depth/scale": np.full(count, np.nan, dtype=np.float32),
        "depth/offset": np.full(count, np.nan, dtype=np.float32),
        "depth/valid": np.zeros(count, dtype=np.uint8),
    }
    statistics: list[list[float] | None] = []
    position = 0
    for row, (data, depth) in enumerate(zip(rows.images, rows.depth, strict=True)):
        data = data or b""
        if position + len(data) > attributes.image_capacity:
            raise DataError(
                f"unit {unit}: its images hold more bytes than when the run was planned; a file "
                "up to "
                f"{members[row].name!a} has changed: start again with --overwrite"
            )
        values["image/data"][position : position + len(data)] = np.frombuffer(data, np.uint8)
        values["image/start"][row] = unit * attributes.image_capacity + position
        values["image/nbytes"][row] = len(data)
        values["image/crc32c"][row] = google_crc32c.value(data)
        position += len(data)
        quantised = None if depth is None else quantise(depth, bits=attributes.depth.bits)
        statistics.append(None)
        if depth is not None and quantised is not None:
            values["depth/q"][row], values["depth/scale"][row], values["depth/offset"][row] = (
                quantised
            )
            values["depth/valid"][row] = 1
            statistics[row] = [float(depth.min()), float(depth.max())]
    return values, statistics


def _write_record(
    path: Path, key: str, record: Mapping[str, Any], objects: Mapping[str, ObjectRecord]
) -> None:
    body = dict(record) | {"objects": {name: asdict(item) for name, item in objects.items()}}
    write_atomically(path / RECORDS / f"{key}.json", canonical_json(body))


def _is_sealed(path: Path, key: str) -> bool:
    try:
        record = json.loads((path / RECORDS / f"{key}.json").read_bytes())
        return all(
            (path / name).stat().st_size == item["nbytes"]
            for name, item in record["objects"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _refuse_foreign_folder(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise StoreError(f"{path}: not a folder; name another place for the store")
    if path.is_dir() and any(path.iterdir()) and not (path / CONTROL).is_dir():
        raise StoreError(
            f"{path}: the folder is not empty and is not a boxdepth store; name another place"
        )


def _clear(path: Path) -> None:
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


def _remove_unsealed(path: Path) -> None:
    """Remove temporaries, and objects and records of units that are not sealed."""
    keep = {path / LOCK}
    for file in (path / RECORDS).glob("*.json"):
        if _is_sealed(path, file.stem):
            keep.add(file)
            keep.update(path / name for name in json.loads(file.read_bytes())["objects"])
    for file in sorted(path.rglob("*")):
        if (file.is_file() or file.is_symlink()) and file not in keep and file.name != "zarr.json":
            file.unlink()


def _remove_dataset_objects(path: Path) -> None:
    """Remove what ``_initialise`` writes; the units stay."""
    record = path / RECORDS / f"{DATASET_RECORD}.json"
    if record.is_file():
        for name in json.loads(record.read_bytes())["objects"]:
            (path / name).unlink(missing_ok=True)
        record.unlink()
    for file in sorted(path.rglob("zarr.json")):
        file.unlink()


def _initialise(
    path: Path,
    attributes: StoreAttributes,
    records: Sequence[ImageRecord],
    rejected: Sequence[str],
) -> None:
    store = LocalStore(path)
    group = zarr.create_group(store, attributes=attributes.to_json())
    values = dataset_arrays(list(records), masks=attributes.masks)
    specs = dataset_array_specs(attributes, values)
    for spec in (*per_unit_arrays(attributes), *specs):
        _create_array(group, spec)
    for spec in specs:
        _array(group, spec)[...] = values[spec.name]
    with warnings.catch_warnings():
        # zarr warns that consolidated metadata is an extension; it is optional for readers.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(store)
    names = [file.relative_to(path).as_posix() for file in path.rglob("zarr.json")]
    for spec in specs:
        chunks = math.prod(-(-side // c) for side, c in zip(spec.shape, spec.chunks, strict=True))
        names += [spec.object_name(index) for index in range(chunks)]
    objects = seal(path, names)
    fsync_folder(path.parent)
    fsync_folder(path / CONTROL)
    record = {"attributes": attributes.to_json(), "rejected": list(rejected)}
    _write_record(path, DATASET_RECORD, record, objects)


def _create_array(group: zarr.Group, spec: ArraySpec) -> None:
    group.create_array(
        spec.name,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=spec.chunks,
        shards=spec.shards,
        compressors=_COMPRESSORS[spec.compression] or None,
        fill_value=spec.fill,
    )


def _check_same_inputs(path: Path, attributes: StoreAttributes) -> None:
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
