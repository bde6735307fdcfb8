"""Nothing that happens to a store passes unseen, and what was interrupted is taken up again."""

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxdepth.depthgen.store import (
    EnvironmentFailure,
    StoreBusyError,
    StoreError,
    StoreMismatchError,
    open_store,
    verify_store,
    write_store,
)
from boxdepth.depthgen.store.lock import hold_lock

from .conftest import content, tree


def _read_everything(path: Path) -> list[object]:
    store = open_store(path)
    return [
        (store.image_bytes(i), store.quantised_depth(i).tobytes(), store.boxes(i).xyxy.tobytes())
        for i in range(len(store))
    ]


def test_damage_is_named_with_array_shard_and_images(store_path: Path) -> None:
    (store_path / "depth" / "q" / "c" / "1" / "0" / "0").unlink()
    with pytest.raises(
        StoreError, match=r"array depth/q, shard 1 .*images 33\.\.54 \(4\): missing"
    ):
        open_store(store_path)
    (problem,) = verify_store(store_path, deep=False).problems
    assert "depth/q" in problem


@pytest.mark.parametrize("lost", ["depth/q/c/1/0/0", "boxes/xyxy/c/0/0", "image/id/zarr.json"])
def test_writing_again_brings_back_what_was_lost(store_path: Path, lost: str) -> None:
    before = tree(store_path)
    (store_path / lost).unlink()
    write_store(store_path, **content(10), unit=4)
    assert tree(store_path) == before


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_taken_up_at_any_unit_the_bytes_are_the_same(tmp_path: Path, done: int) -> None:
    """The state after a kill: some units sealed, one half written, temporaries, no manifest."""
    whole = write_store(tmp_path / "whole.zarr", **content(7), unit=2)
    path = write_store(tmp_path / "s.zarr", **content(7), unit=2)
    (path / ".boxdepth" / "MANIFEST.json").unlink()
    for unit in range(done, 4):
        (path / ".boxdepth" / "records" / f"{unit:06d}.json").unlink()
    os.truncate(path / "image" / "data" / "c" / "3", 1000)
    (path / "depth" / "q" / "c" / ".0.partial").write_bytes(b"rest")
    (path / ".boxdepth" / "records" / ".000003.json.tmp").write_bytes(b"rest")
    write_store(path, **content(7), unit=2)
    assert tree(path) == tree(whole)


def test_other_inputs_are_listed_and_nothing_changes(store_path: Path) -> None:
    before = tree(store_path)
    with pytest.raises(
        StoreMismatchError, match=r"generator\.model was \"given\", is \"other\""
    ) as e:
        write_store(store_path, **content(10), unit=5, generator={"model": "other"})
    assert "unit was 4, is 5" in str(e.value)
    assert tree(store_path) == before


def test_a_folder_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="not a boxdepth store"):
        write_store(tmp_path, **content(2))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_links_inside_a_store_are_refused(store_path: Path, tmp_path: Path) -> None:
    shard = store_path / "image" / "data" / "c" / "0"
    (tmp_path / "elsewhere").write_bytes(shard.read_bytes())
    shard.unlink()
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="a link"):
        open_store(store_path)


def _rewrite_manifest(store: Path, change: Callable[[dict[str, Any]], None], record: str) -> None:
    """What somebody with bad intent can do: change a file and every hash that vouches for it."""
    file, manifest = store / record, store / ".boxdepth" / "MANIFEST.json"
    text = file.read_text()
    body = json.loads(text)
    change(body)
    file.write_text(json.dumps(body).ljust(len(text)))
    vouching = json.loads(manifest.read_text())
    group = "metadata" if file.name == "zarr.json" else "records"
    name = record if group == "metadata" else file.name
    vouching[group][name] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(vouching))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("image/id/zarr.json", {"shape": [10**13]}, r"array image/id is int64 \(1000"),
        ("boxes/xyxy/zarr.json", {"data_type": "int32"}, "array boxes/xyxy is int32"),
        ("depth/valid/zarr.json", {"shape": [4]}, r"array depth/valid is uint8 \(4,\)"),
        (".boxdepth/records/000000.json", {"image_ids": []}, "do not add up to 10 images"),
        (".boxdepth/records/000000.json", {"objects": {"../x": {}}}, "leads out of the store"),
    ],
)
def test_a_forged_store_is_refused_before_it_is_read(
    store_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    _rewrite_manifest(store_path, lambda body: body.update(change), name)
    with pytest.raises(StoreError, match=message):
        open_store(store_path)


def test_a_forged_record_removes_nothing_outside(store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    record = ".boxdepth/records/dataset.json"

    def forge(body: dict[str, Any]) -> None:
        body["objects"]["../thesis.txt"] = {"nbytes": 1, "sha256": ""}

    _rewrite_manifest(store_path, forge, record)
    write_store(store_path, **content(10), unit=4)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert len(open_store(store_path)) == 10


_WRITER = """
from depthgen.conftest import content
from boxdepth.depthgen.store import write_store
print("ready", flush=True)
write_store({path!r}, **content(16), unit=2)
"""


def _start_writer(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER.format(path=str(path))],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_killed_at_random_moments_the_tree_ends_identical(tmp_path: Path) -> None:
    whole = write_store(tmp_path / "whole.zarr", **content(16), unit=2)
    path, rng = tmp_path / "s.zarr", random.Random(1)
    for sealed in (0, 0, 2, 4, 7):
        process = _start_writer(path)
        while len(list(path.glob(".boxdepth/records/0*.json"))) < sealed:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.12))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    process = _start_writer(path)
    process.communicate()
    assert process.returncode == 0
    assert tree(path) == tree(whole)


def test_a_second_writer_is_told_who_holds_the_store(store_path: Path) -> None:
    lock = store_path / ".boxdepth" / "lock"
    holder = (
        "import sys, time; from pathlib import Path\n"
        "from boxdepth.depthgen.store.lock import hold_lock\n"
        f"with hold_lock(Path({str(lock)!r})): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(StoreBusyError, match=rf"process {process.pid} on .* since 20"):
        write_store(store_path, **content(10), unit=4)
    process.kill()
    process.communicate()
    with hold_lock(lock):
        pass
    assert lock.read_bytes() == b""


def test_an_old_length_of_depth_is_not_trusted(store_path: Path) -> None:
    """A chunk that announces gigabytes is refused before anything is allocated."""
    from boxdepth.depthgen.store.shards import decode_blosc

    bomb = b"\x02\x01\x03\x02" + (1 << 31).to_bytes(4, "little") + bytes(24)
    with pytest.raises(StoreError, match="chunk of 2147483648 bytes, expected 384"):
        decode_blosc(bomb, nbytes=2 * 12 * 16, where="here")
    assert np.asarray(open_store(store_path).quantised_depth(0)).nbytes == 384


def test_a_failing_disk_is_no_damaged_store(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(store_path)

    def fail(*_: object) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(EnvironmentFailure, match=r"data/c/0.*Stale file handle"):
        store.image_bytes(0)
