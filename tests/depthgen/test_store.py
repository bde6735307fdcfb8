"""The store gives back what was put in, as plain zarr v3, and only when it is whole."""

import json
import pickle  # noqa: TID251  (that stores survive it is what is tested)
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from boxdepth.depthgen.store import (
    DepthInfo,
    StoreError,
    UnitRows,
    open_store,
    open_writer,
    plan_store,
    write_store,
)
from boxdepth.depthgen.store.depth import normalised_inverse_depth, quantise

from .conftest import CATEGORIES, content, photo, tree


def test_gives_back_images_boxes_and_ids(store_path: Path) -> None:
    given_, store = content(10), open_store(store_path)
    assert len(store) == 10
    assert store.image_ids.tolist() == [r.id for r in given_["records"]]
    assert store.image_names == [r.name for r in given_["records"]]
    assert store.image_sizes.tolist() == [[48, 64]] * 10
    assert store.attributes.categories == CATEGORIES
    for i, record in enumerate(given_["records"]):
        assert store.image_bytes(i) == given_["images"][i]
        np.testing.assert_array_equal(store.image(i), photo(i))
        boxes = store.boxes(i)
        np.testing.assert_array_equal(boxes.xyxy, record.boxes_xyxy)
        np.testing.assert_array_equal(boxes.label, record.labels)
        np.testing.assert_array_equal(boxes.id, record.box_ids)
        np.testing.assert_array_equal(boxes.crowd, record.crowd)
        np.testing.assert_array_equal(boxes.area, record.areas)
        assert store.masks(i) == [None] * len(record.labels)


def test_inverse_depth_spans_0_to_255_and_keeps_its_shape(store_path: Path) -> None:
    store = open_store(store_path)
    for i, depth in enumerate(content(10)["depth"]):
        expected = (depth - depth.min()) / (depth.max() - depth.min()) * 255
        got = store.inverse_depth(i)
        assert got.min() == 0
        assert got.max() == 255
        np.testing.assert_allclose(got, expected, atol=255 / 65535)


def test_own_reader_equals_zarr_byte_for_byte(store_path: Path) -> None:
    store, group = open_store(store_path), zarr.open_group(store_path, mode="r")
    starts, sizes = group["image/start"][:], group["image/nbytes"][:]
    for i in range(len(store)):
        plain = group["image/data"][int(starts[i]) : int(starts[i]) + int(sizes[i])]
        assert plain.tobytes() == store.image_bytes(i)
        np.testing.assert_array_equal(group["depth/q"][i], store.quantised_depth(i))


def test_two_writes_of_the_same_are_the_same_bytes(tmp_path: Path) -> None:
    first = write_store(tmp_path / "a.zarr", **content(5), unit=2)
    second = write_store(tmp_path / "b.zarr", **content(5), unit=2)
    assert tree(first) == tree(second)
    assert open_store(first).fingerprint == open_store(second).fingerprint


def test_reads_shards_whose_chunks_lie_in_another_order(tmp_path: Path) -> None:
    """Other zarr writers may order the chunks of a shard as they like."""
    given_ = content(3)
    noise = np.random.default_rng(0).integers(0, 256, 400_000, dtype=np.uint8).tobytes()
    images = [noise, noise[::-1], given_["images"][2]]
    path = write_store(tmp_path / "s.zarr", **(given_ | {"images": images}), unit=4)
    shard = path / "image" / "data" / "c" / "0"
    data, chunk = bytearray(shard.read_bytes()), 256 * 1024
    chunks = open_store(path).attributes.image_capacity // chunk
    index = np.frombuffer(data[-16 * chunks - 4 : -4], "<u8").reshape(chunks, 2).copy()
    data[:chunk], data[chunk : 2 * chunk] = data[chunk : 2 * chunk], data[:chunk]
    index[[0, 1]] = index[[1, 0]]
    body = index.tobytes()
    data[-16 * chunks - 4 :] = body + struct.pack("<I", google_crc32c.value(body))
    shard.write_bytes(data)
    store = open_store(path)
    assert [store.image_bytes(i) for i in range(3)] == images


_FORKING = """
import os, sys
from boxdepth.depthgen.store import open_store
store = open_store(sys.argv[1])
expected = [store.image_bytes(i) for i in range(len(store))]
child = os.fork()
if child == 0:
    same = [store.image_bytes(i) for i in range(len(store))] == expected
    same = same and store.quantised_depth(3).any()
    same = same and len(open_store(sys.argv[1])) == len(store)
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_store_opened_before_a_fork_reads_after_it(store_path: Path) -> None:
    command = [sys.executable, "-c", _FORKING, str(store_path)]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0


def test_pickled_and_threaded_readers_agree(store_path: Path) -> None:
    store = open_store(store_path)
    expected = [store.image_bytes(i) for i in range(len(store))]
    again = pickle.loads(pickle.dumps(store))  # noqa: S301
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(again.image_bytes, list(range(10)) * 20)) == expected * 20


def test_masks_come_back_only_when_they_were_stored(tmp_path: Path) -> None:
    from dataclasses import replace

    given_ = content(3)
    mask = {"size": [48, 64], "counts": "ab"}
    given_["records"] = [
        replace(r, masks=tuple([mask, None][: len(r.labels)])) for r in given_["records"]
    ]
    store = open_store(write_store(tmp_path / "m.zarr", **given_, masks=True))
    assert [store.masks(i) for i in range(3)] == [[], [mask], [mask, None]]


def test_skipped_images_do_not_appear_and_are_remembered(tmp_path: Path) -> None:
    given_ = content(4)
    attributes = _plan(given_)
    with open_writer(tmp_path / "s.zarr", attributes, given_["records"]) as writer:
        images, depth = [*given_["images"]], [*given_["depth"]]
        images[1] = depth[1] = None
        skipped = {given_["records"][1].id: "cut short"}
        writer.write_unit(0, UnitRows(images=images[:2], depth=depth[:2], skipped=skipped))
        writer.write_unit(1, UnitRows(images=images[2:], depth=depth[2:]))
        writer.finish()
    store = open_store(tmp_path / "s.zarr")
    assert store.image_ids.tolist() == [5, 19, 26]
    assert store.skipped == {12: "cut short"}
    assert store.image_bytes(1) == given_["images"][2]
    np.testing.assert_array_equal(store.boxes(1).xyxy, given_["records"][2].boxes_xyxy)


@pytest.mark.parametrize("useless", [np.full((12, 16), 3.0), np.full((12, 16), np.nan)])
def test_depth_without_information_is_marked_invalid(tmp_path: Path, useless: np.ndarray) -> None:
    given_ = content(3)
    given_["depth"][1] = useless.astype(np.float32)
    store = open_store(write_store(tmp_path / "s.zarr", **given_))
    assert store.depth_valid.tolist() == [True, False, True]
    assert not store.inverse_depth(1).any()


@settings(max_examples=50)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([8, 12, 16]),
    st.floats(-1e4, 1e4),
    st.floats(1, 1e6),
)
def test_quantisation_errs_by_half_a_step_at_most(
    seed: int, bits: int, low: float, span: float
) -> None:
    depth = (low + span * np.random.default_rng(seed).random((5, 7))).astype(np.float32)
    quantised = quantise(depth, bits=bits)
    assert quantised is not None
    q, scale, offset = quantised
    step = float(depth.max() - depth.min()) / (2**bits - 1)
    back = q * np.float64(scale) + np.float64(offset)
    # Half a step, and what float32 leaves of scale and offset.
    slack = 4 * np.spacing(np.float32(np.abs(depth).max()))
    assert np.abs(back - depth).max() <= 0.5 * step + slack
    assert q.min() == 0
    assert q.max() == 2**bits - 1


def test_metric_and_far_is_large_depth_come_out_as_inverse_depth() -> None:
    metres = np.array([[1.0, 3.0, 9.0]], dtype=np.float32)
    q, scale, offset = quantise(metres, bits=16) or pytest.fail("constant")

    def convert(info: DepthInfo) -> list[float]:
        values = normalised_inverse_depth(q, scale=float(scale), offset=float(offset), info=info)
        return values[0].tolist()

    metric = DepthInfo(kind="metric", sign="far_is_large", grid=(1, 3))
    # 1/(1+z): 0.5, 0.25, 0.1; stretched to 0..255.
    assert convert(metric) == pytest.approx([255, 255 * 0.15 / 0.4, 0], abs=0.02)
    flipped = DepthInfo(kind="inverse_relative", sign="far_is_large", grid=(1, 3))
    assert convert(flipped) == pytest.approx([255, 255 * 0.75, 0], abs=0.02)


def test_an_unfinished_store_is_refused_with_the_count(tmp_path: Path) -> None:
    given_ = content(4)
    with open_writer(tmp_path / "s.zarr", _plan(given_), given_["records"]) as writer:
        writer.write_unit(0, UnitRows(images=given_["images"][:2], depth=given_["depth"][:2]))
    with pytest.raises(StoreError, match=r"unfinished \(1 of 2 units are done\); repeat"):
        open_store(tmp_path / "s.zarr")


def test_what_is_no_store_is_refused(tmp_path: Path, store_path: Path) -> None:
    with pytest.raises(StoreError, match="no such store"):
        open_store(tmp_path / "nothing.zarr")
    with pytest.raises(StoreError, match="not a boxdepth store"):
        open_store(tmp_path)
    manifest = store_path / ".boxdepth" / "MANIFEST.json"
    body = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(body | {"version": 2}))
    with pytest.raises(StoreError, match="version 2, this reader knows"):
        open_store(store_path)


def _plan(given_: dict) -> object:
    return plan_store(
        given_["records"],
        dataset="custom",
        split="train",
        categories=CATEGORIES,
        image_nbytes=np.array([len(data) for data in given_["images"]]),
        depth=DepthInfo(grid=(12, 16)),
        generator={"model": "given"},
        unit=2,
        masks=False,
    )
