"""Hostile files through the real commands: nothing in them runs, nothing outside is read.

Each canary would leave a file, show a secret or stand in a page as live markup. What only a module
can show (sockets of a cluster, credentials in logs, checkpoints) is tested beside that module.
"""

import json
import pickle  # noqa: TID251  (writes what must not be run)
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.timeout(600)
SECRET = "the-secret-of-another-file"
MARKUP = "</script><script>canary()</script><img src=x onerror=canary()>"


class _Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photographs with their boxes: ``images/`` and ``boxes.json``."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in (1, 2):
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "boxes.json").write_text(json.dumps(_document()))
    (tmp_path / "secret.txt").write_text(SECRET)
    return tmp_path


def _document() -> dict[str, list[dict[str, Any]]]:
    sizes = {"height": 48, "width": 64}
    square = [[4, 4, 24, 4, 24, 24, 4, 24]]
    return {
        "images": [{"id": n, "file_name": f"{n}.png", **sizes} for n in (1, 2)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400,
             "iscrowd": 0, "segmentation": square}
            for n in (1, 2)
        ],
        "categories": [{"id": 1, "name": "cup"}],
    }  # fmt: skip


def ended(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    code = f"from boxdepth.{command}.cli import main; main()"
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def refused(command: str, *arguments: object) -> str:
    """Ends as bad data or bad usage, in words."""
    done = ended(command, *arguments)
    assert done.returncode in {2, 3}, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    return " ".join(done.stderr.split())


def _torch_file(path: Path, canary: Path) -> None:
    torch.save({"w": _Touch(canary)}, path)


def _pickle_file(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps({"model": _Touch(canary)}, protocol=2))


@pytest.mark.parametrize(
    ("name", "write"),
    [("weights.pth", _torch_file), ("weights.pkl", _pickle_file), ("weights.pt", _pickle_file)],
)
def test_weights(
    name: str, write: Callable[[Path, Path], None], photos: Path, canary: Path
) -> None:
    write(photos / name, canary)
    said = refused("trainer", "import-weights", photos / name, photos / "out.safetensors")
    assert f"{name} is damaged or holds more than tensors and plain values (it asks for " in said
    assert not canary.exists()


def _python_in_a_model_folder(folder: Path, canary: Path) -> None:
    """A model type nobody knows, with the code that would define it."""
    lines = f"import pathlib; pathlib.Path({str(canary)!r}).touch()\n"
    (folder / "evil.py").write_text(lines + "class Config: pass\nclass Model: pass\n")
    names = {"AutoConfig": "evil.Config", "AutoModelForDepthEstimation": "evil.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": names}))


def _pickle_in_a_model_folder(folder: Path, canary: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "dpt"}))
    _torch_file(folder / "pytorch_model.bin", canary)


@pytest.mark.parametrize("write", [_python_in_a_model_folder, _pickle_in_a_model_folder])
def test_depth_models(write: Callable[[Path, Path], None], photos: Path, canary: Path) -> None:
    folder = photos / "model"
    folder.mkdir()
    settings = {"image_processor_type": "DPTImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    write(folder, canary)
    source = ("--dataset", "folder", "--images", photos / "images")
    refused("depthgen", "run", *source, "--store", photos / "s.zarr", "--model", folder)
    assert not canary.exists()


def test_depth_maps(photos: Path, canary: Path) -> None:
    (photos / "depth").mkdir()
    for number in (1, 2):
        trap = np.array([_Touch(canary)], dtype=object)
        np.save(photos / "depth" / f"{number}.npy", trap, allow_pickle=True)
    source = ("--images", photos / "images", "--annotations", photos / "boxes.json")
    refused("depthgen", "import", photos / "depth", photos / "s.zarr", *source)
    assert not canary.exists()


def test_yaml(photos: Path, canary: Path) -> None:
    path = f'!!python/object/apply:pathlib.Path ["{canary}"]'
    trap = f"names: !!python/object/apply:pathlib.Path.touch [{path}]"
    (photos / "data.yaml").write_text(f"train: images\n{trap}\n")
    source = ("--dataset", "yolo", "--annotations", photos / "data.yaml", "--split", "train")
    refused("depthgen", "run", *source, "--store", photos / "s.zarr")
    assert not canary.exists()


@pytest.mark.parametrize(
    "entity", ['<!ENTITY x SYSTEM "file://{secret}">', '<!ENTITY y "ha"><!ENTITY x "&y;&y;">']
)
def test_xml(entity: str, photos: Path) -> None:
    root = photos / "voc"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(root / "JPEGImages" / "1.jpg")
    (root / "ImageSets" / "Main" / "train.txt").write_text("1\n")
    (root / "Annotations" / "1.xml").write_text(
        textwrap.dedent(f"""\
        <!DOCTYPE annotation [{entity.format(secret=photos / "secret.txt")}]>
        <annotation><filename>1.jpg</filename><size><width>64</width><height>48</height></size>
        <object><name>&x;</name><bndbox><xmin>4</xmin><ymin>4</ymin><xmax>20</xmax><ymax>20</ymax>
        </bndbox></object></annotation>""")
    )
    source = ("--dataset", "voc", "--data-root", root, "--split", "train")
    assert "document type" in refused("depthgen", "run", *source, "--store", photos / "s.zarr")


def test_codecs_of_a_store(photos: Path, canary: Path) -> None:
    """A store that names a codec which would unpickle, or a module to import."""
    source = ("--dataset", "custom", "--images", photos / "images", "--split", "train")
    labels = ("--annotations", photos / "boxes.json")
    made = ended("depthgen", "run", *source, *labels, "--store", photos / "s.zarr", "--quiet")
    assert made.returncode == 0, made.stderr
    for file in sorted((photos / "s.zarr").rglob("zarr.json")):
        meta = json.loads(file.read_text())
        if meta["node_type"] == "array":
            meta["codecs"] = [{"name": "numcodecs.pickle", "configuration": {"protocol": 5}}]
            file.write_text(json.dumps(meta))
    (photos / "s.zarr" / "payload").write_bytes(pickle.dumps(_Touch(canary)))
    refused("trainer", "check-data", photos / "s.zarr")
    assert ended("depthgen", "verify", photos / "s.zarr").returncode in {3, 4}
    assert not canary.exists()


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/hostname", "a/../../secret.txt"])
def test_file_names_stay_below_their_folder(name: str, photos: Path) -> None:
    document = _document()
    document["images"][0]["file_name"] = name
    (photos / "boxes.json").write_text(json.dumps(document))
    source = ("--dataset", "custom", "--images", photos / "images", "--split", "train")
    labels = ("--annotations", photos / "boxes.json")
    refused("depthgen", "run", *source, *labels, "--store", photos / "s.zarr")
    rle = {"size": [48, 64], "counts": [4 * 48, 20, 48 * 64 - 4 * 48 - 20]}
    masks = [{"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": rle}]
    (photos / "masks.json").write_text(json.dumps(masks))
    out = photos / "deep" / "out"
    for form in ("png", "labelme", "yolo-seg"):
        done = ended(
            "evaluate", "convert", photos / "masks.json", "--to", form, *labels, "--out", out
        )
        assert "Traceback" not in done.stderr
        assert (photos / "secret.txt").read_text() == SECRET
        outside = {p for p in (photos / "deep").rglob("*") if p.is_file() and out not in p.parents}
        assert not outside, (form, done.stderr)


@pytest.mark.parametrize("command", ["report", "review"])
def test_pages_show_markup_as_text(command: str, photos: Path) -> None:
    document = _document()
    document["categories"][0]["name"] = MARKUP
    name = "<b onmouseover=canary()>.png"
    document["images"][0]["file_name"] = name
    (photos / "images" / "1.png").rename(photos / "images" / name)
    (photos / "boxes.json").write_text(json.dumps(document))
    rle = {"size": [48, 64], "counts": [4 * 48, 20, 48 * 64 - 4 * 48 - 20]}
    masks = [
        {"image_id": n, "category_id": 1, "score": 0.5, "segmentation": rle, "quality": 0.4}
        for n in (1, 2)
    ]
    (photos / "masks.json").write_text(json.dumps(masks))
    page = photos / "page.html"
    given = {
        "report": ("--predictions", photos / "masks.json", "--html", page),
        "review": (photos / "masks.json", "--html", page),
    }[command]
    labels = ("--annotations", photos / "boxes.json", "--images", photos / "images")
    done = ended("evaluate", command, *given, *labels)
    assert done.returncode == 0, done.stderr
    text = page.read_text("utf-8")
    for live in ("<script>canary", "<img src=x", "<b onmouseover"):
        assert live not in text
