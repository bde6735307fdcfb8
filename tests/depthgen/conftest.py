"""Small stores, datasets and a depth model with random weights."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxdepth.depthgen.store import Category, ImageRecord, write_store

CATEGORIES = (Category(id=3, name="cat"), Category(id=70, name="toaster"))


def encode(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def photo(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth coloured picture: compresses like a photograph, differs from seed to seed."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def record(index: int, *, boxes: int, height: int = 48, width: int = 64) -> ImageRecord:
    random = np.random.default_rng(1000 + index)
    corner = random.uniform(0, 20, (boxes, 2))
    xyxy = np.concatenate([corner, corner + random.uniform(1, 20, (boxes, 2))], axis=1)
    return ImageRecord(
        id=7 * index + 5,
        name=f"für {index}.png",
        path=None,
        height=height,
        width=width,
        boxes_xyxy=xyxy.astype(np.float32),
        labels=random.integers(0, 2, boxes),
        box_ids=np.arange(boxes) + 100 * index,
        crowd=random.random(boxes) < 0.3,
        areas=random.uniform(1, 50, boxes).astype(np.float32),
    )


def content(count: int) -> dict[str, Any]:
    """Arguments for ``write_store``: ``count`` images, every third without boxes."""
    random = np.random.default_rng(count)
    return {
        "records": [record(i, boxes=i % 3) for i in range(count)],
        "images": [encode(photo(i)) for i in range(count)],
        "depth": [random.uniform(-3, 40, (12, 16)).astype(np.float32) for _ in range(count)],
        "categories": CATEGORIES,
    }


def tree(path: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    """A finished store of ten images in units of four."""
    return write_store(tmp_path / "ten.zarr", **content(10), unit=4)


@pytest.fixture
def coco_root(tmp_path: Path) -> Callable[..., Path]:
    """Write a COCO split of ``count`` photos in the official layout; returns the data root."""

    def build(count: int = 6, *, change: Callable[[dict[str, Any]], None] | None = None) -> Path:
        root = tmp_path / "data"
        images = root / "coco" / "train2017"
        images.mkdir(parents=True)
        (root / "coco" / "annotations").mkdir()
        document: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 70, "name": "toaster"}, {"id": 3, "name": "cat"}],
        }
        for i in range(count):
            height, width = (48, 64) if i % 2 else (64, 48)
            name = f"{i:012d}.jpg"
            (images / name).write_bytes(encode(photo(i, height, width), "JPEG", quality=90))
            document["images"].append(
                {"id": i + 1, "file_name": name, "height": height, "width": width}
            )
            for k in range(i % 3):
                document["annotations"].append(
                    {
                        "id": 10 * i + k + 1,
                        "image_id": i + 1,
                        "category_id": (3, 70)[k],
                        "bbox": [4.0 + k, 6.0, 20.0, 25.5],
                        "iscrowd": 0,
                    }
                )
        if change:
            change(document)
        file = root / "coco" / "annotations" / "instances_train2017.json"
        file.write_text(json.dumps(document))
        return root

    return build


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with transformers' own DPT, tiny, with random weights that give lively depth."""
    import torch
    from transformers import DPTConfig, DPTForDepthEstimation

    folder = tmp_path_factory.mktemp("model") / "tiny-dpt"
    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
        depth_estimation_type="relative",
    )
    torch.manual_seed(0)
    model = DPTForDepthEstimation(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() > 1 and ("neck" in name or "head" in name):
                weights.normal_(std=0.3)
        model.head.head[4].bias.fill_(5.0)
    model.save_pretrained(folder)
    write_processor(folder)
    return folder


def write_processor(folder: Path, **changes: Any) -> None:
    settings = {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1 / 255,
    } | changes
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def run_cli(arguments: Sequence[object], monkeypatch: pytest.MonkeyPatch) -> int:
    """The command in this process: its exit code."""
    from boxdepth.depthgen.cli import main

    monkeypatch.setattr("sys.argv", ["depthgen", *(str(argument) for argument in arguments)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code
