"""One unit: what is given for it, and what of that goes into which array."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np
from jaxtyping import Float32

from boxdepth.depthgen.store.depth import quantise
from boxdepth.depthgen.store.errors import DataError
from boxdepth.depthgen.store.schema import ImageRecord, StoreAttributes


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


def unit_values(
    attributes: StoreAttributes, unit: int, members: Sequence[ImageRecord], rows: UnitRows
) -> tuple[dict[str, np.ndarray], list[list[float] | None]]:
    """What a unit writes into each array, and the range of each depth map.

    Raises:
        DataError: Its images hold more bytes than planned.
    """
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
