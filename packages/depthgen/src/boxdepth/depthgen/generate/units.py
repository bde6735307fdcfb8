"""Units through the model: images are decoded ahead, units written behind, each in its threads."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from boxdepth.depthgen.datasets.records import OnBad
from boxdepth.depthgen.generate.job import Job, UnitReport
from boxdepth.depthgen.plan import Batch, batches
from boxdepth.depthgen.predictor import predict_depth
from boxdepth.depthgen.preprocess import pillow_resize, resize_image
from boxdepth.depthgen.store import DataError, EnvironmentFailure, UnitRows, decode_image
from boxdepth.depthgen.store.depth import is_informative
from boxdepth.depthgen.store.errors import environment_failure, is_of_the_machine, summarise
from boxdepth.depthgen.store.images import exif_orientation, has_sixteen_bits

_BATCHES_AHEAD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One image on its way to the model.

    Attributes:
        data: Its file.
        pixels: RGB, resized for the model.
        orientation: What its EXIF asks for.
        deep: It has 16 bits a channel.
    """

    data: bytes
    pixels: UInt8[np.ndarray, "rows columns 3"]
    orientation: int
    deep: bool


@dataclass(slots=True, kw_only=True)
class _OpenUnit:
    """A unit while its batches pass through the model."""

    images: dict[int, bytes] = field(default_factory=dict)
    depth: dict[int, Float32[np.ndarray, "rows columns"]] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    redone: list[int] = field(default_factory=list)
    turned: dict[int, int] = field(default_factory=dict)
    deep: int = 0
    model_seconds: float = 0.0

    def report(self, *, nbytes: int) -> UnitReport:
        """What became of the unit, once ``nbytes`` bytes of it are written."""
        return UnitReport(
            units=1,
            images=len(self.images) + len(self.skipped),
            invalid=sum(1 for depth in self.depth.values() if not is_informative(depth)),
            redone=len(self.redone),
            turned=len(self.turned),
            deep=self.deep,
            nbytes=nbytes,
            model_seconds=self.model_seconds,
        )


class UnitWriter(Protocol):
    """What is needed of a writer here: a whole store's, or one unit's in a worker."""

    def rows(self, unit: int) -> range: ...
    def write_unit(self, unit: int, rows: UnitRows) -> int: ...


def run_units(
    job: Job,
    writer: UnitWriter,
    pending: Sequence[int],
    nbytes: Int64[np.ndarray, " n"],
    progress: Callable[[int, int], None] | None,
) -> Iterator[UnitReport]:
    """Put all pending units through the model and write them; one report a unit, once it is
    written.

    Raises:
        DataError: Bad images (with ``on_bad="error"``); the units before are written all the same.
        EnvironmentFailure: The disk fails.
    """
    records, total = job.dataset.records, len(job.dataset.records)
    done = total - sum(len(writer.rows(unit)) for unit in pending)
    schedule = [
        batch
        for unit in pending
        for batch in batches(
            unit,
            writer.rows(unit),
            records,
            preprocessing=job.predictor.preprocessing,
            batch_size=job.batch_size,
        )
    ]
    opened, writing = _OpenUnit(), None
    with (
        ThreadPoolExecutor(1, thread_name_prefix="write") as write_pool,
        ThreadPoolExecutor(job.workers, thread_name_prefix="decode") as decode_pool,
    ):
        try:
            for batch, futures in _look_ahead(decode_pool, schedule, job, nbytes):
                _predict_batch(job, batch, futures, opened)
                done += len(batch.rows)
                if progress:
                    progress(done, total)
                if batch.last:
                    if writing is not None:
                        yield writing.result()
                    _stop_on_bad(job, opened)
                    writing = write_pool.submit(_write, writer, batch.unit, opened)
                    opened = _OpenUnit()
            if writing is not None:
                yield writing.result()
        except BaseException:
            decode_pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write(writer: UnitWriter, unit: int, opened: _OpenUnit) -> UnitReport:
    nbytes = writer.write_unit(unit, _unit_rows(writer.rows(unit), opened))
    return opened.report(nbytes=nbytes)


def _look_ahead(
    pool: ThreadPoolExecutor, schedule: Sequence[Batch], job: Job, nbytes: Int64[np.ndarray, " n"]
) -> Iterator[tuple[Batch, list[Future[Loaded | str]]]]:
    """Batches in order, with some of the following ones being decoded already."""
    queue: deque[tuple[Batch, list[Future[Loaded | str]]]] = deque()
    for batch in schedule:
        futures = [pool.submit(load_image, job, row, int(nbytes[row])) for row in batch.rows]
        queue.append((batch, futures))
        if len(queue) > _BATCHES_AHEAD:
            yield queue.popleft()
    yield from queue


def load_image(job: Job, row: int, planned: int) -> Loaded | str:
    """Read, check, decode and resize one image; or say why not.

    Raises:
        EnvironmentFailure: The disk fails: no image is at fault.
    """
    record = job.dataset.records[row]
    if record.path is None or planned == 0:
        return "no such file, or an empty one"
    try:
        data = record.path.read_bytes()
        if len(data) != planned:
            return f"{record.name!a}: {len(data)} bytes, {planned} when the run was planned"
        size, settings = (record.height, record.width), job.predictor.preprocessing
        resize = pillow_resize(*size, settings)
        pixels = decode_image(data, expected_size=size, name=record.name, change=resize)
    except OSError as error:
        if is_of_the_machine(error):
            raise environment_failure(error, str(record.path)) from error
        return str(error)
    except EnvironmentFailure:
        raise
    except DataError as error:
        return str(error)
    return Loaded(
        data=data,
        pixels=pixels if resize else resize_image(pixels, settings),
        orientation=exif_orientation(data),
        deep=has_sixteen_bits(data),
    )


def _predict_batch(
    job: Job,
    batch: Batch,
    futures: Sequence[Future[Loaded | str]],
    opened: _OpenUnit,
) -> None:
    good: list[tuple[int, Loaded]] = []
    for row, future in zip(batch.rows, futures, strict=True):
        loaded = future.result()
        if isinstance(loaded, str):
            opened.skipped[job.dataset.records[row].id] = loaded
        else:
            good.append((row, loaded))
    if not good:
        return
    started = time.monotonic()
    records = [job.dataset.records[row] for row, _ in good]
    prediction = predict_depth(
        job.predictor,
        [item.pixels for _, item in good],
        grid=job.grid,
        sizes=[(record.height, record.width) for record in records],
    )
    opened.model_seconds += time.monotonic() - started
    for (row, item), depth, redone in zip(good, prediction.depth, prediction.redone, strict=True):
        opened.images[row], opened.depth[row] = item.data, depth
        opened.deep += item.deep
        if item.orientation != 1:
            opened.turned[job.dataset.records[row].id] = item.orientation
        if redone:
            opened.redone.append(job.dataset.records[row].id)


def _stop_on_bad(job: Job, opened: _OpenUnit) -> None:
    if opened.skipped and job.on_bad is OnBad.error:
        problems = [f"image {number}: {reason}" for number, reason in opened.skipped.items()]
        raise DataError(
            f"{len(problems)} bad image{'s' if len(problems) > 1 else ''} (replace them and "
            "repeat, or "
            f"leave them out with --on-bad skip; what is finished stays):\n{summarise(problems)}"
        )


def _unit_rows(rows: range, opened: _OpenUnit) -> UnitRows:
    return UnitRows(
        images=[opened.images.get(row) for row in rows],
        depth=[opened.depth.get(row) for row in rows],
        skipped=opened.skipped,
        remarks={
            "redone_in_fp32": sorted(opened.redone),
            "exif_orientation_ignored": {str(k): v for k, v in sorted(opened.turned.items())},
        },
    )
