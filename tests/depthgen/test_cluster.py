"""On a cluster the store's bytes are those of one process, whatever dies meanwhile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from boxdepth.depthgen.datasets.coco import read_coco
from boxdepth.depthgen.datasets.records import OnBad
from boxdepth.depthgen.generate import Job, generate
from boxdepth.depthgen.generate.cluster import Cluster
from boxdepth.depthgen.models import find_model
from boxdepth.depthgen.predictor import Predictor, load_predictor
from boxdepth.depthgen.store import (
    ConfigError,
    DataError,
    EnvironmentFailure,
    open_store,
    verify_store,
)

from .conftest import encode, tree

pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # worker processes start slowly on a busy machine
    # distributed leaves its own sockets and loops to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return load_predictor(find_model(str(tiny_model)), device="cpu")


@pytest.fixture
def job(coco_root: Callable[..., Path], predictor: Predictor, tmp_path: Path) -> Job:
    data = read_coco(coco_root(12), split="train2017")
    return Job(
        dataset=data, predictor=predictor, store=tmp_path / "s.zarr", grid=(20, 24), unit=2,
        batch_size=2,
    )  # fmt: skip


def _whole(job: Job) -> dict[str, bytes]:
    other = replace(job, store=Path(job.store).with_name("whole.zarr"))
    generate(other)
    return tree(Path(other.store))


@contextmanager
def _processes(folder: Path) -> Iterator[str]:
    """A scheduler and two workers, started as a user starts them."""
    file = folder / "scheduler.json"
    base = [sys.executable, "-m", "distributed.cli"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    loopback = ["--scheduler-file", str(file), "--no-dashboard", "--host", "127.0.0.1"]
    commands = [
        [*base[:2], "distributed.cli.dask_scheduler", *loopback, "--port", "0"],
        *(
            [*base[:2], "distributed.cli.dask_worker", *loopback, "--nthreads", "1"]
            for _ in range(2)
        ),
    ]
    started = []
    try:
        for command in commands:
            started.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
            while not file.exists():
                time.sleep(0.05)
        import json

        yield json.loads(file.read_text())["address"]
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def test_two_local_workers_make_the_same_bytes(job: Job) -> None:
    calls: list[tuple[int, int]] = []
    cluster = Cluster(jobs=2)
    summary = generate(job, progress=lambda *done: calls.append(done), cluster=cluster)
    assert (summary.done.units, summary.done.images) == (6, 12)
    assert calls[-1] == (12, 12)
    assert tree(Path(job.store)) == _whole(job)


def test_a_scheduler_started_elsewhere_makes_the_same_bytes(job: Job, tmp_path: Path) -> None:
    with _processes(tmp_path) as address:
        generate(job, cluster=Cluster(scheduler=address))
    assert tree(Path(job.store)) == _whole(job)


def test_a_killed_worker_changes_nothing(job: Job) -> None:
    victims: list[int] = []

    def kill(done: int, _total: int) -> None:
        """After the first unit: whatever worker is found, in the middle of its next one."""
        if not victims:
            workers = [
                child
                for child in psutil.Process().children(recursive=True)
                if "spawn_main" in " ".join(child.cmdline())
            ]
            victims.append(workers[-1].pid)
            os.kill(workers[-1].pid, signal.SIGKILL)

    generate(job, progress=kill, cluster=Cluster(jobs=2))
    assert victims
    assert verify_store(job.store, deep=True).problems == ()
    assert tree(Path(job.store)) == _whole(job)


_DEADLY = """
import os, signal
import numpy as np

KIND = "inverse"


class Model:
    def predict(self, images):
        if any(not image.any() for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        return [image[..., 0].astype(np.float32) for image in images]


def load(folder, *, device):
    return Model()
"""


def test_a_unit_that_kills_its_workers_is_named_and_left_out(
    coco_root: Callable[..., Path], tmp_path: Path
) -> None:
    """One black image kills whoever looks at it: its unit of two is given up, the rest stays."""
    root, module, folder = coco_root(6), tmp_path / "deadly.py", tmp_path / "weights"
    module.write_text(_DEADLY)
    folder.mkdir()
    (folder / "weights.pt").write_bytes(b"")
    black = root / "coco" / "train2017" / f"{3:012d}.jpg"
    black.write_bytes(encode(np.zeros((48, 64, 3), np.uint8), "JPEG"))
    job = Job(
        dataset=read_coco(root, split="train2017"),
        predictor=load_predictor(find_model(f"adapter:{module}:{folder}"), device="cpu"),
        store=tmp_path / "s.zarr", grid=(20, 24), unit=2, batch_size=1,
    )  # fmt: skip
    with pytest.raises(DataError, match=rf"unit 1 killed 3 workers .* 4 \('{black.name}'\)"):
        generate(job, cluster=Cluster(jobs=1))
    summary = generate(replace(job, on_bad=OnBad.skip), cluster=Cluster(jobs=1))
    assert summary.skipped == dict.fromkeys((3, 4), "its unit 1 killed 3 workers")
    store = open_store(tmp_path / "s.zarr")
    assert store.image_ids.tolist() == [1, 2, 5, 6]
    assert verify_store(tmp_path / "s.zarr", deep=True).problems == ()


def test_an_interrupted_client_goes_on_to_the_same_bytes(job: Job) -> None:
    class Stop(Exception): ...

    def stop(done: int, _total: int) -> None:
        if done >= 4:
            raise Stop

    with pytest.raises(Stop):
        generate(job, progress=stop, cluster=Cluster(jobs=1))
    generate(job, cluster=Cluster(jobs=1))
    assert tree(Path(job.store)) == _whole(job)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://10.1.2.3:8786", "--insecure inside a network of your own"),
        ("10.1.2.3:8786", "tcp://HOST:PORT is expected"),
        ("tcp://host", "tcp://HOST:PORT is expected"),
    ],
)
def test_addresses_that_are_refused(address: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Cluster(scheduler=address)


def test_workers_that_do_not_start_are_told(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when something kills them before they are up."""

    def fail(**_: object) -> None:
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr("distributed.LocalCluster", fail)
    with pytest.raises(EnvironmentFailure, match="local workers do not start"):
        generate(job, cluster=Cluster(jobs=1))


def test_only_loopback_listens(job: Job) -> None:
    heard: set[str] = set()

    def look(*_: int) -> None:
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        for process in family:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    heard.add(connection.laddr.ip)

    generate(job, progress=look, cluster=Cluster(jobs=1))
    assert heard == {"127.0.0.1"}
