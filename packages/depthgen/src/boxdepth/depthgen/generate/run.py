"""The whole job, and the ways in which a machine can fail it."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from boxdepth.depthgen.generate.job import Job, Summary, UnitReport, plan_job
from boxdepth.depthgen.generate.units import run_units
from boxdepth.depthgen.plan import estimate_bytes
from boxdepth.depthgen.store import EnvironmentFailure, StoreWriter, open_writer

if TYPE_CHECKING:
    from boxdepth.depthgen.generate.cluster import Cluster


def generate(
    job: Job,
    *,
    progress: Callable[[int, int], None] | None = None,
    cluster: "Cluster | None" = None,
) -> Summary:
    """Make the store, or go on with it. Whatever is sealed stays, whatever happens.

    Args:
        progress: Called with the images done and the images of the store.
        cluster: Compute units on the workers of a dask cluster instead of in this process; the
            store's bytes are the same.

    Raises:
        DataError: Bad images (with ``on_bad="error"``); units sealed before stay.
        EnvironmentFailure: The disk is full, or memory runs out.
        StoreMismatchError: The store was started from other inputs.
        StoreBusyError: Another process is writing there.
    """
    started = time.monotonic()
    attributes, nbytes = plan_job(job)
    done = UnitReport()
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
                for report in _reports(job, writer, pending, nbytes, progress, cluster):
                    done += report
                writer.finish()
            skipped = writer.skipped()
    except MemoryError as error:
        raise EnvironmentFailure(
            f"out of memory with --batch-size {job.batch_size}; start again with a smaller one and "
            "--overwrite"
        ) from error
    return Summary(
        images=attributes.images,
        skipped=skipped,
        shards=attributes.units,
        done=done,
        seconds=time.monotonic() - started,
    )


def _reports(
    job: Job,
    writer: StoreWriter,
    pending: Sequence[int],
    nbytes: Int64[np.ndarray, " n"],
    progress: Callable[[int, int], None] | None,
    cluster: "Cluster | None",
) -> Iterator[UnitReport]:
    if cluster is None or not pending:
        return run_units(job, writer, pending, nbytes, progress)
    from boxdepth.depthgen.generate.cluster import run_on_cluster

    return run_on_cluster(job, writer, pending, nbytes, progress, cluster)


def _check_space(
    job: Job, writer: StoreWriter, pending: Sequence[int], nbytes: Int64[np.ndarray, " n"]
) -> None:
    rows = [row for unit in pending for row in writer.rows(unit)]
    needed = estimate_bytes(nbytes[rows], grid=job.grid)
    free = writer.location.free_bytes()
    if free is not None and needed > free:
        raise EnvironmentFailure(
            f"{job.store}: about {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free; "
            "free space, name another --store, or take a smaller --depth-grid"
        )
