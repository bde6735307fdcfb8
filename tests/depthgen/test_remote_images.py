"""Images in a bucket: the same records, counts and store bytes as from a folder."""

import json
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxdepth.depthgen.datasets.read import Source, read_dataset
from boxdepth.depthgen.datasets.records import Dataset, OnBad
from boxdepth.depthgen.generate import Job, generate
from boxdepth.depthgen.models import find_model
from boxdepth.depthgen.predictor import load_predictor
from boxdepth.depthgen.store import ConfigError, DataError, EnvironmentFailure, locate, open_store
from boxdepth.depthgen.store.remote_file import RemoteFile

from .conftest import encode, photo, run_cli, tree
from .layouts import write_coco, write_voc, write_yolo
from .s3 import Proxy, serve_proxy, serve_s3

pytest.importorskip("obstore")
pytest.importorskip("moto")

from boxdepth.depthgen.store import bucket as bucket_module

ODD = ("a b#c.png", "100%20+x.png", "sub/dir/z.png", unicodedata.normalize("NFD", "für é.png"))


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    with serve_s3() as address:
        yield address


@pytest.fixture
def proxy(server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with serve_proxy(server, patience=2.5) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canary-key-id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setattr(bucket_module, "_TIMEOUT", "2s")
        monkeypatch.setattr(bucket_module, "_PAUSE_SECONDS", 0.001)
        yield running


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    return "s3://bucket/" + "".join(c if c.isalnum() else "-" for c in request.node.name)


def upload(folder: Path, url: str) -> None:
    location = locate(url)
    for file in folder.rglob("*"):
        if file.is_file():
            location.write(file.relative_to(folder).as_posix(), file.read_bytes())


def facts(data: Dataset) -> list[tuple[object, ...]]:
    """All of a dataset's records but where their files lie."""
    return [
        (r.id, r.name, r.height, r.width, r.boxes_xyxy.tolist(), r.labels.tolist(),
         r.box_ids.tolist(), r.crowd.tolist(), r.areas.tolist())
        for r in data.records
    ]  # fmt: skip


def at(url: str) -> Path:
    """A URL as the command line hands it on."""
    return Path(url)


def test_coco_in_a_bucket_makes_the_store_of_coco_in_a_folder(
    proxy: Proxy, url: str, coco_root: Callable[..., Path], tiny_model: Path, tmp_path: Path
) -> None:
    root = coco_root(6)
    upload(root, url)
    local, remote = (
        read_dataset("coco", Source(data_root=where, split="train2017"))
        for where in (root, at(url))
    )
    assert facts(local) == facts(remote)
    assert local.report == remote.report
    job = Job(
        dataset=local, predictor=load_predictor(find_model(str(tiny_model)), device="cpu"),
        store=tmp_path / "local.zarr", grid=(20, 24), unit=4, batch_size=2,
    )  # fmt: skip
    generate(job)
    proxy.requests.clear()
    generate(replace(job, dataset=remote, store=tmp_path / "remote.zarr"))
    assert proxy.requests == {"GET": 6}  # the listing told the sizes; then each image once
    assert tree(tmp_path / "local.zarr") == tree(tmp_path / "remote.zarr")


def test_a_folder_with_odd_names_and_other_files(proxy: Proxy, url: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for i, name in enumerate(ODD):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(photo(i, height=40 + i)))
    (folder / "notes.csv").write_text("a,b")
    (folder / ".DS_Store").write_bytes(b"x")
    upload(folder, url)
    proxy.requests.clear()
    remote = read_dataset("folder", Source(images=at(url)))
    assert proxy.requests == {"GET": 1 + len(ODD)}  # a listing, and the head of each image
    local = read_dataset("folder", Source(images=folder))
    assert facts(local) == facts(remote)
    assert local.report == remote.report
    for ours, theirs in zip(local.records, remote.records, strict=True):
        assert isinstance(ours.path, Path)
        assert isinstance(theirs.path, RemoteFile)
        assert ours.path.read_bytes() == theirs.path.read_bytes()


def test_composed_and_decomposed_forms_of_a_name_are_one(proxy: Proxy, url: str) -> None:
    name = unicodedata.normalize("NFD", "für.png")
    locate(url).write(f"photos/{name}", encode(photo(0)))
    document = {
        "images": [{"id": 1, "file_name": "f\u00fcr.png", "height": 48, "width": 64}],
        "annotations": [], "categories": [],
    }  # fmt: skip
    locate(url).write("boxes.json", json.dumps(document).encode())
    source = Source(images=at(url) / "photos", annotations=at(url) / "boxes.json")
    (found,) = read_dataset("custom", source).records
    assert isinstance(found.path, RemoteFile)
    assert found.path.read_bytes() == encode(photo(0))


def test_what_is_missing_is_named_as_in_a_folder(
    proxy: Proxy, url: str, coco_root: Callable[..., Path], tiny_model: Path, tmp_path: Path
) -> None:
    root = coco_root(4)
    upload(root, url)
    gone = sorted(n for n in locate(url).sizes() if n.endswith((".jpg", ".png")))[1]
    source = Source(data_root=at(url), split="train2017")
    before = read_dataset("coco", source)
    locate(url).remove([gone])
    predictor = load_predictor(find_model(str(tiny_model)), device="cpu")
    job = Job(
        dataset=read_dataset("coco", source), predictor=predictor, store=tmp_path / "a.zarr",
        grid=(20, 24), unit=4, batch_size=2,
    )  # fmt: skip
    with pytest.raises(DataError, match=rf"no file, or an empty one, at s3://.*{Path(gone).name}"):
        generate(job)
    # It went after the bucket was listed.
    late = replace(job, dataset=before, store=tmp_path / "b.zarr")
    with pytest.raises(DataError, match=rf"{Path(gone).name}: not there any more"):
        generate(late)
    generate(replace(late, on_bad=OnBad.skip, store=tmp_path / "c.zarr"))
    (reason,) = open_store(tmp_path / "c.zarr").skipped.values()
    assert reason.endswith("or read anew")


def test_a_network_that_fails_is_no_bad_image(
    proxy: Proxy, url: str, coco_root: Callable[..., Path], tiny_model: Path, tmp_path: Path
) -> None:
    upload(coco_root(4), url)
    data = read_dataset("coco", Source(data_root=at(url), split="train2017"))
    job = Job(
        dataset=data, predictor=load_predictor(find_model(str(tiny_model)), device="cpu"),
        store=tmp_path / "a.zarr", grid=(20, 24), unit=2, batch_size=2, on_bad=OnBad.skip,
    )  # fmt: skip
    proxy.faults.extend(["unavailable"] * 10_000)
    with pytest.raises(EnvironmentFailure, match="6 attempts failed"):
        generate(job)
    proxy.faults.clear()
    proxy.faults.extend(["unavailable", "reset", "truncated"])
    generate(job)
    assert open_store(tmp_path / "a.zarr").skipped == {}
    assert len(proxy.injected) > 3


def _cityscapes(root: Path) -> None:
    """Three frames: ids as a picture, ids as polygons, one without an object."""
    for k, city in enumerate(("aachen", "aachen", "bonn")):
        stem = f"{city}_{k:06d}_000019"
        picture = root / "leftImg8bit" / "train" / city / f"{stem}_leftImg8bit.png"
        labels = root / "gtFine" / "train" / city
        picture.parent.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(encode(photo(k, 40, 60)))
        ids = np.zeros((40, 60), np.uint16)
        if k < 2:
            ids[5:20, 8:30] = 26000 + k
        if k == 1:
            square = [[8, 5], [29, 5], [29, 19], [8, 19]]
            document = {
                "imgHeight": 40, "imgWidth": 60,
                "objects": [{"label": "car", "polygon": square}],
            }  # fmt: skip
            (labels / f"{stem}_gtFine_polygons.json").write_text(json.dumps(document))
        else:
            Image.fromarray(ids).save(labels / f"{stem}_gtFine_instanceIds.png")


@pytest.mark.parametrize("layout", ["yolo", "voc", "cityscapes"])
def test_a_label_file_an_image(proxy: Proxy, url: str, layout: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    if layout == "cityscapes":
        _cityscapes(root)
    else:
        _, document = write_coco(tmp_path / "source")
        if layout == "yolo":
            write_yolo(root, document, outlines=True)
        else:
            write_voc(root, document)
        folder = root / ("images/train" if layout == "yolo" else "JPEGImages/train")
        shutil.copytree(tmp_path / "source" / "images" / "train", folder, dirs_exist_ok=True)
        (folder / unicodedata.normalize("NFD", "für é.png")).write_bytes(encode(photo(9)))
        (folder / ".DS_Store").write_bytes(b"x")
    upload(root, url)
    proxy.requests.clear()
    remote = read_dataset(layout, Source(data_root=at(url), split="train"), masks=True)
    asked = dict(proxy.requests)
    local = read_dataset(layout, Source(data_root=root, split="train"), masks=True)
    assert facts(local) == facts(remote)
    assert [record.masks for record in local.records] == [r.masks for r in remote.records]
    assert local.report == remote.report
    assert local.categories == remote.categories
    assert sum(len(record.labels) for record in remote.records) > 1
    for ours, theirs in zip(local.records, remote.records, strict=True):
        assert isinstance(ours.path, Path)
        assert isinstance(theirs.path, RemoteFile)
        assert ours.path.read_bytes() == theirs.path.read_bytes()
    labels = sum(
        f.is_file() and (f.suffix in (".txt", ".xml", ".yaml") or "_gtFine_" in f.name)
        for f in root.rglob("*")
    )
    heads = 0 if layout == "cityscapes" else len(remote.records)
    assert asked == {"GET": 1 + labels + heads}  # a listing, then each file once


@pytest.mark.parametrize("train", ["/etc", "../../elsewhere/images", "s3://other/images", "."])
def test_a_data_yaml_in_a_bucket_leads_nowhere_else(
    proxy: Proxy, url: str, train: str, tmp_path: Path
) -> None:
    locate(url).write("set/data.yaml", f"names: [a]\ntrain: {train}\n".encode())
    locate(url).write("elsewhere/images/a.png", encode(photo(0)))
    with pytest.raises(ConfigError, match=r"no YOLO split 'train'|no image of split 'train'"):
        read_dataset("yolo", Source(data_root=at(f"{url}/set"), split="train"))


def test_labels_that_cannot_be_used_are_named_in_a_bucket_too(proxy: Proxy, url: str) -> None:
    bucket = locate(url)
    bucket.write("data.yaml", b"names: [a]\n")
    for k, text in enumerate(("0 0.5 0.5 0.1 0.1", "7 0.5 0.5 0.1 0.1", "x")):
        bucket.write(f"images/train/{k}.png", encode(photo(k)))
        bucket.write(f"labels/train/{k}.txt", text.encode())
    with pytest.raises(DataError, match=r"(?s)1\.png.*class 7.*2\.png.*numbers are expected"):
        read_dataset("yolo", Source(data_root=at(url), split="train"))
    with pytest.raises(ConfigError, match=r"no such file: s3://.*/other\.yaml"):
        read_dataset("yolo", Source(annotations=at(f"{url}/other.yaml"), split="train"))


def test_nothing_there_is_told(proxy: Proxy, url: str) -> None:
    with pytest.raises(ConfigError, match=f"no image folder at {url}"):
        read_dataset("folder", Source(images=at(url)))
    with pytest.raises(ConfigError, match=r"no COCO split 'train2017' under s3:/"):
        read_dataset("coco", Source(data_root=at(url)))


def test_as_typed(
    proxy: Proxy, url: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes(encode(photo(i)))
    upload(folder, f"{url}/photos")
    common = ("--model", tiny_model, "--depth-grid", "20x24", "--device", "cpu")
    here = tmp_path / "b.zarr"
    for images, store in ((f"{url}/photos", f"{url}/a.zarr"), (folder, here)):
        typed = ("run", "--dataset", "folder", "--images", images, "--store", store, *common)
        assert run_cli(typed, monkeypatch) == 0
    bucket = locate(f"{url}/a.zarr")
    remote = {name: bucket.read(name) for name in bucket.sizes()}
    assert remote == {name: data for name, data in tree(here).items() if name != ".boxdepth/lock"}
