"""The command as it is typed: results, exit codes, one line for every mistake."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxdepth.depthgen.store import open_store

from .conftest import encode, photo, run_cli, tree

Build = Callable[..., Path]


@pytest.fixture
def arguments(coco_root: Build, tiny_model: Path, tmp_path: Path) -> list[object]:
    """``depthgen run`` over seven photos in units of two."""
    return [
        "run", "--dataset", "coco", "--data-root", coco_root(7), "--model", tiny_model,
        "--store", tmp_path / "s.zarr", "--unit", 2, "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture
def depthgen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    return lambda *arguments: run_cli(arguments, monkeypatch)


def _result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_run_info_verify_preview(
    arguments: list[object],
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    store = tmp_path / "s.zarr"
    assert depthgen(*arguments, "--json") == 0
    result = _result(capsys)
    assert set(result) == {
        "store", "images", "skipped", "shards", "bytes", "seconds", "images_per_second",
        "model_seconds", "model", "revision", "notes",
    }  # fmt: skip
    assert (result["images"], result["skipped"], result["shards"]) == (7, 0, 4)
    assert (result["model"], result["revision"]) == ("tiny-dpt", "local")

    assert depthgen(*arguments) == 0
    assert "is finished already" in capsys.readouterr().err

    assert depthgen("info", store, "--json") == 0
    facts = _result(capsys)
    assert (facts["images"], facts["boxes"], facts["classes"]) == (7, 6, 2)
    assert facts["boxes_per_class"] == {"cat": 4, "toaster": 2}
    assert depthgen("info", store) == 0
    assert "tiny-dpt" in capsys.readouterr().err

    assert depthgen("verify", store, "--deep", "--json") == 0
    assert _result(capsys)["ok"] is True

    assert depthgen("preview", store, "--out", tmp_path / "p", "--count", 3, "--json") == 0
    pictures = _result(capsys)["pictures"]
    assert len(pictures) == 3
    assert depthgen("preview", store, "--out", tmp_path / "p", "--count", 3) == 2
    assert "is there already" in capsys.readouterr().err
    assert depthgen("preview", store, "--out", tmp_path / "p", "--overwrite", "--count", 3) == 0
    assert depthgen("preview", store, "--out", tmp_path / "p", "--image-id", 99) == 2
    assert "no image with id 99" in capsys.readouterr().err
    with Image.open(pictures[0]) as picture:
        assert picture.width > 3 * picture.height / 2


def test_verify_fails_its_gate_on_damage_and_a_repeated_run_repairs(
    arguments: list[object],
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    store = tmp_path / "s.zarr"
    depthgen(*arguments)
    before = tree(store)
    shard = store / "image" / "data" / "c" / "1"
    data = bytearray(shard.read_bytes())
    data[10] ^= 1
    shard.write_bytes(data)
    assert depthgen("verify", store) == 0
    assert depthgen("verify", store, "--deep") == 4
    shown = capsys.readouterr().err
    assert "array image/data, shard 1" in shown
    assert "images 3..4 (2)" in shown
    (store / ".boxdepth" / "records" / "000001.json").unlink()
    assert depthgen(*arguments) == 0
    assert tree(store) == before


def test_dry_run_writes_nothing(
    arguments: list[object],
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert depthgen(*arguments, "--dry-run", "--json") == 0
    assert _result(capsys)["images"] == 7
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(("count", "height"), [(40, 48), (12, 400)])
def test_a_dry_run_knows_the_size_within_five_percent(
    depthgen: Callable[..., int],
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    count: int,
    height: int,
) -> None:
    folder, store = tmp_path / "photos", tmp_path / "s.zarr"
    folder.mkdir()
    for i in range(count):
        (folder / f"{i}.png").write_bytes(encode(photo(i, height=height, width=height + 32)))
    typed = (
        "run", "--dataset", "folder", "--images", folder, "--model", tiny_model, "--store", store,
        "--unit", 8, "--device", "cpu", "--depth-grid", "96x128",
    )  # fmt: skip
    assert depthgen(*typed, "--dry-run", "--json") == 0
    said = _result(capsys)
    assert said["seconds"] > 0
    assert depthgen(*typed) == 0
    nbytes = sum(len(data) for data in tree(store).values())
    assert said["bytes"] == pytest.approx(nbytes, rel=0.05)


def test_masks_and_limits(
    arguments: list[object],
    depthgen: Callable[..., int],
    tmp_path: Path,
) -> None:
    assert depthgen(*arguments, "--with-masks", "--limit", 3, "--depth-grid", "10x12") == 0
    store = open_store(tmp_path / "s.zarr")
    assert len(store) == 3
    assert store.attributes.masks
    assert store.inverse_depth(2).shape == (10, 12)


_MISTAKES: list[tuple[list[object], int, str]] = [
    (["--split", "test2017"], 2, "no COCO split 'test2017' under"),
    (["--model", "dpt-huge"], 2, "unknown model 'dpt-huge'"),
    (["--model", "da2-large"], 2, "forbids commercial use"),
    (["--model", "hf:nobody/nothing"], 6, "cannot fetch nobody/nothing"),
    (["--aspect", "keep"], 2, "square inputs only"),
    (["--depth-grid", "384"], 2, "ROWSxCOLUMNS is expected"),
    (["--annotations", "x.json"], 2, "belongs to --dataset custom and yolo"),
    (["--revision", "main"], 2, "belongs to hub models"),
]


@pytest.mark.parametrize(("mistake", "code", "message"), _MISTAKES)
def test_a_mistake_is_one_line_and_its_exit_code(
    arguments: list[object],
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    mistake: list[object],
    code: int,
    message: str,
) -> None:
    assert depthgen(*arguments, *mistake) == code
    shown = capsys.readouterr()
    (line,) = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_usage_errors_exit_2(
    depthgen: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert depthgen("run", "--dataset", "imagenet") == 2
    assert depthgen("run", "--datset", "coco") == 2
    assert "--dataset" in capsys.readouterr().err
    assert depthgen("--version") == 0
    assert capsys.readouterr().out.startswith("depthgen 0.")


def test_models_are_listed_with_their_licences(
    depthgen: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert depthgen("models", "--json") == 0
    rows = {row["name"]: row for row in _result(capsys)["models"]}
    assert rows["da2-large"]["commercial"] is False
    assert rows["dpt-large"]["hub_id"] == "Intel/dpt-large"
    assert rows["zoedepth"]["sign"] == "far_is_large"
    assert depthgen("models") == 0
    assert "CC-BY-NC-4.0 (!)" in capsys.readouterr().err


def test_missing_and_truncated_images_exit_3(
    arguments: list[object],
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    images = tmp_path / "data" / "coco" / "train2017"
    whole = (images / "000000000003.jpg").read_bytes()
    (images / "000000000003.jpg").unlink()
    assert depthgen(*arguments) == 3
    assert "image 4: no file" in capsys.readouterr().err
    (images / "000000000003.jpg").write_bytes(whole[:300])
    assert depthgen(*arguments) == 3
    assert "image 4: '000000000003.jpg': cannot be decoded" in capsys.readouterr().err
    assert depthgen("info", tmp_path / "s.zarr") == 3
    assert "unfinished (1 of 4 units are done)" in capsys.readouterr().err
    (images / "000000000003.jpg").write_bytes(encode(photo(3), "JPEG", quality=90))
    assert depthgen(*arguments, "--on-bad", "skip", "--overwrite") == 0


def test_other_inputs_exit_2_with_the_differences(
    arguments: list[object],
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert depthgen(*arguments, "--limit", 4) == 0
    assert depthgen(*arguments, "--limit", 4, "--batch-size", 2, "--unit", 3) == 2
    shown = capsys.readouterr().err
    assert "generator.batch_size was 8, is 2" in shown
    assert "unit was 2, is 3" in shown


def _command(arguments: list[object]) -> list[str]:
    code = "from boxdepth.depthgen.cli import main; main()"
    return [sys.executable, "-c", code, *(str(argument) for argument in arguments)]


@pytest.mark.slow
def test_terminated_it_exits_143_and_goes_on_to_identical_bytes(
    arguments: list[object], depthgen: Callable[..., int], tmp_path: Path
) -> None:
    small = [*arguments, "--batch-size", 1]
    depthgen(*small)
    whole = tree(tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr")
    process = subprocess.Popen(_command(small), stderr=subprocess.PIPE, text=True)
    first = tmp_path / "s.zarr" / ".boxdepth" / "records" / "000000.json"
    while process.poll() is None and not first.exists():
        time.sleep(0.0005)
    process.terminate()
    _, shown = process.communicate()
    assert process.returncode == 143
    assert "error: terminated; what is finished stays" in shown
    assert "Traceback" not in shown
    assert depthgen(*small) == 0
    assert tree(tmp_path / "s.zarr") == whole


def test_ctrl_c_exits_130_and_says_what_is_kept(
    arguments: list[object],
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from boxdepth.depthgen.generate import units

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(units, "predict_depth", interrupt)
    assert depthgen(*arguments) == 130
    assert "error: interrupted; what is finished stays" in capsys.readouterr().err


@pytest.mark.slow
def test_a_second_writer_exits_75(
    arguments: list[object],
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    depthgen(*arguments)
    lock = tmp_path / "s.zarr" / ".boxdepth" / "lock"
    holder = (
        "import time; from pathlib import Path\n"
        "from boxdepth.depthgen.store.lock import hold_lock\n"
        f"with hold_lock(Path({str(lock)!r})): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert depthgen(*arguments) == 75
    assert f"process {process.pid} on" in capsys.readouterr().err
    process.kill()
    process.communicate()
    assert depthgen(*arguments) == 0


@pytest.mark.data
def test_real_photographs_of_every_kind(
    shared_data: Path, tiny_model: Path, depthgen: Callable[..., int], tmp_path: Path
) -> None:
    """Crowds, images without objects, greyscale and odd sizes, street scenes, one's own photos."""
    common = ["--model", tiny_model, "--device", "cpu"]
    for options, images in (
        (["coco", "--data-root", shared_data / "coco-dev", "--split", "val2017"], 80),
        (["cityscapes", "--data-root", shared_data / "cityscapes-dev"], 4),
        (
            ["custom", "--images", shared_data / "fruitnuts" / "images", "--annotations",
             shared_data / "fruitnuts" / "annotations" / "instances.json"], 12,
        ),
    ):  # fmt: skip
        store = tmp_path / f"{options[0]}.zarr"
        assert depthgen("run", "--dataset", *options, "--store", store, *common) == 0
        assert depthgen("verify", store, "--deep") == 0
        opened = open_store(store)
        assert len(opened) == images
        for i in range(images):
            assert opened.image(i).shape[:2] == tuple(opened.image_sizes[i])
            assert opened.inverse_depth(i).max() == 255


def test_what_was_mended_is_told_and_stands_in_the_result(
    coco_root: Build,
    tiny_model: Path,
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def change(document: dict[str, Any]) -> None:
        for item in document["annotations"]:
            item["iscrowd"] = "0"
        del document["categories"][0]["name"]

    arguments = [
        "run", "--dataset", "coco", "--data-root", coco_root(3, change=change), "--model",
        tiny_model, "--store", tmp_path / "s.zarr", "--device", "cpu", "--json",
    ]  # fmt: skip
    assert depthgen(*arguments) == 0
    out, err = capsys.readouterr()
    notes = ["1 category: without a name, called category <id>",
             "3 annotations: iscrowd written as text"]  # fmt: skip
    assert json.loads(out.splitlines()[-1])["notes"] == notes
    assert all(f"note: {note}" in err for note in notes)
    store = open_store(tmp_path / "s.zarr")
    assert [category.name for category in store.attributes.categories] == ["cat", "category 70"]
    assert not any(store.boxes(i).crowd.any() for i in range(3))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_exif_orientation_is_counted_also_where_no_size_betrays_it(
    coco_root: Build,
    tiny_model: Path,
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    orientation: int,
) -> None:
    root = coco_root(3, change=lambda d: d["images"][1].update(height=48, width=48))
    exif = Image.Exif()
    exif[0x0112] = orientation
    square = root / "coco" / "train2017" / "000000000001.jpg"
    square.write_bytes(encode(photo(1, 48, 48), "JPEG", exif=exif))
    arguments = [
        "run", "--dataset", "coco", "--data-root", root, "--model", tiny_model,
        "--store", tmp_path / "s.zarr", "--device", "cpu", "--json",
    ]  # fmt: skip
    assert depthgen(*arguments) == 0
    out, err = capsys.readouterr()
    assert "1 image: EXIF orientation ignored" in err
    assert json.loads(out.splitlines()[-1])["notes"][0].startswith("1 image: EXIF orientation")
    records = tmp_path / "s.zarr" / ".boxdepth" / "records"
    record = json.loads((records / "000000.json").read_text())
    assert record["remarks"]["exif_orientation_ignored"] == {"2": orientation}


def test_a_tilde_is_the_home_folder_in_every_path(
    coco_root: Build,
    tiny_model: Path,
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shells leave the tilde of --store=~/x alone."""
    home = tmp_path / "home"
    home.mkdir()
    coco_root(2).rename(home / "data")
    shutil.copytree(tiny_model, home / "model")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    run = ["run", "--dataset", "coco", "--model=~/model", "--store=~/s.zarr", "--device", "cpu"]
    assert depthgen(*run, "--data-root=~/data") == 0
    monkeypatch.setenv("BOXDEPTH_DATA", "~/data")
    assert depthgen(*run) == 0
    assert "finished already" in capsys.readouterr().err
    assert depthgen("info", "~/s.zarr") == 0
    assert depthgen("preview", "~/s.zarr", "--out=~/pictures") == 0
    custom = ["--images=~/data/coco/train2017",
              "--annotations=~/data/coco/annotations/instances_train2017.json"]  # fmt: skip
    assert depthgen("run", "--dataset", "custom", *custom, *run[3:5], "--store=~/c.zarr") == 0
    assert depthgen("sample", "--out=~/scenes", "--train", 1, "--val", 0) == 0
    assert {path.name for path in home.iterdir()} == {
        "data", "model", "s.zarr", "c.zarr", "pictures", "scenes",
    }  # fmt: skip
    assert not (tmp_path / "~").exists()
    assert depthgen("info", "~no-such-user/s.zarr") == 2
    assert "write ./~no-such-user" in " ".join(capsys.readouterr().err.split())


def test_brackets_in_names_come_out_as_they_are(
    coco_root: Build,
    tiny_model: Path,
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    names = ["[red]a[/red]", "x[/y]\\"]

    def change(document: dict[str, Any]) -> None:
        for item, name in zip(document["categories"], names, strict=True):
            item["name"] = name

    store = tmp_path / "s [/old] [bold].zarr"
    root = coco_root(3, change=change)
    assert depthgen(
        "run", "--dataset", "coco", "--data-root", root, "--model", tiny_model, "--store", store,
        "--device", "cpu",
    ) == 0  # fmt: skip
    assert str(store) in capsys.readouterr().err
    assert depthgen("info", store) == 0
    err = capsys.readouterr().err
    assert "[red]a[/red] 1" in err
    assert "x[/y]\\ 2" in err
    assert depthgen("verify", store) == 0
    assert depthgen("preview", store, "--out", tmp_path / "p [/x]") == 0
    assert "p [/x]" in capsys.readouterr().err
    assert depthgen("info", tmp_path / "nothing [/x]") == 3
    assert "nothing [/x]" in capsys.readouterr().err


def test_kind_and_sign_are_told_and_kept(
    coco_root: Build,
    tiny_model: Path,
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    root = coco_root(2)
    model = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    config = json.loads((model / "config.json").read_text())
    del config["depth_estimation_type"]
    (model / "config.json").write_text(json.dumps(config))
    run = ["run", "--dataset", "coco", "--data-root", root, "--model", model, "--device", "cpu"]
    assert depthgen(*run, "--store", tmp_path / "a.zarr") == 2
    assert "say it: --kind inverse or --kind metric" in capsys.readouterr().err
    assert depthgen(*run, "--store", tmp_path / "a.zarr", "--kind", "metric") == 0
    assert "its output is metres" in capsys.readouterr().err
    depth = open_store(tmp_path / "a.zarr").attributes.depth
    assert (depth.kind, depth.sign) == ("metric", "far_is_large")
    turned = ["--store", tmp_path / "b.zarr", "--kind", "inverse"]
    assert depthgen(*run, *turned, "--sign", "far-large") == 0
    assert open_store(tmp_path / "b.zarr").attributes.depth.sign == "far_is_large"
    assert depthgen(*run, *turned) == 2
    assert "far_is_large" in capsys.readouterr().err


def test_a_folder_of_any_images_gets_depth(
    tiny_model: Path,
    depthgen: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    grey = (np.arange(48 * 64, dtype=np.uint16) * 20).reshape(48, 64)
    exif = Image.Exif()
    exif[0x0112] = 3
    for name, data in {
        "a.jpg": encode(photo(0), "JPEG", exif=exif),
        "b.webp": encode(photo(1), "WEBP"),
        "c.tif": encode(grey, "TIFF"),
        "d.bmp": encode(photo(3), "BMP"),
        "sub/e.png": encode(grey),
        "sub/f.jpg": encode(photo(4)[..., 0], "JPEG"),
        "._a.jpg": b"\0\5\x16\7",
        "notes.md": b"words",
    }.items():
        (images / name).write_bytes(data)
    store = tmp_path / "s.zarr"
    run = ["run", "--dataset", "folder", "--images", images, "--model", tiny_model]
    assert depthgen(*run, "--store", store, "--device", "cpu", "--json") == 0
    result = _result(capsys)
    assert (result["images"], result["skipped"]) == (6, 0)
    assert result["notes"] == [
        "1 folder: without annotations: its images get depth and no boxes",
        "1 file: hidden, passed over",
        "1 file: no image by its ending (.md), passed over",
        "1 image: EXIF orientation ignored, boxes are taken to refer to the pixels as they lie in "
        "the file (depthgen preview shows whether they do)",
        "2 images: 16 bits a channel, of which the upper eight are used",
    ]
    opened = open_store(store)
    assert opened.image_names[-1] == "sub/f.jpg"
    np.testing.assert_array_equal(opened.image(2)[..., 0], grey >> 8)
    assert depthgen("info", store) == 0
    assert depthgen("preview", store, "--out", tmp_path / "p") == 0
    assert depthgen("verify", store, "--deep") == 0


def test_yolo_and_voc_as_typed(
    tiny_model: Path, depthgen: Callable[..., int], tmp_path: Path
) -> None:
    for layout in ("yolo", "voc"):
        root = tmp_path / layout
        folder = root / "train" / ("images" if layout == "yolo" else "")
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(encode(photo(0), "JPEG"))
        if layout == "yolo":
            (root / "train" / "labels").mkdir()
            (root / "train" / "labels" / "a.txt").write_text("0 0.5 0.5 0.25 0.5")
            (root / "data.yaml").write_text("train: ../train/images\nnames: [cat]")
        else:
            (folder / "a.xml").write_text(
                "<annotation><object><name>cat</name><bndbox><xmin>24</xmin><ymin>12</ymin>"
                "<xmax>40</xmax><ymax>36</ymax></bndbox></object></annotation>"
            )
        store = tmp_path / f"{layout}.zarr"
        run = ["run", "--dataset", layout, "--data-root", root, "--model", tiny_model]
        assert depthgen(*run, "--store", store, "--device", "cpu", "--with-masks") == 0
        boxes = open_store(store).boxes(0)
        assert (boxes.xyxy.tolist(), boxes.label.tolist()) == ([[24, 12, 40, 36]], [0])
