"""How large a store gets and how long it takes, from a few of its images put through the model."""

import time
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Float32, Int64

from boxdepth.depthgen.generate.job import Job
from boxdepth.depthgen.generate.units import load_image
from boxdepth.depthgen.plan import BYTES_PER_CELL, batches
from boxdepth.depthgen.predictor import predict_depth
from boxdepth.depthgen.store import StoreAttributes
from boxdepth.depthgen.store.depth import quantise
from boxdepth.depthgen.store.layout import IMAGE_CHUNK, encode_unit, per_unit_layouts
from boxdepth.depthgen.store.schema import DEPTH_Q

SAMPLE: Final = 16
"""Images that are looked at, spread evenly over the dataset."""

_PER_IMAGE: Final = 110
"""Bytes of an image's small numbers, its name and its part of a record."""

_PER_BOX: Final = 28
_PER_UNIT: Final = 2500


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run would need.

    Attributes:
        nbytes: Bytes of the whole store.
        seconds: Time of the run on this machine, in this process.
        sampled: Images that this was measured on; 0: none could be used.
    """

    nbytes: int
    seconds: float
    sampled: int


def estimate(job: Job, attributes: StoreAttributes, nbytes: Int64[np.ndarray, " n"]) -> Estimate:
    """Predict the size of the store and the time it takes.

    Args:
        nbytes: Size of every image file.

    Raises:
        DataError: The model cannot take the images.
    """
    maps, seconds = _sample(job, nbytes)
    cells = attributes.depth.grid[0] * attributes.depth.grid[1]
    a_map = _map_bytes(maps, attributes) if maps else BYTES_PER_CELL * cells
    count = attributes.images
    images = _image_bytes(attributes, nbytes)
    depth = int(a_map * count) + 16 * attributes.unit * attributes.units
    small = _PER_IMAGE * count + _PER_BOX * attributes.boxes + _PER_UNIT * attributes.units
    return Estimate(
        nbytes=images + depth + small + _mask_bytes(job), seconds=seconds * count, sampled=len(maps)
    )


def _image_bytes(attributes: StoreAttributes, nbytes: Int64[np.ndarray, " n"]) -> int:
    """Every unit's files fill whole chunks of its shard, and each shard has an index."""
    total = 0
    for start in range(0, len(nbytes), attributes.unit):
        chunks = -(-int(nbytes[start : start + attributes.unit].sum()) // IMAGE_CHUNK)
        total += chunks * IMAGE_CHUNK + 16 * (attributes.image_capacity // IMAGE_CHUNK)
    return total


def _mask_bytes(job: Job) -> int:
    if not job.masks:
        return 0
    masks = (mask for record in job.dataset.records for mask in record.masks or () if mask)
    return sum(len(str(mask["counts"])) for mask in masks)


def _map_bytes(
    maps: list[Float32[np.ndarray, "rows columns"]], attributes: StoreAttributes
) -> float:
    """Mean bytes of a depth map as it is stored."""
    found = [quantise(depth, bits=attributes.depth.bits) for depth in maps]
    q = np.stack([np.zeros(attributes.depth.grid, np.uint16) if f is None else f.q for f in found])
    alone = replace(attributes, images=len(q), unit=len(q))
    layouts = [item for item in per_unit_layouts(alone) if item.schema.name == DEPTH_Q]
    objects = encode_unit(layouts, {DEPTH_Q: q}, unit=0)
    return (sum(map(len, objects.values())) - 16 * len(q)) / len(q)


def _sample(
    job: Job, nbytes: Int64[np.ndarray, " n"]
) -> tuple[list[Float32[np.ndarray, "rows columns"]], float]:
    """Depth of some images, and seconds an image: the model's, or decoding's if that is longer."""
    records = job.dataset.records
    rows = sorted({int(row) for row in np.linspace(0, len(records) - 1, SAMPLE)} if records else ())
    started = time.monotonic()
    loaded = {row: item for row in rows if not isinstance(
        item := load_image(job, row, int(nbytes[row])), str)}  # fmt: skip
    decoding = (time.monotonic() - started) / max(len(rows), 1) / job.workers
    parts = batches(
        0, list(loaded), records, preprocessing=job.predictor.preprocessing,
        batch_size=job.batch_size,
    )  # fmt: skip
    maps: list[Float32[np.ndarray, "rows columns"]] = []
    if parts:  # the first time a model runs is no measure
        predict_depth(job.predictor, [loaded[parts[0].rows[0]].pixels], grid=job.grid)
    started = time.monotonic()
    for part in parts:
        sizes = [(records[row].height, records[row].width) for row in part.rows]
        pixels = [loaded[row].pixels for row in part.rows]
        maps += list(predict_depth(job.predictor, pixels, grid=job.grid, sizes=sizes).depth)
    predicting = (time.monotonic() - started) / max(len(maps), 1)
    return maps, max(decoding, predicting)
