"""The same store behind S3: same bytes, same protocol, and no fault of the network is silent."""

import multiprocessing
import pickle  # noqa: TID251  (that locations survive it is what is tested)
import random
import threading
from collections.abc import Iterator
from datetime import timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxdepth.depthgen.store import (
    ConfigError,
    EnvironmentFailure,
    StoreBusyError,
    StoreDataset,
    StoreError,
    UnitRows,
    locate,
    open_store,
    open_writer,
    plan_store,
    verify_store,
    write_store,
)

from .conftest import CATEGORIES, content, tree
from .s3 import FAULTS, Proxy, serve_proxy, serve_s3

pytest.importorskip("obstore")
pytest.importorskip("moto")

from boxdepth.depthgen.store import bucket as bucket_module
from boxdepth.depthgen.store import lease as lease_module

PATIENCE = 2.5


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    with serve_s3() as address:
        yield address


@pytest.fixture
def proxy(
    server: tuple[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Proxy]:
    with serve_proxy(server, patience=PATIENCE) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canary-key-id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("BOXDEPTH_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(bucket_module, "_TIMEOUT", "2s")
        yield running


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return f"s3://bucket/{name}/ten.zarr"


def remote_tree(url: str) -> dict[str, bytes]:
    location = locate(url)
    return {name: location.read(name) for name in location.sizes()}


def local_tree(tmp_path: Path, **options: Any) -> dict[str, bytes]:
    path = write_store(tmp_path / "local.zarr", **content(10), **options)
    return {name: data for name, data in tree(path).items() if name != ".boxdepth/lock"}


@pytest.mark.parametrize("scheme", ["s3", "memory", "file"])
def test_the_same_bytes_wherever_it_lies(
    proxy: Proxy, url: str, tmp_path: Path, scheme: str
) -> None:
    where = {
        "s3": url, "memory": f"memory://{tmp_path.name}/x", "file": f"file://{tmp_path}/f.zarr",
    }[scheme]  # fmt: skip
    write_store(where, **content(10), unit=4)
    remote = remote_tree(where)
    remote.pop(".boxdepth/lock", None)
    assert remote == local_tree(tmp_path, unit=4)
    assert verify_store(where, deep=True).problems == ()
    store, given = open_store(where), content(10)
    assert [store.image_bytes(i) for i in range(10)] == given["images"]


def test_requests_of_an_epoch_are_few_and_known(proxy: Proxy, url: str, tmp_path: Path) -> None:
    """docs/store-format.md states these numbers."""
    write_store(url, **content(10), unit=5)
    proxy.requests.clear()
    store = open_store(url)
    # One listing; the manifest (looked for, measured, read); a record a unit and one of the
    # dataset; 22 pieces of metadata; the small arrays: six objects a unit, ten of the dataset.
    assert sum(proxy.requests.values()) == 1 + 3 + (2 + 1) + 22 + (6 * 2 + 10)
    proxy.requests.clear()
    for i in range(10):
        store.image_bytes(i)
        store.quantised_depth(i)
    assert proxy.requests == {"GET": 2 * 10 + 2 * 2}  # two an image, two indices a unit
    proxy.requests.clear()
    for i in range(10):
        store.image_bytes(i)
        store.quantised_depth(i)
    assert not proxy.requests  # the second epoch comes from the local cache
    cache = tmp_path / "cache"
    for file in cache.rglob("*"):
        if file.is_file():
            file.unlink()
    dataset = StoreDataset(url)
    proxy.requests.clear()
    dataset.__getitems__(range(10))
    assert proxy.requests == {"GET": 2 * 2 + 2 * 2}  # neighbours come together


def test_the_cache_is_bounded_and_a_damaged_entry_is_fetched_again(
    proxy: Proxy, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(url, **content(10), unit=5)
    monkeypatch.setenv("BOXDEPTH_CACHE_GB", "0.00001")
    store = open_store(url)
    for _ in range(2):
        assert [store.image_bytes(i) for i in range(10)] == content(10)["images"]
    files = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert 0 < sum(file.stat().st_size for file in files) <= 10_000
    for file in files:
        file.write_bytes(b"x" * file.stat().st_size)
    assert [store.image_bytes(i) for i in range(10)] == content(10)["images"]


def test_fifty_faults_lose_nothing_and_none_is_silent(
    proxy: Proxy, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, given = random.Random(7), content(10)
    expected = local_tree(tmp_path, unit=1)
    quick = [fault for fault in FAULTS if fault != "timeout"]
    writing = ["timeout", *(rng.choice(quick) for _ in range(23))]
    reading = ["timeout", *(rng.choice(["unavailable", "reset", "truncated"]) for _ in range(25))]
    attributes = plan_store(
        given["records"], dataset="custom", split="train", categories=CATEGORIES,
        image_nbytes=np.array([len(d) for d in given["images"]]),
        depth=open_store(tmp_path / "local.zarr").attributes.depth,
        generator={"model": "given"}, unit=1, masks=False,
    )  # fmt: skip

    def trouble(faults: list[str]) -> None:
        """Two at a time, so that now and then both meet one request."""
        proxy.faults.extend(faults[:2])
        del faults[:2]

    trouble(writing)
    with open_writer(url, attributes, given["records"]) as writer:
        for unit in writer.pending():
            trouble(writing)
            writer.write_unit(
                unit, UnitRows(images=[given["images"][unit]], depth=[given["depth"][unit]])
            )
        trouble(writing)
        writer.finish()
    monkeypatch.setenv("BOXDEPTH_CACHE_GB", "0")
    store = open_store(url)
    while reading or proxy.faults:
        trouble(reading)
        for i in range(3):
            assert store.image_bytes(i) == given["images"][i]
    assert verify_store(url, deep=True).problems == ()
    assert remote_tree(url) == expected
    assert len(proxy.injected) == 50
    assert set(proxy.injected) == set(FAULTS)


def test_a_network_that_stays_away_is_told_in_one_line(
    proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(url, **content(3))
    store = open_store(url)
    monkeypatch.setattr(bucket_module, "_PAUSE_SECONDS", 0.001)
    proxy.faults.extend(["unavailable"] * 1000)
    with pytest.raises(EnvironmentFailure, match=r"image/data/c/0: 6 attempts failed") as error:
        store.image_bytes(0)
    assert "canary" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_second_writer_is_turned_away_and_changes_nothing(proxy: Proxy, url: str) -> None:
    write_store(url, **content(4), unit=2)
    before = remote_tree(url)
    location = locate(url)
    with location.lock():
        with pytest.raises(StoreBusyError, match=r"process \d+ on .* since 20"):
            write_store(url, **content(4), unit=2)
        with pytest.raises(StoreBusyError):
            location.refuse_if_busy()
    assert remote_tree(url) == before
    location.refuse_if_busy()


@pytest.mark.parametrize("conditional", [True, False])
def test_a_dead_writers_lock_is_taken_over(
    proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch, conditional: bool
) -> None:
    location = locate(url)
    location.write(".boxdepth/lock", b"elsewhere 17 2026-01-01T00:00:00Z 0123\n")
    if not conditional:
        monkeypatch.setattr(lease_module, "_SETTLE_SECONDS", 0.01)

        def refuse(*_: Any, **__: Any) -> None:
            raise NotImplementedError

        monkeypatch.setattr(bucket_module.Bucket, "create", refuse)
        monkeypatch.setattr(bucket_module.Bucket, "replace", refuse)
    with pytest.raises(StoreBusyError, match="its lock ends 60 s after"):
        write_store(url, **content(2))
    real = bucket_module.Bucket.server_time
    later = lambda self, name: real(self, name) + timedelta(seconds=61)  # noqa: E731
    monkeypatch.setattr(bucket_module.Bucket, "server_time", later)
    write_store(url, **content(2))
    assert len(open_store(url)) == 2
    assert not locate(url).exists(".boxdepth/lock")


def test_a_lock_put_that_succeeds_and_says_it_failed_is_ours(proxy: Proxy, url: str) -> None:
    lease = lease_module.Lease(locate(url), ".boxdepth/lock")
    proxy.faults.append("lying put")
    lease.take()
    assert proxy.injected == ["lying put"]
    lease.give_back()
    assert not locate(url).exists(".boxdepth/lock")


def test_a_lost_lease_stops_the_writer_before_anything_is_final(
    proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "_RENEWAL_SECONDS", 0.05)
    location, lost = locate(url), threading.Event()
    lease = lease_module.Lease(location, ".boxdepth/lock")
    monkeypatch.setattr(lease, "_lost", lost)
    lease.take()
    location.write(".boxdepth/lock", b"elsewhere 17 2026-01-01T00:00:00Z 0123\n")
    assert lost.wait(10)
    with pytest.raises(StoreBusyError, match="another writer has taken it"):
        lease.check()
    lease.give_back()
    assert location.exists(".boxdepth/lock")


def test_damage_in_the_bucket_is_named(proxy: Proxy, url: str) -> None:
    write_store(url, **content(10), unit=4)
    location = locate(url)
    data = bytearray(location.read("image/data/c/1"))
    data[100] ^= 1
    location.write("image/data/c/1", bytes(data))
    (problem,) = verify_store(url, deep=True).problems
    assert "image/data, shard 1" in problem
    with pytest.raises(StoreError, match=r"image/data, shard 1, image 33: checksum differs"):
        open_store(url).image_bytes(4)
    location.remove(["depth/q/c/0/0/0"])
    with pytest.raises(StoreError, match=r"depth/q, shard 0 .* images 5\.\.26 \(4\): missing"):
        open_store(url)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("s3://key:secret@bucket/x", "do not belong into the URL"),
        ("s3://bucket/x?secret=1", "do not belong into the URL"),
        ("s3://bucket", "a folder in the bucket"),
        ("s3://bucket/a/../b", "not allowed"),
        ("ftp://host/x", "unknown scheme"),
        ("file://host/x", "absolute path"),
    ],
)
def test_urls_that_are_refused_show_no_secret(where: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        open_store(where)
    assert "secret" not in str(error.value)


def test_no_credential_is_written_or_pickled(proxy: Proxy, url: str) -> None:
    write_store(url, **content(2))
    for data in remote_tree(url).values():
        assert b"canary" not in data
    dataset = StoreDataset(url)
    assert b"canary" not in pickle.dumps(dataset)
    again = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert again[1].image_id == dataset[1].image_id


def test_a_foreign_prefix_is_left_alone(proxy: Proxy, url: str) -> None:
    locate(url).write("thesis.txt", b"years of work")
    with pytest.raises(StoreError, match="not a boxdepth store"):
        write_store(url, **content(2))
    with pytest.raises(StoreError, match="not a boxdepth store"):
        open_store(url)
    assert remote_tree(url) == {"thesis.txt": b"years of work"}


def test_workers_are_spawned_and_a_fork_is_told_why_not(proxy: Proxy, url: str) -> None:
    """The network client's threads do not live on after a fork: it would hang for ever."""
    write_store(url, **content(2))
    dataset = StoreDataset(url)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(itemgetter(0), (dataset,)).name == "für 0.png"
    global _dataset
    _dataset = dataset
    with (
        multiprocessing.get_context("fork").Pool(1) as pool,
        pytest.raises(ConfigError, match="'spawn'"),
    ):
        pool.apply(_read_inherited)


_dataset: StoreDataset | None = None


def _read_inherited() -> str:
    assert _dataset is not None
    return _dataset[1].name  # the first lies in the cache by now
