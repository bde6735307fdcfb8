"""Depth made elsewhere comes in as it was meant, and a store goes out and back without loss."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxdepth.depthgen.datasets.coco import read_custom
from boxdepth.depthgen.datasets.records import Dataset, OnBad
from boxdepth.depthgen.exchange import DepthMeaning, export_store, import_depth, import_hdf5
from boxdepth.depthgen.exchange.depth_files import open_source, read_depth_file
from boxdepth.depthgen.exchange.depth_grid import to_grid
from boxdepth.depthgen.store import (
    ConfigError,
    DataError,
    MissingExtraError,
    open_store,
    write_store,
)

from .conftest import content, run_cli, tree

h5py = pytest.importorskip("h5py")

GRID = (12, 16)


@pytest.fixture
def masked_store(tmp_path: Path) -> Path:
    given = content(7)
    mask = {"size": [48, 64], "counts": "ab"}
    given["records"] = [
        replace(r, masks=tuple([mask, None][: len(r.labels)])) for r in given["records"]
    ]
    given["depth"][2] = None
    return write_store(tmp_path / "s.zarr", **given, unit=3, masks=True)


def test_a_store_goes_to_hdf5_and_back_with_every_array_the_same(
    masked_store: Path, tmp_path: Path
) -> None:
    export_store(open_store(masked_store), tmp_path / "s.h5", to="hdf5")
    assert import_hdf5(tmp_path / "s.h5", tmp_path / "back.zarr") == 7
    arrays = {
        path: {n: data for n, data in tree(path).items() if not n.startswith(".boxdepth")}
        for path in (masked_store, tmp_path / "back.zarr")
    }
    assert arrays[masked_store] == arrays[tmp_path / "back.zarr"]
    before, after = open_store(masked_store), open_store(tmp_path / "back.zarr")
    assert [before.masks(i) for i in range(7)] == [after.masks(i) for i in range(7)]


def test_hdf5_reads_row_by_row_without_us(masked_store: Path, tmp_path: Path) -> None:
    store = open_store(masked_store)
    export_store(store, tmp_path / "s.h5", to="hdf5")
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["image/id"][...].tolist() == store.image_ids.tolist()
        assert file["image/file"][3].tobytes() == store.image_bytes(3)
        depth = file["depth/q"][3] * file["depth/scale"][3] + file["depth/offset"][3]
        np.testing.assert_allclose(depth, content(7)["depth"][3], atol=1e-3)
        assert file["depth/valid"][...].tolist() == [1, 1, 0, 1, 1, 1, 1]


def test_coco_annotations_describe_the_same_boxes(masked_store: Path, tmp_path: Path) -> None:
    export_store(open_store(masked_store), tmp_path / "s.json", to="coco")
    document = json.loads((tmp_path / "s.json").read_text())
    records = content(7)["records"]
    assert [image["file_name"] for image in document["images"]] == [r.name for r in records]
    boxes = np.concatenate([r.boxes_xyxy for r in records])
    written = np.array([a["bbox"] for a in document["annotations"]])
    np.testing.assert_allclose(written[:, :2] + written[:, 2:], boxes[:, 2:], rtol=1e-6)
    assert {a["category_id"] for a in document["annotations"]} <= {3, 70}
    assert document["annotations"][0]["segmentation"] == {"size": [48, 64], "counts": "ab"}


def test_webdataset_samples_are_whole(masked_store: Path, tmp_path: Path) -> None:
    store = open_store(masked_store)
    export_store(store, tmp_path / "wds", to="webdataset")
    samples: dict[str, dict[str, bytes]] = {}
    for file in sorted((tmp_path / "wds").iterdir()):
        with tarfile.open(file) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                data = tar.extractfile(member)
                assert data is not None
                samples.setdefault(key, {})[suffix] = data.read()
    assert len(samples) == 7
    for i, sample in enumerate(samples.values()):
        facts = json.loads(sample["json"])
        assert sample["png"] == store.image_bytes(i)
        assert facts["id"] == int(store.image_ids[i])
        if store.depth_valid[i]:
            q = np.array(Image.open(io.BytesIO(sample["depth.png"])))
            np.testing.assert_array_equal(q, store.quantised_depth(i))
        else:
            assert "depth.png" not in sample


def test_parquet_rows_are_whole(masked_store: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    store = open_store(masked_store)
    export_store(store, tmp_path / "s.parquet", to="parquet")
    rows = parquet.read_table(tmp_path / "s.parquet").to_pylist()
    assert [row["id"] for row in rows] == store.image_ids.tolist()
    assert rows[1]["image"]["bytes"] == store.image_bytes(1)
    assert rows[2]["depth"] is None
    assert rows[1]["boxes_xyxy"] == store.boxes(1).xyxy.tolist()


def test_nothing_is_replaced_unasked_and_nothing_is_left_half(
    masked_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "s.h5"
    out.write_text("years of work")
    store = open_store(masked_store)
    with pytest.raises(ConfigError, match="there already"):
        export_store(store, out, to="hdf5")

    def fail(_: int) -> bytes:
        raise RuntimeError

    monkeypatch.setattr(store, "image_bytes", fail)
    with pytest.raises(RuntimeError):
        export_store(store, out, to="hdf5", overwrite=True)
    assert out.read_text() == "years of work"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5", "s.zarr"]


# --- import -------------------------------------------------------------------------------------


@pytest.fixture
def photos(coco_root: Callable[..., Path]) -> Dataset:
    root = coco_root(5) / "coco"
    return read_custom(
        None,
        images=root / "train2017",
        annotations=root / "annotations" / "instances_train2017.json",
        split="train",
    )


def _millimetres(record: Any, seed: int) -> np.ndarray:
    """A slope from 0.8 m to 4 m with a hole of zeros in its middle."""
    rows, columns = np.mgrid[: record.height, : record.width]
    depth = 800 + 3200 * (rows + columns + seed) / (record.height + record.width + seed)
    depth[record.height // 3 : record.height // 2, record.width // 3 : record.width // 2] = 0
    return depth.astype(np.uint16)


def _save(folder: Path, dataset: Dataset, kind: str) -> Path:
    """The same depth in every container that can be read."""
    maps = [_millimetres(record, seed) for seed, record in enumerate(dataset.records)]
    if kind == "hdf5 by id":
        with h5py.File(folder / "d.h5", "w") as file:
            for record, depth in zip(dataset.records, maps, strict=True):
                file[str(record.id)] = depth
        return folder / "d.h5"
    for record, depth in zip(dataset.records, maps, strict=True):
        file = folder / Path(record.name).stem
        if kind == "npy":
            np.save(file.with_suffix(".npy"), depth)
        elif kind == "exr":
            exr = pytest.importorskip("OpenEXR")
            header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
            exr.File(header, {"Z": depth.astype(np.float32)}).write(f"{file}.exr")
        else:
            array = depth.astype(np.float32) if kind == "tiff" else depth
            Image.fromarray(array).save(file.with_suffix(f".{kind}"))
    return folder


@pytest.mark.parametrize("kind", ["png", "npy", "tiff", "exr", "hdf5 by id"])
def test_metric_depth_comes_in_from_every_container(
    photos: Dataset, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "depth"
    folder.mkdir()
    source = open_source(_save(folder, photos, kind), key=None)
    meaning = DepthMeaning(kind="metric", metres=0.001)
    done = import_depth(photos, source, meaning, store=tmp_path / "s.zarr", grid=GRID, unit=2)
    assert (done.images, done.without_depth, done.shards) == (5, 0, 3)
    assert 0.01 < done.hole_share < 0.05
    store = open_store(tmp_path / "s.zarr")
    assert store.attributes.depth.kind == "metric"
    for i, record in enumerate(photos.records):
        measured, inverse = store.depth_measured(i), store.inverse_depth(i)
        assert not measured[5, 7]
        assert measured[0, 0]
        # The corner where the slope begins is the nearest point; a hole never is.
        assert inverse[measured].max() == inverse[0, 0] == pytest.approx(255)
        assert inverse[~measured].max() < 200
        scale, offset = store.depth_scale(i)
        metres = store.quantised_depth(i) * scale + offset
        expected = _millimetres(record, i)[-1, -1] / 1000
        assert metres[-1, -1] == pytest.approx(expected, abs=0.2)


def test_one_array_with_ids(photos: Dataset, tmp_path: Path) -> None:
    records = [r for r in photos.records if r.height == 48]
    landscape = replace(photos, records=tuple(records))
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["z"] = np.stack([_millimetres(r, r.id) for r in reversed(records)])
        file["ids"] = np.array([r.id for r in reversed(records)])
    source = open_source(tmp_path / "d.h5", key=None)
    for record in records:
        np.testing.assert_array_equal(source.read(record), _millimetres(record, record.id))
    meaning = DepthMeaning(kind="inverse", sign="far-large")
    import_depth(landscape, source, meaning, store=tmp_path / "s.zarr", grid=GRID)
    store = open_store(tmp_path / "s.zarr")
    assert store.inverse_depth(0)[0, 0] > store.inverse_depth(0)[-1, -1]


def test_interrupted_it_goes_on_to_the_same_bytes(photos: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "depth"
    folder.mkdir()
    source = open_source(_save(folder, photos, "npy"), key=None)
    meaning = DepthMeaning(kind="height")

    def make(name: str, **options: Any) -> Path:
        import_depth(photos, source, meaning, store=tmp_path / name, grid=GRID, unit=1, **options)
        return tmp_path / name

    class Stop(Exception): ...

    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise Stop

    whole = make("whole.zarr")
    with pytest.raises(Stop):
        make("s.zarr", progress=stop)
    assert tree(make("s.zarr")) == tree(whole)


def test_what_cannot_be_depth_is_refused(photos: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "depth"
    folder.mkdir()
    _save(folder, photos, "png")
    names = [Path(record.name).stem for record in photos.records]
    Image.new("RGB", (64, 48)).save(folder / f"{names[0]}.png")
    Image.fromarray(np.ones((48, 48), np.uint16)).save(folder / f"{names[1]}.png")
    (folder / f"{names[2]}.png").unlink()
    (folder / f"{names[3]}.png").write_bytes(b"nope")
    source, meaning = open_source(folder, key=None), DepthMeaning(kind="inverse")
    with pytest.raises(DataError) as error:
        import_depth(photos, source, meaning, store=tmp_path / "s.zarr", grid=GRID)
    for word in ("a coloured picture", "another shape", "no depth map of its name", "cannot be"):
        assert word in str(error.value)
    done = import_depth(
        photos, source, meaning, store=tmp_path / "s.zarr", grid=GRID, on_bad=OnBad.skip
    )
    assert len(done.skipped) == 3
    assert done.without_depth == 1


def test_two_maps_for_one_image_are_refused(photos: Dataset, tmp_path: Path) -> None:
    stem = Path(photos.records[0].name).stem
    for place in ("a", "b"):
        (tmp_path / "depth" / place).mkdir(parents=True)
        np.save(tmp_path / "depth" / place / f"{stem}.npy", np.ones((4, 4)))
    source = open_source(tmp_path / "depth", key=None)
    with pytest.raises(DataError, match="2 depth maps have its name"):
        source.read(photos.records[0])


def test_pickled_arrays_are_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        read_depth_file(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("holes", "hole"), [((0.0,), 0.0), ((), np.nan), ((-1.0,), -1.0), ((65535.0,), 65535.0)]
)
def test_a_hole_is_invalid_whatever_stands_there(holes: tuple[float, ...], hole: float) -> None:
    depth = np.linspace(10, 20, 64).reshape(8, 8)
    depth[2:6, 2:6] = hole
    values, measured = DepthMeaning(kind="inverse", holes=holes).measured(depth)
    gridded = to_grid(values, measured, grid=(4, 4))
    assert gridded is not None
    cells, seen = gridded
    assert (~seen).sum() == 4
    assert 10 <= cells.min() <= cells.max() <= 20


def test_the_grid_holds_the_area_mean() -> None:
    random = np.random.default_rng(0)
    depth = random.uniform(1, 9, (6, 10)).astype(np.float32)
    gridded = to_grid(depth, np.ones((6, 10), bool), grid=(4, 3))
    assert gridded is not None
    # Each pixel cut into 4 x 3 equal parts: cells then hold whole parts.
    fine = depth.repeat(4, axis=0).repeat(3, axis=1)
    expected = fine.reshape(4, 6, 3, 10).mean(axis=(1, 3))
    np.testing.assert_allclose(gridded[0], expected, rtol=1e-5)


def test_the_meaning_is_never_guessed(
    photos: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "depth"
    folder.mkdir()
    _save(folder, photos, "png")
    root = tmp_path / "data" / "coco"
    common = [
        "import", folder, tmp_path / "s.zarr", "--images", root / "train2017",
        "--annotations", root / "annotations" / "instances_train2017.json",
    ]  # fmt: skip
    for extra, words in (
        ([], "what the numbers mean cannot be known"),
        (["--kind", "metric"], "how many metres one step is"),
        (["--kind", "metric", "--metres", "0.001", "--sign", "near-large"], "far is large"),
    ):
        assert run_cli([*common, *extra], monkeypatch) == 2
        assert words in capsys.readouterr().err
    options = ["--kind", "metric", "--metres", "0.001", "--json"]
    assert run_cli([*common, *options], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 5
    out = tmp_path / "s.json"
    assert run_cli(["export", tmp_path / "s.zarr", out, "--json"], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["to"] == "coco"


def test_a_missing_package_is_named_with_its_extra(
    masked_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"boxdepth-depthgen\[hdf5\]"):
        export_store(open_store(masked_store), tmp_path / "s.h5", to="hdf5")
