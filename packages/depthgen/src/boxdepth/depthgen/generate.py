"""The job: decode ahead, predict, write one unit at a time; threads beside the model."""

import errno
import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8

from boxdepth.depthgen.datasets.records import Dataset, settle
from boxdepth.depthgen.plan import Batch, batches, estimate_bytes
from boxdepth.depthgen.predictor import Predictor, predict_depth
from boxdepth.depthgen.preprocess import resize_image
from boxdepth.depthgen.store import (
    DataError,
    DepthInfo,
    EnvironmentFailure,
    ImageError,
    ImageRecord,
    StoreAttributes,
    StoreWriter,
    UnitRows,
    decode_image,
    open_writer,
    plan_store,
)
from boxdepth.depthgen.store.depth import is_informative
from boxdepth.depthgen.store.errors import summarise

log = logging.getLogger(__name__)

_BATCHES_AHEAD = 3
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to make of a dataset.

    Attributes:
        store: Folder of the store.
        grid: (rows, columns) of stored depth.
        unit: Images of one unit.
        batch_size: Images that go through the model together.
        workers: Threads that read and decode ahead.
        on_bad: ``error`` stops at the unit that holds a bad image, ``skip`` leaves bad images out.
        masks: Store the dataset's masks too.
        overwrite: Start anew if there is a store.
    """

    dataset: Dataset
    predictor: Predictor
    store: Path
    grid: tuple[int, int]
    unit: int
    batch_size: int = 8
    workers: int = 2
    on_bad: str = "error"
    masks: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run did.

    Attributes:
        images: Images of the store.
        skipped: Images that were left out, with the reason, by id (of this run).
        invalid: Images without usable depth (constant or not finite).
        redone: Images that were computed again in fp32.
        shards: Units of the store.
        written: Units that this run wrote.
        nbytes: Bytes of the finished store's objects that this run wrote.
        model_seconds: Time inside the model.
    """

    images: int
    skipped: dict[int, str]
    invalid: int
    redone: int
    shards: int
    written: int
    nbytes: int
    seconds: float
    model_seconds: float


@dataclass(slots=True, kw_only=True)
class _Totals:
    skipped: dict[int, str] = field(default_factory=dict)
    invalid: int = 0
    redone: int = 0
    written: int = 0
    nbytes: int = 0
    model_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    data: bytes
    pixels: UInt8[np.ndarray, "rows columns 3"]


@dataclass(slots=True, kw_only=True)
class _OpenUnit:
    """A unit while its batches pass through the model."""

    images: dict[int, bytes] = field(default_factory=dict)
    depth: dict[int, Float32[np.ndarray, "rows columns"]] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    redone: list[int] = field(default_factory=list)


def file_sizes(records: Sequence[ImageRecord]) -> Int64[np.ndarray, " n"]:
    """Size of every image file in bytes; 0 where there is no file."""

    def size(record: ImageRecord) -> int:
        try:
            return record.path.stat().st_size if record.path and record.path.is_file() else 0
        except OSError:
            return 0

    return np.array([size(record) for record in records], dtype=np.int64)


def plan_job(job: Job) -> tuple[StoreAttributes, Int64[np.ndarray, " n"]]:
    """Fix the store's attributes and look at every image file's size.

    Raises:
        DataError: Image files are missing (with ``on_bad="error"``).
    """
    records = job.dataset.records
    nbytes = file_sizes(records)
    missing = [
        f"image {record.id}: no file, or an empty one, at {record.path}"
        for record, size in zip(records, nbytes, strict=True)
        if size == 0
    ]
    settle(missing, source=job.store, on_bad=job.on_bad)
    predictor = job.predictor
    generator = predictor.provenance() | {"batch_size": job.batch_size}
    attributes = plan_store(
        records,
        dataset=job.dataset.name,
        split=job.dataset.split,
        categories=job.dataset.categories,
        image_nbytes=nbytes,
        depth=DepthInfo(kind=predictor.kind, sign=predictor.sign, grid=job.grid),
        generator=generator,
        unit=job.unit,
        masks=job.masks,
    )
    return attributes, nbytes


def generate(job: Job, *, progress: Callable[[int, int], None] | None = None) -> Summary:
    """Make the store, or go on with it. Whatever is sealed stays, whatever happens.

    Args:
        progress: Called with the images done and the images of the store.

    Raises:
        DataError: Bad images (with ``on_bad="error"``); units sealed before stay.
        EnvironmentFailure: The disk is full, or memory runs out.
        StoreMismatchError: The store was started from other inputs.
        StoreBusyError: Another process is writing there.
    """
    started = time.monotonic()
    attributes, nbytes = plan_job(job)
    totals = _Totals()
    try:
        with open_writer(
            job.store,
            attributes,
            job.dataset.records,
            overwrite=job.overwrite,
            rejected=job.dataset.report.rejected,
        ) as writer:
            pending = writer.pending()
            if pending or not writer.finished:
                _check_space(job, writer, pending, nbytes)
                _run_units(job, writer, pending, nbytes, totals, progress)
                writer.finish()
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise EnvironmentFailure(
            f"out of memory with --batch-size {job.batch_size}; start again with a smaller one and "
            "--overwrite"
        ) from error
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise EnvironmentFailure(_no_space_message(job.store)) from error
    return Summary(
        images=attributes.images,
        skipped=totals.skipped,
        invalid=totals.invalid,
        redone=totals.redone,
        shards=attributes.units,
        written=totals.written,
        nbytes=totals.nbytes,
        seconds=time.monotonic() - started,
        model_seconds=totals.model_seconds,
    )


def _run_units(
    job: Job,
    writer: StoreWriter,
    pending: Sequence[int],
    nbytes: Int64[np.ndarray, " n"],
    totals: _Totals,
    progress: Callable[[int, int], None] | None,
) -> None:
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
                _predict_batch(job, batch, futures, opened, totals)
                done += len(batch.rows)
                if progress:
                    progress(done, total)
                if batch.last:
                    if writing is not None:
                        _account(writing.result(), totals)
                    _stop_on_bad(job, opened)
                    rows = _unit_rows(writer, batch.unit, opened, totals)
                    writing = write_pool.submit(writer.write_unit, batch.unit, rows)
                    opened = _OpenUnit()
            if writing is not None:
                _account(writing.result(), totals)
        except BaseException:
            decode_pool.shutdown(wait=False, cancel_futures=True)
            raise


def _look_ahead(
    pool: ThreadPoolExecutor, schedule: Sequence[Batch], job: Job, nbytes: Int64[np.ndarray, " n"]
) -> Iterator[tuple[Batch, list[Future[_Loaded | str]]]]:
    """Batches in order, with some of the following ones being decoded already."""
    queue: deque[tuple[Batch, list[Future[_Loaded | str]]]] = deque()
    for batch in schedule:
        futures = [pool.submit(_load, job, row, int(nbytes[row])) for row in batch.rows]
        queue.append((batch, futures))
        if len(queue) > _BATCHES_AHEAD:
            yield queue.popleft()
    yield from queue


def _load(job: Job, row: int, planned: int) -> _Loaded | str:
    """Read, check, decode and resize one image; or say why not."""
    record = job.dataset.records[row]
    if record.path is None or planned == 0:
        return "no such file, or an empty one"
    try:
        data = record.path.read_bytes()
        if len(data) != planned:
            return f"{record.name!a}: {len(data)} bytes, {planned} when the run was planned"
        pixels = decode_image(data, expected_size=(record.height, record.width), name=record.name)
    except (ImageError, OSError) as error:
        return str(error)
    return _Loaded(data=data, pixels=resize_image(pixels, job.predictor.preprocessing))


def _predict_batch(
    job: Job,
    batch: Batch,
    futures: Sequence[Future[_Loaded | str]],
    opened: _OpenUnit,
    totals: _Totals,
) -> None:
    good: list[tuple[int, _Loaded]] = []
    for row, future in zip(batch.rows, futures, strict=True):
        loaded = future.result()
        if isinstance(loaded, str):
            opened.skipped[job.dataset.records[row].id] = loaded
        else:
            good.append((row, loaded))
    if not good:
        return
    started = time.monotonic()
    prediction = predict_depth(job.predictor, [item.pixels for _, item in good], grid=job.grid)
    totals.model_seconds += time.monotonic() - started
    for (row, item), depth, redone in zip(good, prediction.depth, prediction.redone, strict=True):
        opened.images[row], opened.depth[row] = item.data, depth
        if redone:
            opened.redone.append(job.dataset.records[row].id)


def _stop_on_bad(job: Job, opened: _OpenUnit) -> None:
    if opened.skipped and job.on_bad == "error":
        problems = [f"image {number}: {reason}" for number, reason in opened.skipped.items()]
        raise DataError(
            f"{len(problems)} bad image{'s' if len(problems) > 1 else ''} (replace them and "
            "repeat, or "
            f"leave them out with --on-bad skip; what is finished stays):\n{summarise(problems)}"
        )


def _unit_rows(writer: StoreWriter, unit: int, opened: _OpenUnit, totals: _Totals) -> UnitRows:
    rows = writer.rows(unit)
    totals.skipped.update(opened.skipped)
    totals.redone += len(opened.redone)
    totals.invalid += sum(1 for depth in opened.depth.values() if not is_informative(depth))
    remarks: dict[str, Any] = {"redone_in_fp32": sorted(opened.redone)}
    return UnitRows(
        images=[opened.images.get(row) for row in rows],
        depth=[opened.depth.get(row) for row in rows],
        skipped=opened.skipped,
        remarks=remarks,
    )


def _account(written: int, totals: _Totals) -> None:
    totals.written += 1
    totals.nbytes += written


def _check_space(
    job: Job, writer: StoreWriter, pending: Sequence[int], nbytes: Int64[np.ndarray, " n"]
) -> None:
    rows = [row for unit in pending for row in writer.rows(unit)]
    needed = estimate_bytes(nbytes[rows], grid=job.grid)
    free = shutil.disk_usage(job.store).free
    if needed > free:
        raise EnvironmentFailure(
            f"{job.store}: about {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free; "
            "free space, name another --store, or take a smaller --depth-grid"
        )


def _no_space_message(store: Path) -> str:
    free = shutil.disk_usage(store).free if store.exists() else 0
    return (
        f"{store}: the disk is full ({free / 1e6:,.1f} MB free); free space and repeat the same "
        "command: the units that are finished stay"
    )
