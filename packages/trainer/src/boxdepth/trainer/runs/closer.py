"""A closer look at the images that a run learnt from, with what it has learnt."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from boxdepth.depthgen.store import is_remote
from boxdepth.trainer.config.overrides import load_config
from boxdepth.trainer.data.store_dataset import open_training_set
from boxdepth.trainer.predict.inference import Picture
from boxdepth.trainer.predict.model import load_model
from boxdepth.trainer.predict.overlay import draw_overlay
from boxdepth.trainer.predict.predictor import Predictor
from boxdepth.trainer.runs.samples import chosen, jpeg, shrunk
from boxdepth.trainer.runs.start import CONFIG


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """One training image."""

    name: str
    width: int
    height: int
    boxes: int
    quality: float
    """Mean expected quality of the masks of its boxes, 0..1."""
    load_seconds: float
    seconds: float
    """To load it and to predict its masks."""
    picture: bytes
    """JPEG with the masks."""


def look_closer(run: Path, *, images: int, device: torch.device) -> list[Looked]:
    """Masks, quality and time of training images spread over the store; [] if it is gone.

    Args:
        images: how many at most.

    Raises:
        CheckpointError: no weights to look with.
        DataError: a store that can't be used.
    """
    saved = run / CONFIG
    config = load_config(saved) if saved.is_file() else None
    store = config.data.train if config is not None else None
    if config is None or store is None or not (is_remote(store) or store.exists()):
        return []
    dataset = open_training_set(store, config.data, seed=config.seed)
    predictor = Predictor(load_model(run, device))
    predictor.tiling = (
        None  # what is looked at is a sample: a tile, where the run learns from those
    )
    looked = []
    for index in chosen(len(dataset), images):
        began = time.perf_counter()
        rgb, boxes = dataset.as_stored(index)
        loaded = time.perf_counter()
        if not len(boxes):
            continue
        [instances] = predictor.stream([Picture(rgb=rgb, boxes_xyxy=boxes)])
        ended = time.perf_counter()
        drawn = shrunk(draw_overlay(rgb, instances, predictor.classes, min_score=0.0))
        quality = instances.quality
        looked.append(
            Looked(
                name=dataset.store.image_names[int(dataset.rows[index])],
                width=rgb.shape[1],
                height=rgb.shape[0],
                boxes=len(boxes),
                quality=0.0 if quality is None else float(quality.mean()),
                load_seconds=loaded - began,
                seconds=ended - began,
                picture=jpeg(drawn),
            )
        )
    return looked
