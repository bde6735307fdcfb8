"""Writing: whole units, each by one task, each sealed by a record; the manifest last."""

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import zarr
from jaxtyping import Float32
from zarr.storage import LocalStore

from boxdepth.depthgen.store.arrays import create_array, open_array
from boxdepth.depthgen.store.errors import DataError, StoreError, summarise
from boxdepth.depthgen.store.files import (
    canonical_json,
    fsync_folder,
    seal,
    sha256_file,
    write_atomically,
)
from boxdepth.depthgen.store.layout import (
    dataset_array_specs,
    dataset_arrays,
    per_unit_arrays,
    plan_store,
)
from boxdepth.depthgen.store.lock import hold_lock
from boxdepth.depthgen.store.resume import (
    check_same_inputs,
    clear_store,
    refuse_foreign_folder,
    remove_dataset_objects,
    remove_unsealed,
)
from boxdepth.depthgen.store.schema import (
    CONTROL,
    DATASET_RECORD,
    LOCK,
    MANIFEST,
    RECORDS,
    SCHEMA,
    VERSION,
    Category,
    DepthInfo,
    ImageRecord,
    StoreAttributes,
)
from boxdepth.depthgen.store.seals import is_sealed, unit_key, write_record
from boxdepth.depthgen.store.unit import UnitRows, unit_values


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
            unit
            for unit in range(self.attributes.units)
            if not is_sealed(self.path, unit_key(unit))
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
        values, statistics = unit_values(self.attributes, unit, members, rows)
        group = zarr.open_group(LocalStore(self.path), mode="r+", use_consolidated=False)
        specs = per_unit_arrays(self.attributes)
        for spec in specs:
            length = spec.shards[0] if spec.name == "image/data" and spec.shards else len(members)
            start = unit * (spec.shards or spec.chunks)[0]
            open_array(group, spec)[start : start + length] = values[spec.name]
        objects = seal(self.path, [spec.object_name(unit) for spec in specs])
        record = {
            "unit": unit,
            "image_ids": [record.id for record in members],
            "skipped": {str(key): reason for key, reason in sorted(rows.skipped.items())},
            "depth_range": statistics,
            "remarks": dict(rows.remarks),
        }
        write_record(self.path, unit_key(unit), record, objects)
        return sum(item.nbytes for item in objects.values())

    def skipped(self) -> dict[int, str]:
        """Images that the units sealed so far leave out, with the reason, by image id."""
        records = (
            self.path / RECORDS / f"{unit_key(u)}.json" for u in range(self.attributes.units)
        )
        bodies = (json.loads(file.read_bytes()) for file in records if file.is_file())
        return {int(key): reason for body in bodies for key, reason in body["skipped"].items()}

    def finish(self) -> None:
        """Write the manifest: from now on the store can be read.

        Raises:
            StoreError: Units are missing.
            DataError: Every image was skipped: there is nothing to read.
        """
        if missing := self.pending():
            raise StoreError(f"{self.path}: {len(missing)} units are missing (first: {missing[0]})")
        if len(skipped := self.skipped()) == self.attributes.images:
            reasons = [f"image {number}: {reason}" for number, reason in skipped.items()]
            raise DataError(
                f"{self.path}: not one of its {len(skipped)} images can be used, so there is no "
                f"store; mend them and repeat with --overwrite:\n{summarise(reasons)}"
            )
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
    refuse_foreign_folder(path)
    (path / RECORDS).mkdir(parents=True, exist_ok=True)
    with hold_lock(path / LOCK):
        if overwrite or not (path / RECORDS / f"{DATASET_RECORD}.json").is_file():
            clear_store(path)
        else:
            check_same_inputs(path, attributes)
        if not is_sealed(path, DATASET_RECORD):
            remove_dataset_objects(path)
            _initialise(path, attributes, records, rejected)
        writer = StoreWriter(path, attributes, records)
        if writer.pending():
            (path / MANIFEST).unlink(missing_ok=True)
            remove_unsealed(path)
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
        create_array(group, spec)
    for spec in specs:
        open_array(group, spec)[...] = values[spec.name]
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
    write_record(path, DATASET_RECORD, record, objects)
