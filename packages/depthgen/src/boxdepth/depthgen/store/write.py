"""Writing: whole units, each by one task, each sealed by a record; the manifest last."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
from jaxtyping import Float32

from boxdepth.depthgen.store.canonical import canonical_json, sha256_hex
from boxdepth.depthgen.store.errors import DataError, StoreError, summarise
from boxdepth.depthgen.store.layout import encode_dataset, encode_unit, per_unit_layouts
from boxdepth.depthgen.store.location import Location, locate
from boxdepth.depthgen.store.plan import dataset_arrays, plan_store
from boxdepth.depthgen.store.records import record_name, sealed_records, unit_key, write_sealed
from boxdepth.depthgen.store.resume import (
    check_same_inputs,
    clear_store,
    remove_dataset_objects,
    remove_unsealed,
)
from boxdepth.depthgen.store.schema import (
    DATASET_RECORD,
    MANIFEST,
    SCHEMA,
    VERSION,
    Category,
    DepthInfo,
    ImageRecord,
    StoreAttributes,
)
from boxdepth.depthgen.store.unit import UnitRows, unit_values

Where = TypeVar("Where", Path, str)


def write_unit(
    location: Location,
    attributes: StoreAttributes,
    unit: int,
    members: Sequence[ImageRecord],
    rows: UnitRows,
) -> int:
    """Write one unit, all arrays together, and seal it with its record.

    Needs no lock: a unit's bytes follow from its inputs alone, and every write is atomic, so that
    a task which runs twice, even at the same time, leaves what one would have left.

    Returns:
        Bytes written.

    Raises:
        DataError: The unit's images hold more bytes than planned: a file has changed meanwhile.
        StoreMismatchError: The store has been started anew from other inputs meanwhile.
        EnvironmentFailure: The disk is full, or it or the network fails.
    """
    check_same_inputs(location, attributes)
    values, statistics = unit_values(attributes, unit, members, rows)
    objects = encode_unit(per_unit_layouts(attributes), values, unit=unit)
    record = {
        "unit": unit,
        "image_ids": [member.id for member in members],
        "skipped": {str(key): reason for key, reason in sorted(rows.skipped.items())},
        "depth_range": statistics,
        "remarks": dict(rows.remarks),
    }
    return write_sealed(location, unit_key(unit), record, objects)


@final
class StoreWriter:
    """A store under its lock. Use ``open_writer``."""

    def __init__(
        self,
        location: Location,
        attributes: StoreAttributes,
        records: Sequence[ImageRecord],
        *,
        check_lock: Callable[[], None],
    ) -> None:
        self.location = location
        self.attributes = attributes
        self._records = records
        self._check_lock = check_lock

    @property
    def finished(self) -> bool:
        """True if the manifest is there."""
        return self.location.exists(MANIFEST)

    def rows(self, unit: int) -> range:
        """The rows that belong to ``unit``."""
        size = self.attributes.unit
        return range(unit * size, min((unit + 1) * size, self.attributes.images))

    def members(self, unit: int) -> list[ImageRecord]:
        """The images that belong to ``unit``."""
        return [self._records[row] for row in self.rows(unit)]

    def pending(self) -> tuple[int, ...]:
        """Units that have no record yet, or whose objects are not of the recorded size."""
        sealed = self._sealed()
        return tuple(u for u in range(self.attributes.units) if unit_key(u) not in sealed)

    def write_unit(self, unit: int, rows: UnitRows) -> int:
        """See the function of this name.

        Raises:
            StoreBusyError: Another writer has taken over.
        """
        self._check_lock()
        return write_unit(self.location, self.attributes, unit, self.members(unit), rows)

    def skipped(self) -> dict[int, str]:
        """Images that the units sealed so far leave out, with the reason, by image id."""
        return _skipped(self._sealed())

    def finish(self) -> None:
        """Write the manifest: from now on the store can be read.

        Raises:
            StoreError: Units are missing.
            DataError: Every image was skipped: there is nothing to read.
            StoreBusyError: Another writer has taken over.
        """
        keys = [unit_key(unit) for unit in range(self.attributes.units)]
        sealed = sealed_records(self.location, [DATASET_RECORD, *keys])
        if missing := [key for key in (DATASET_RECORD, *keys) if key not in sealed]:
            raise StoreError(
                f"{self.location}: {len(missing)} units are missing (first: {missing[0]})"
            )
        metadata = {
            name: item["sha256"]
            for name, item in json.loads(sealed[DATASET_RECORD])["objects"].items()
            if name.rpartition("/")[2] == "zarr.json"
        }
        skipped = _skipped({key: sealed[key] for key in keys})
        if len(skipped) == self.attributes.images:
            reasons = [f"image {number}: {reason}" for number, reason in skipped.items()]
            raise DataError(
                f"{self.location}: not one of its {len(skipped)} images can be used, so there is "
                f"no store; mend them and repeat with --overwrite:\n{summarise(reasons)}"
            )
        manifest = {
            "schema": SCHEMA,
            "version": VERSION,
            "units": self.attributes.units,
            "images": self.attributes.images,
            "boxes": self.attributes.boxes,
            "config_hash": self.attributes.to_json()["config_hash"],
            "records": {f"{key}.json": sha256_hex(data) for key, data in sealed.items()},
            "metadata": metadata,
        }
        self._check_lock()
        self.location.write(MANIFEST, canonical_json(manifest))

    def _sealed(self) -> dict[str, bytes]:
        return sealed_records(self.location, (unit_key(u) for u in range(self.attributes.units)))


@contextmanager
def open_writer(
    where: Path | str | Location,
    attributes: StoreAttributes,
    records: Sequence[ImageRecord],
    *,
    overwrite: bool = False,
    rejected: Sequence[str] = (),
) -> Iterator[StoreWriter]:
    """Create the store, or take up again one that was started from the same inputs.

    What an interrupted run left without a record is removed; sealed units stay.

    Args:
        where: Path or URL of the store.
        overwrite: Start anew, whatever the store holds.
        rejected: Annotations that were left out while reading; the store remembers them.

    Raises:
        StoreBusyError: Another process is writing there.
        StoreMismatchError: The store was started from other inputs; the message lists them.
        StoreError: ``where`` holds something that is not a store.
        EnvironmentFailure: The disk or the network fails.
    """
    location = where if isinstance(where, Location) else locate(where)
    location.prepare()
    with location.lock() as check_lock:
        if overwrite or not location.exists(record_name(DATASET_RECORD)):
            clear_store(location)
        else:
            check_same_inputs(location, attributes)
        if not sealed_records(location, [DATASET_RECORD]):
            remove_dataset_objects(location)
            objects = encode_dataset(
                attributes, dataset_arrays(list(records), masks=attributes.masks)
            )
            record = {"attributes": attributes.to_json(), "rejected": list(rejected)}
            write_sealed(location, DATASET_RECORD, record, objects)
        writer = StoreWriter(location, attributes, records, check_lock=check_lock)
        if writer.pending():
            location.remove([MANIFEST])
            remove_unsealed(location)
        yield writer


def _skipped(records: Mapping[str, bytes]) -> dict[int, str]:
    bodies = (json.loads(data) for data in records.values())
    return {int(key): reason for body in bodies for key, reason in body["skipped"].items()}


def write_store(
    where: Where,
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
) -> Where:
    """Write a whole store from what is in memory, by the same protocol as a long run.

    Args:
        records: One record an image, in the order of the rows.
        images: The bytes of every image file (JPEG or PNG).
        depth: One map an image in the sense of ``depth_info``, all on its grid; ``None`` = invalid.
        categories: Classes in the order of the records' labels.
        depth_info: Meaning of the depth; by default relative inverse depth on the first map's grid.
        masks: Store the records' masks too.

    Returns:
        ``where``: the finished store.
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
    with open_writer(where, attributes, records) as writer:
        for index in writer.pending():
            rows = writer.rows(index)
            part = slice(rows.start, rows.stop)
            writer.write_unit(index, UnitRows(images=images[part], depth=depth[part]))
        writer.finish()
    return where
