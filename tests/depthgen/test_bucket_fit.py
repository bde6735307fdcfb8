"""`trainer fit` straight from stores in a bucket: ranged requests, few and known."""

import json
import os
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from boxdepth.depthgen.store import write_store

from .conftest import CATEGORIES, encode, photo, record
from .s3 import Proxy, serve_proxy, serve_s3

pytest.importorskip("obstore")
pytest.importorskip("moto")
pytestmark = [
    pytest.mark.slow,
    # moto's server and urllib3 leave sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
TRAIN, VAL, UNIT = 12, 4, 6
SMALL = (
    "data.batch_size=2", 'data.augmentation={"short_sides": [64], "max_size": 96}',
    "inference.short_side=64", "inference.max_size=96", "data.keep_empty=true",
)  # fmt: skip


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    with serve_s3() as address, serve_proxy(address, patience=2.5) as running:
        for name, value in {
            "AWS_ENDPOINT_URL": running.url, "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "canary", "AWS_REGION": "us-east-1",
            "BOXDEPTH_CACHE": str(tmp_path / "cache"),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield running


def _fit(folder: Path, *options: str) -> tuple[dict[str, object], str]:
    command = [str(Path(sysconfig.get_path("scripts")) / "trainer"), "fit", "scenes_tiny"]
    settings = [part for setting in SMALL for part in ("--set", setting)]
    done = subprocess.run(
        [*command, *options, *settings, "--device", "cpu", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "CI": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1]), done.stdout + done.stderr


def test_twenty_steps_straight_from_a_bucket(proxy: Proxy, tmp_path: Path) -> None:
    """docs/store-format.md states the numbers of requests."""
    random = np.random.default_rng(0)
    stores = {"train": "s3://bucket/fit/train.zarr", "val": "s3://bucket/fit/val.zarr"}
    for (name, url), count in zip(stores.items(), (TRAIN, VAL), strict=True):
        depth = [random.random((12, 16), dtype=np.float32) for _ in range(count)]
        for where in (url, tmp_path / f"{name}.zarr"):
            write_store(
                where,
                [record(i, boxes=1 + i % 2) for i in range(count)],
                images=[encode(photo(i)) for i in range(count)],
                depth=depth,
                categories=CATEGORIES,
                unit=UNIT,
            )
    proxy.requests.clear()
    proxy.paths.clear()
    settings = ("--set", f"data.train={stores['train']}", "--val", stores["val"])
    first, words = _fit(tmp_path, *settings, "--max-iterations", "20", "--out", "remote")
    assert first["iterations"] == 20
    assert "canary" not in words
    assert f"images of {stores['train']}" in words.replace("\n", " ")
    images = proxy.count("train.zarr/image/data/c/"), proxy.count("train.zarr/depth/q/c/")
    total = sum(proxy.requests.values())
    print(f"20 steps of 2 from s3://: {total} requests, images {images[0]}, depth {images[1]}")
    # 40 samples of 12 images in two units: each image once, each shard's index once, or once more
    # where two of the loader's threads ask for it at the same time.
    assert all(TRAIN + 2 <= number <= TRAIN + 4 for number in images)
    assert proxy.count("val.zarr/depth/q/c/") == 0
    assert VAL + 1 <= proxy.count("val.zarr/image/data/c/") <= VAL + 2
    assert set(proxy.requests) == {"GET", "HEAD"}
    proxy.paths.clear()
    _fit(tmp_path, *settings, "--max-iterations", "20", "--out", "again")
    assert proxy.count("/image/data/c/") == 0  # all of it lies in the local cache now
    local = ("--train", "train.zarr", "--val", "val.zarr", "--max-iterations", "20")
    _fit(tmp_path, *local, "--out", "local")
    losses = [
        [json.loads(row).get("losses") for row in (tmp_path / run / "metrics.jsonl").open()]
        for run in ("remote", "local")
    ]
    assert losses[0] == losses[1]
