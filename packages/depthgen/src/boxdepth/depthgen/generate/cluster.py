"""Units on dask.distributed: one unit is one idempotent task, written by the worker itself.

The client plans, watches and seals; no array ever passes through the scheduler. A unit's bytes
follow from its inputs alone, so a task that ran twice leaves what one would have left.
"""

import importlib
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import torch
from jaxtyping import Int64

from boxdepth.depthgen.datasets.records import OnBad
from boxdepth.depthgen.generate.job import Job, UnitReport
from boxdepth.depthgen.generate.units import run_units
from boxdepth.depthgen.predictor import Predictor, load_predictor
from boxdepth.depthgen.store import (
    ConfigError,
    DataError,
    EnvironmentFailure,
    ImageRecord,
    MissingExtraError,
    StoreAttributes,
    StoreWriter,
    UnitRows,
    locate,
    write_unit,
)

DEATHS: Final = 3
"""Workers that a unit may take with it before it is given up."""

LOCAL: Final = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where units are computed.

    Attributes:
        scheduler: ``local``: processes on this machine; else the address of a running scheduler.
        jobs: Worker processes (``local``).
        devices: One worker process each (``local``), such as ``("cuda:0", "cuda:1")``; empty: the
            predictor's own device.
        insecure: Accept an unencrypted scheduler on another machine.
    """

    scheduler: str = LOCAL
    jobs: int = 1
    devices: tuple[str, ...] = ()
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.scheduler == LOCAL:
            return
        parts = urlsplit(self.scheduler)
        if parts.scheme not in ("tcp", "tls") or not parts.hostname or not parts.port:
            raise ConfigError(
                f"--scheduler {self.scheduler!a}: 'local' or tcp://HOST:PORT is expected"
            )
        if parts.scheme == "tcp" and not _is_loopback(parts.hostname) and not self.insecure:
            raise ConfigError(
                f"--scheduler {self.scheduler}: whoever reaches an unencrypted scheduler can run "
                "code on its workers; use tls://, or --insecure inside a network of your own"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitTask:
    """All that a worker needs for one unit; ``predictor`` travels without its model."""

    job: Job
    attributes: StoreAttributes
    unit: int
    members: tuple[ImageRecord, ...]
    nbytes: Int64[np.ndarray, " n"]
    devices: tuple[str, ...]
    threads: int


def run_on_cluster(
    job: Job,
    writer: StoreWriter,
    pending: Sequence[int],
    nbytes: Int64[np.ndarray, " n"],
    progress: Callable[[int, int], None] | None,
    cluster: Cluster,
) -> Iterator[UnitReport]:
    """As ``run_units``, on the workers of a cluster.

    Raises:
        DataError: Bad images, or a unit that kills its workers (with ``on_bad="error"``).
        EnvironmentFailure: The scheduler cannot be reached, or went away.
        MissingExtraError: dask.distributed is not installed.
    """
    total = len(job.dataset.records)
    done = total - sum(len(writer.rows(unit)) for unit in pending)
    with _connect(cluster) as client:
        for unit, outcome in _outcomes(client, job, writer, list(pending), nbytes, cluster):
            report = outcome if isinstance(outcome, UnitReport) else _give_up(job, writer, unit)
            done += len(writer.rows(unit))
            if progress:
                progress(done, total)
            yield report


def _outcomes(
    client: Any,
    job: Job,
    writer: StoreWriter,
    waiting: list[int],
    nbytes: Int64[np.ndarray, " n"],
    cluster: Cluster,
) -> Iterator[tuple[int, UnitReport | None]]:
    """Each unit with its report; ``None`` for one that killed its workers."""
    distributed = _distributed()
    light = replace(job, predictor=replace(job.predictor, model=None))
    light = replace(light, dataset=replace(job.dataset, records=()))
    units: dict[Any, int] = {}

    def submit(unit: int) -> Any:
        rows = writer.rows(unit)
        task = UnitTask(
            job=light,
            attributes=writer.attributes,
            unit=unit,
            members=tuple(writer.members(unit)),
            nbytes=nbytes[rows.start : rows.stop],
            devices=cluster.devices,
            threads=torch.get_num_threads(),
        )
        future = client.submit(make_unit, task, pure=False)
        units[future] = unit
        return future

    running: Any = distributed.as_completed(loop=client.loop)

    def top_up() -> None:
        # No more at once than there are workers: a unit that waits behind a deadly one on the
        # same worker would be suspected with it. Workers that join later get units, too.
        while waiting and len(units) < max(1, sum(client.nthreads().values())):
            running.add(submit(waiting.pop(0)))

    top_up()
    for future in running:
        unit = units.pop(future)
        try:
            report = future.result()
        except distributed.KilledWorker:
            report = None
        except (distributed.CancelledError, OSError) as error:
            raise EnvironmentFailure(
                f"the cluster went away ({type(error).__name__}); repeat the same command: what is "
                "finished stays"
            ) from error
        yield unit, report
        top_up()


def make_unit(task: UnitTask) -> UnitReport:
    """Compute and write one unit, in a worker.

    Raises:
        DataError, EnvironmentFailure: As ``run_units`` does.
    """
    torch.set_num_threads(task.threads)
    light = task.job.predictor
    model = _load(light.files.label, light, _device(task.devices, light))
    job = replace(
        task.job,
        predictor=replace(light, model=model.model, device=model.device),
        dataset=replace(task.job.dataset, records=task.members),
    )
    (report,) = run_units(job, _OneUnit(task), [task.unit], task.nbytes, None)
    return report


class _OneUnit:
    """The writer of a worker: one unit, whose rows count from 0."""

    def __init__(self, task: UnitTask) -> None:
        self._task = task

    def rows(self, unit: int) -> range:
        return range(len(self._task.members))

    def write_unit(self, unit: int, rows: UnitRows) -> int:
        task = self._task
        return write_unit(locate(task.job.store), task.attributes, unit, list(task.members), rows)


_loaded: dict[tuple[str, str, str], Predictor] = {}


def _load(label: str, light: Predictor, device: str) -> Predictor:
    key = (label, light.files.weights_sha256 or "", device)
    aspect = light.preprocessing.aspect
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_predictor(
            light.files,
            aspect=None if aspect == "native" else aspect,
            device=device,
            precision=light.precision,
        )
    return _loaded[key]


def _device(devices: tuple[str, ...], light: Predictor) -> str:
    """The device of this worker: local workers are numbered."""
    if not devices:
        return str(light.device)
    name = str(_distributed().get_worker().name)
    return devices[int(name) % len(devices)] if name.isdecimal() else devices[0]


def _give_up(job: Job, writer: StoreWriter, unit: int) -> UnitReport:
    """A unit that killed its workers: named, and left out or the end of the run."""
    members = writer.members(unit)
    reason = f"its unit {unit} killed {DEATHS} workers"
    if job.on_bad is OnBad.error:
        names = ", ".join(f"{member.id} ({member.name!a})" for member in members[:20])
        raise DataError(
            f"unit {unit} killed {DEATHS} workers (memory, or a fault in a native library); its "
            f"{len(members)} images: {names}; look at them, or leave them out with --on-bad skip: "
            "what is finished stays"
        )
    empty = [None] * len(members)
    rows = UnitRows(images=empty, depth=empty, skipped={member.id: reason for member in members})
    return UnitReport(units=1, images=len(members), nbytes=writer.write_unit(unit, rows))


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise MissingExtraError(
            "--scheduler, --jobs and --devices need dask.distributed: "
            "pip install 'boxdepth-depthgen[cluster]'"
        ) from error


@contextmanager
def _connect(cluster: Cluster) -> Iterator[Any]:
    distributed = _distributed()
    if cluster.scheduler != LOCAL:
        try:
            client = distributed.Client(cluster.scheduler, timeout="20s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise EnvironmentFailure(
                f"{cluster.scheduler}: no scheduler answers ({error}); start one with "
                "`dask scheduler`"
            ) from error
        with client:
            yield client
        return
    settings = {
        "distributed.scheduler.allowed-failures": DEATHS - 1,
        "distributed.worker.daemon": True,
    }
    with ExitStack() as stack:
        stack.enter_context(importlib.import_module("dask").config.set(settings))
        try:
            local = stack.enter_context(_local_cluster(len(cluster.devices) or cluster.jobs))
            client = stack.enter_context(distributed.Client(local, set_as_default=False))
        except (OSError, RuntimeError, TimeoutError) as error:
            raise EnvironmentFailure(
                f"the local workers do not start ({error}); too little memory, or somebody ends "
                "them? Repeat the same command: what is finished stays"
            ) from error
        yield client


def _local_cluster(workers: int) -> Any:
    # Loopback only: dask's protocol runs whatever code it is sent.
    return _distributed().LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",  # without an address it listens on 8787, everywhere
        silence_logs="CRITICAL",
    )


@cache
def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
