"""One unit: what is given for it, and what of that goes into which array."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np
from jaxtyping import Bool, Float32

from boxdepth.depthgen.store.depth import Quantised, quantise
from boxdepth.depthgen.store.errors import DataError
from boxdepth.depthgen.store.schema import (
    ARRAYS,
    DEPTH_MEASURED,
    DEPTH_Q,
    IMAGE_DATA,
    ArraySchema,
    ImageRecord,
    StoreAttributes,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRows:
    """Everything that one unit stores, row by row.

    Attributes:
        images: Bytes of every image file; ``None`` for an image that is skipped.
        depth: Depth on the store's grid, or as another store has it; ``None`` where there is none.
        measured: Where depth was measured, one map an image, for stores with holes.
        skipped: Reasons, by image id.
        remarks: What else the record should remember (JSON).
    """

    images: Sequence[bytes | None]
    depth: Sequence[Float32[np.ndarray, "rows columns"] | Quantised | None]
    measured: Sequence[Bool[np.ndarray, "rows columns"] | None] | None = None
    skipped: Mapping[int, str] = field(default_factory=dict)
    remarks: Mapping[str, Any] = field(default_factory=dict)


def unit_values(
    attributes: StoreAttributes, unit: int, members: Sequence[ImageRecord], rows: UnitRows
) -> tuple[dict[str, np.ndarray], list[list[float] | None]]:
    """What a unit writes into each array, and the range of each depth map.

    Raises:
        DataError: Its images hold more bytes than planned.
    """
    values = {
        array.name: np.full(_unit_shape(array, attributes, len(members)), array.fill, array.dtype)
        for array in ARRAYS
        if array.per_unit and array.belongs_to(attributes)
    }
    statistics: list[list[float] | None] = []
    position = 0
    for row, (data, depth) in enumerate(zip(rows.images, rows.depth, strict=True)):
        data = data or b""
        if position + len(data) > attributes.image_capacity:
            raise DataError(
                f"unit {unit}: its images hold more bytes than when the run was planned; a file "
                f"up to {members[row].name!a} has changed: start again with --overwrite"
            )
        values[IMAGE_DATA][position : position + len(data)] = np.frombuffer(data, np.uint8)
        values["image/start"][row] = unit * attributes.image_capacity + position
        values["image/nbytes"][row] = len(data)
        values["image/crc32c"][row] = google_crc32c.value(data)
        position += len(data)
        statistics.append(None)
        if isinstance(depth, np.ndarray):
            quantised = quantise(depth, bits=attributes.depth.bits)
            statistics[row] = (
                None if quantised is None else [float(depth.min()), float(depth.max())]
            )
        else:
            quantised = depth
            statistics[row] = None if quantised is None else quantised.range()
        if quantised is not None:
            values[DEPTH_Q][row] = quantised.q
            values["depth/scale"][row] = quantised.scale
            values["depth/offset"][row] = quantised.offset
            values["depth/valid"][row] = 1
        if rows.measured is not None and attributes.depth.holes:
            seen = rows.measured[row]
            values[DEPTH_MEASURED][row] = quantised is not None if seen is None else seen
    return values, statistics


def _unit_shape(array: ArraySchema, attributes: StoreAttributes, rows: int) -> tuple[int, ...]:
    if array.name == IMAGE_DATA:
        return (attributes.image_capacity,)
    return (rows, *attributes.depth.grid) if "rows" in array.dims else (rows,)
