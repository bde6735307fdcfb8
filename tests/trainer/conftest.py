"""Small stores and small runs for the trainer's tests."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from boxdepth.depthgen.store import Category, ImageRecord, Store, open_store, write_store
from boxdepth.trainer.build import build_model
from boxdepth.trainer.cli.main import _run
from boxdepth.trainer.config import RunConfig, presets
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.engine.checkpoint import Checkpoint, save_checkpoint


class MakeStore(Protocol):
    """Write a store of noisy images of the given sizes and open it."""

    def __call__(
        self,
        name: str = "train",
        *,
        sizes: list[tuple[int, int]] = ...,
        boxes: Callable[[int, int, int], np.ndarray] = ...,
        crowd: Callable[[int], np.ndarray] | None = None,
        masks: bool = False,
        depth: Callable[[int], np.ndarray | None] = ...,
        categories: tuple[tuple[int, str], ...] = ...,
        first_id: int = ...,
    ) -> Store: ...


CUPS_AND_BOWLS = ((3, "cup"), (9, "bowl"))


def two_boxes(index: int, height: int, width: int) -> np.ndarray:
    """Two boxes an image, different in each."""
    random = np.random.default_rng([7, index])
    corner = random.uniform(0, 0.3, (2, 2)) * [width, height]
    extent = random.uniform(0.3, 0.6, (2, 2)) * [width, height]
    return np.concatenate([corner, corner + extent], axis=1).astype(np.float32)


def ramp(index: int) -> np.ndarray:
    """Nearer at the bottom, and a little different in each image."""
    rows = np.linspace(0, 1, 24, dtype=np.float32)[:, None] ** (1 + 0.1 * index)
    return np.broadcast_to(rows, (24, 32)).copy()


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """The writer of small stores, in the test's own folder."""

    def make(
        name: str = "train",
        *,
        sizes: list[tuple[int, int]] | None = None,
        boxes: Callable[[int, int, int], np.ndarray] = two_boxes,
        crowd: Callable[[int], np.ndarray] | None = None,
        masks: bool = False,
        depth: Callable[[int], np.ndarray | None] = ramp,
        categories: tuple[tuple[int, str], ...] = CUPS_AND_BOWLS,
        first_id: int = 1000,
    ) -> Store:
        sizes = sizes or [(64, 96)] * 6
        records, images = [], []
        for index, (height, width) in enumerate(sizes):
            images.append(_png(index, height, width))
            box = boxes(index, height, width)
            records.append(_record(first_id + index, index, height, width, box, crowd))
        path = write_store(
            tmp_path / f"{name}.zarr",
            records,
            images=images,
            depth=[depth(index) for index in range(len(sizes))],
            categories=[Category(id=number, name=name) for number, name in categories],
            masks=masks,
            unit=4,
        )
        return open_store(path)

    return make


def _png(index: int, height: int, width: int) -> bytes:
    random = np.random.default_rng([8, index])
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _record(
    image_id: int,
    index: int,
    height: int,
    width: int,
    boxes_xyxy: np.ndarray,
    crowd: Callable[[int], np.ndarray] | None,
) -> ImageRecord:
    count = len(boxes_xyxy)
    return ImageRecord(
        id=image_id,
        name=f"{index:04d}.png",
        path=None,
        height=height,
        width=width,
        boxes_xyxy=boxes_xyxy.reshape(-1, 4),
        labels=np.arange(count, dtype=np.int64) % 2,
        box_ids=100 * (index + 1) + np.arange(count, dtype=np.int64),
        crowd=np.zeros(count, bool) if crowd is None else crowd(index),
        areas=np.full(count, 10.0, np.float32),
        masks=tuple(_disc(height, width, box) for box in boxes_xyxy),
    )


def _disc(height: int, width: int, box: np.ndarray) -> dict[str, object]:
    """The ellipse inside a box as a run-length mask."""
    y, x = np.mgrid[0:height, 0:width]
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    rx, ry = max((box[2] - box[0]) / 2, 0.5), max((box[3] - box[1]) / 2, 0.5)
    inside = ((x + 0.5 - cx) / rx) ** 2 + ((y + 0.5 - cy) / ry) ** 2 <= 1
    rle = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


TINY = (
    'model.backbone.extra={"channels": [8, 16, 16, 32], "stem_width": 8}',
    "model.fpn_channels=32",
    "model.fcos.convs=1",
    'model.mask_branch={"channels": 8, "convs": 1, "out_channels": 4}',
    'data.augmentation={"short_sides": [48, 64], "max_size": 96, "flip": 0.5}',
    "data.batch_size=2",
    "optimizer.name=sgd",
    "optimizer.learning_rate=0.02",
    "optimizer.weight_decay=0.0001",
    "data.workers=0",
    "inference.short_side=64",
    "losses.warmup_iterations=2",
    'schedule={"iterations": 6, "steps": [4], "warmup_iterations": 2}',
    'checkpoints={"every": 2, "keep": 2, "log_every": 1}',
)
"""The `--set` that turns scenes_tiny into a run of a second."""


@pytest.fixture
def tiny_settings() -> tuple[str, ...]:
    """What makes scenes_tiny a run of a second."""
    return TINY


@pytest.fixture
def tiny_run() -> RunConfig:
    """A run of a second: six iterations of a very small network."""
    return apply_overrides(presets.scenes_tiny(), TINY)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run the command in this process: exit code, stdout, stderr on one line."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["trainer", *map(str, arguments)])
        code = _run()
        said = capsys.readouterr()
        return code, said.out, " ".join(said.err.split())

    return run


@pytest.fixture
def fit(trainer, make_store: MakeStore, tiny_settings: tuple[str, ...]):
    """`trainer fit` of a tiny run on small stores."""
    train = make_store("train", masks=True).path
    val = make_store("val", sizes=[(64, 96), (50, 70)], masks=True).path
    chosen = [part for setting in tiny_settings for part in ("--set", setting)]

    def run(*arguments: object) -> tuple[int, str, str]:
        stores = ("--train", train, "--val", val)
        return trainer("fit", "scenes_tiny", *stores, *chosen, *arguments)

    return run


@pytest.fixture(autouse=True)
def _same_draws_every_day() -> None:
    """Who draws numbers without a seed of its own draws the same ones, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture
def tiny_checkpoint(tmp_path: Path, tiny_run: RunConfig) -> Path:
    """A run folder with a checkpoint of random weights, classes 3 cup and 9 bowl."""
    config = apply_overrides(tiny_run, ["model.num_classes=2", "inference.score_threshold=0.0"])
    torch.manual_seed(0)
    save_checkpoint(
        tmp_path / "run" / "checkpoints",
        Checkpoint(
            step=1,
            model=build_model(config.model).state_dict(),
            run={
                "config": config.model_dump(mode="json"),
                "categories": [{"id": number, "name": name} for number, name in CUPS_AND_BOWLS],
            },
        ),
    )
    return tmp_path / "run"
