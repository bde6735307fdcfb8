"""The job: every image in its place, the same bytes however often it is interrupted."""

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxdepth.depthgen.datasets.coco import read_coco
from boxdepth.depthgen.datasets.records import OnBad
from boxdepth.depthgen.generate import Job, generate
from boxdepth.depthgen.models import find_model
from boxdepth.depthgen.plan import batches, default_grid, default_unit, estimate_bytes
from boxdepth.depthgen.predictor import Predictor, load_predictor, predict_depth
from boxdepth.depthgen.preprocess import Preprocessing, resize_image
from boxdepth.depthgen.store import (
    DataError,
    EnvironmentFailure,
    StoreMismatchError,
    decode_image,
    open_store,
    verify_store,
)

from .conftest import record, tree

Build = Callable[..., Path]


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return load_predictor(find_model(str(tiny_model)), device="cpu")


@pytest.fixture
def job(coco_root: Build, predictor: Predictor, tmp_path: Path) -> Job:
    data = read_coco(coco_root(11), split="train2017")
    return Job(
        dataset=data, predictor=predictor, store=tmp_path / "s.zarr", grid=(20, 24), unit=4,
        batch_size=3,
    )  # fmt: skip


def test_every_image_gets_its_own_depth(job: Job) -> None:
    calls: list[tuple[int, int]] = []
    summary = generate(job, progress=lambda done, total: calls.append((done, total)))
    assert (summary.images, summary.shards, summary.done.units) == (11, 3, 3)
    assert calls[-1] == (11, 11)
    store = open_store(job.store)
    for i, item in enumerate(job.dataset.records):
        assert item.path is not None
        data = item.path.read_bytes()
        assert store.image_bytes(i) == data
        pixels = decode_image(data, expected_size=None, name=item.name)
        resized = resize_image(pixels, job.predictor.preprocessing)
        (depth,) = predict_depth(job.predictor, [resized], grid=job.grid).depth
        expected = (depth - depth.min()) / np.ptp(depth) * 255
        np.testing.assert_allclose(store.inverse_depth(i), expected, atol=0.02)
    assert verify_store(job.store, deep=True).problems == ()


def test_a_finished_store_is_left_alone(job: Job) -> None:
    generate(job)
    before = {path: path.stat().st_mtime_ns for path in job.store.rglob("*") if path.is_file()}
    summary = generate(job)
    assert summary.done.units == 0
    del before[job.store / ".boxdepth" / "lock"]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


class _Stop(Exception):
    """Stands for whatever interrupts a run."""


@pytest.mark.parametrize("images", [1, 4, 7, 10])
def test_interrupted_anywhere_it_goes_on_to_the_same_bytes(job: Job, images: int) -> None:
    other = replace(job, store=job.store.with_name("whole.zarr"))
    generate(other)

    def stop(done: int, total: int) -> None:
        if done >= images:
            raise _Stop

    with pytest.raises(_Stop):
        generate(job, progress=stop)
    generate(job)
    assert tree(job.store) == tree(other.store)


def test_other_model_settings_do_not_continue_a_store(job: Job) -> None:
    generate(job)
    before = tree(job.store)
    with pytest.raises(StoreMismatchError, match=r"generator\.batch_size was 3, is 5"):
        generate(replace(job, batch_size=5))
    fewer = replace(job.dataset, records=job.dataset.records[:9])
    with pytest.raises(StoreMismatchError, match="images was 11, is 9"):
        generate(replace(job, dataset=fewer))
    assert tree(job.store) == before
    generate(replace(job, batch_size=5, overwrite=True))
    assert open_store(job.store).attributes.generator["batch_size"] == 5


def _spoil(job: Job, index: int, change: Callable[[bytes], bytes]) -> None:
    path = job.dataset.records[index].path
    assert path is not None
    path.write_bytes(change(path.read_bytes()))


def test_bad_images_stop_the_run_together_and_lose_nothing(job: Job) -> None:
    _spoil(job, 5, lambda data: data[: len(data) // 2])
    _spoil(job, 7, lambda data: b"GIF89a" + data)
    with pytest.raises(DataError, match="2 bad images") as error:
        generate(job)
    assert "image 6: '000000000005.jpg': cannot be decoded" in str(error.value)
    assert "image 8: '000000000007.jpg': not JPEG" in str(error.value)
    assert (job.store / ".boxdepth" / "records" / "000000.json").is_file()
    summary = generate(replace(job, on_bad=OnBad.skip))
    assert set(summary.skipped) == {6, 8}
    store = open_store(job.store)
    assert store.image_ids.tolist() == [1, 2, 3, 4, 5, 7, 9, 10, 11]
    assert set(store.skipped) == {6, 8}


def test_missing_images_are_told_before_anything_is_written(job: Job) -> None:
    for index in (0, 9):
        path = job.dataset.records[index].path
        assert path is not None
        path.unlink()
    with pytest.raises(DataError, match=r"2 bad records.*\n.*image 1: no file"):
        generate(job)
    assert not job.store.exists()
    summary = generate(replace(job, on_bad=OnBad.skip))
    assert set(summary.skipped) == {1, 10}
    assert len(open_store(job.store)) == 9


def test_a_full_disk_is_told_and_the_run_goes_on_later(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(job, store=job.store.with_name("whole.zarr"))
    generate(other)
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 75:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFailure, match=r"the disk is full.*repeat the same command"):
        generate(job)
    monkeypatch.setattr(os, "fsync", real)
    generate(job)
    assert tree(job.store) == tree(other.store)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EFBIG, "a file may not grow that large"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.ESTALE, "the network file system has lost it"),
        (errno.EIO, "the disk fails"),
        (errno.EROFS, "read-only"),
    ],
)
def test_what_the_machine_fails_in_writing_names_the_store(
    job: Job, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EnvironmentFailure, match=words) as error:
        generate(job)
    assert str(error.value).startswith(str(job.store))


def test_a_failing_disk_is_no_bad_image(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``on_bad="skip"`` images would be left out for ever because a cable was loose."""
    real = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "000000000005.jpg":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(EnvironmentFailure, match=r"000000000005\.jpg: the disk fails"):
        generate(replace(job, on_bad=OnBad.skip))


def test_a_store_without_any_usable_image_is_not_made(job: Job) -> None:
    for index in range(len(job.dataset.records)):
        _spoil(job, index, lambda data: b"nope")
    with pytest.raises(DataError, match=r"not one of its 11 images can be used"):
        generate(replace(job, on_bad=OnBad.skip))
    with pytest.raises(DataError, match="unfinished"):
        open_store(job.store)


def test_a_store_below_a_file_is_told(job: Job) -> None:
    job.store.with_name("file").write_text("text")
    below = job.store.with_name("file") / "s.zarr"
    with pytest.raises(EnvironmentFailure, match=r"file/s\.zarr: a part of this path is a file"):
        generate(replace(job, store=below))


def test_a_run_that_cannot_fit_does_not_start(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(EnvironmentFailure, match="are needed, 0 MB are free"):
        generate(job)


def test_constant_depth_is_invalid_and_counted(
    coco_root: Build, predictor: Predictor, tmp_path: Path
) -> None:
    """With all weights zero but a bias the depth of everything is constant."""
    import copy

    flat = replace(predictor, model=copy.deepcopy(predictor.model))
    flat.model.head.head[4].weight.data.zero_()
    data = read_coco(coco_root(3), split="train2017")
    summary = generate(
        Job(dataset=data, predictor=flat, store=tmp_path / "s.zarr", grid=(8, 8), unit=4)
    )
    assert summary.done.invalid == 3
    assert not open_store(tmp_path / "s.zarr").depth_valid.any()


@given(
    st.lists(st.tuples(st.integers(20, 90), st.integers(20, 90)), min_size=1, max_size=30),
    st.integers(1, 9),
)
def test_batches_hold_every_row_once_with_one_size_each(
    sizes: list[tuple[int, int]], batch_size: int
) -> None:
    settings = Preprocessing(
        height=32, width=32, multiple=16, aspect="keep", resample=3, rescale=1 / 255,
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )  # fmt: skip
    from boxdepth.depthgen.preprocess import input_size

    records = [record(i, boxes=0, height=h, width=w) for i, (h, w) in enumerate(sizes)]
    rows = range(len(records))
    cut = batches(3, rows, records, preprocessing=settings, batch_size=batch_size)
    assert sorted(row for batch in cut for row in batch.rows) == list(rows)
    assert [batch.last for batch in cut] == [False] * (len(cut) - 1) + [True]
    for batch in cut:
        assert 1 <= len(batch.rows) <= batch_size
        assert len({input_size(*sizes[row], settings) for row in batch.rows}) == 1


def test_defaults_follow_the_dataset_and_the_model() -> None:
    settings = Preprocessing(
        height=518, width=518, multiple=14, aspect="keep", resample=3, rescale=1 / 255,
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )  # fmt: skip
    assert default_grid("coco", settings) == (384, 384)
    assert default_grid("cityscapes", settings) == (384, 768)
    assert default_grid("coco", replace(settings, height=128, width=128)) == (128, 128)
    assert (default_unit("coco"), default_unit("cityscapes")) == (256, 64)
    sizes = np.full(118_287, 163_000, dtype=np.int64)
    assert 38e9 < estimate_bytes(sizes, grid=(384, 384)) < 46e9
