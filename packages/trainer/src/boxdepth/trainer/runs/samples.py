"""The same few training images at every checkpoint: what the masks of their boxes look like."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import nn

from boxdepth.trainer.data.store_dataset import TrainingSet
from boxdepth.trainer.engine.checkpoint import write_atomically
from boxdepth.trainer.predict.inference import InferenceSpec, Picture, predict_pictures
from boxdepth.trainer.predict.overlay import draw_overlay

FOLDER = "samples"
SIDE = 480
"""Pixels of the longer side of a picture."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Draws and keeps them: ``samples/step-0000200-IMAGE.jpg``."""

    folder: Path
    """Of the run."""
    dataset: TrainingSet
    spec: InferenceSpec
    count: int

    def __call__(self, model: nn.Module, step: int) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """The pictures by image id; they are in the run folder then."""
        made = {}
        if self.count:
            (self.folder / FOLDER).mkdir(exist_ok=True)
        for index in chosen(len(self.dataset), self.count):
            rgb, boxes = self.dataset.as_stored(index)
            if not len(boxes):
                continue
            picture = Picture(rgb=rgb, boxes_xyxy=boxes)
            (instances,) = predict_pictures(model, [picture], self.spec)
            names = [c.name for c in self.dataset.store.attributes.categories]
            drawn = shrunk(draw_overlay(rgb, instances, names, min_score=0.0))
            name = str(self.dataset.image_id(index))
            write_atomically(self.folder / FOLDER / f"step-{step:07d}-{name}.jpg", jpeg(drawn))
            made[name] = drawn
        return made


def chosen(images: int, count: int) -> list[int]:
    """Samples spread evenly over a training set."""
    return sorted({round(place) for place in np.linspace(0, images - 1, min(count, images))})


def kept(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """The pictures of a run: by image, in the order of steps."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted((folder / FOLDER).glob("step-*-*.jpg")):
        _, step, name = path.stem.split("-", 2)
        if step.isdecimal():
            found.setdefault(name, []).append((int(step), path))
    return found


def shrunk(pixels: UInt8[np.ndarray, "h w 3"], side: int = SIDE) -> UInt8[np.ndarray, "hs ws 3"]:
    """The picture with its longer side at most so long."""
    height, width = pixels.shape[:2]
    scale = min(side / max(height, width), 1.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A small file of it."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
