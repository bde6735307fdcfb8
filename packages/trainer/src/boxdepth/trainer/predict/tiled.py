"""Predicting on images too large, or too dense, for one look: tile by tile."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch import nn

from boxdepth.trainer.geometry.tiles import Tiling, Window
from boxdepth.trainer.predict.inference import InferenceSpec, Picture, predict_pictures
from boxdepth.trainer.predict.results import Instances
from boxdepth.trainer.predict.tiles import merged, placed, together


def predict_tiled(
    model: nn.Module,
    picture: Picture,
    spec: InferenceSpec,
    tiling: Tiling,
    *,
    least_score: float = 0.0,
) -> Instances:
    """The instances of one picture, looked at tile by tile, each tile resized as an image is.

    At hand at once are the picture, the tiles of one batch, and run lengths. Without given boxes
    the picture is looked at as a whole, too, for objects that are longer than the overlap. Each
    look finds `inference.max_detections` at most.

    Args:
        least_score: of what is found; given boxes keep all.
    """
    height, width = picture.rgb.shape[:2]
    if picture.boxes_xyxy is not None:
        return _in_boxes(model, picture, spec, tiling)
    windows = tiling.windows(height, width)
    asked: list[tuple[Window, np.ndarray | None]] = [(window, None) for window in windows]
    parts = [
        (window, found.above(least_score)) for window, found in _look(model, picture, spec, asked)
    ]
    if len(windows) > 1:
        whole: Window = (0, 0, width, height)
        [(_, found)] = _look(model, picture, spec, [(whole, None)])
        sides = (found.boxes_xyxy[:, 2:] - found.boxes_xyxy[:, :2]).max(axis=1, initial=0)
        long = (sides > tiling.overlap) & (found.scores >= least_score)
        parts.append((whole, found.take(np.flatnonzero(long))))
    return merged(parts, size=(height, width))


def _in_boxes(model: nn.Module, picture: Picture, spec: InferenceSpec, tiling: Tiling) -> Instances:
    """One instance for each given box, in their order."""
    assert picture.boxes_xyxy is not None
    height, width = picture.rgb.shape[:2]
    members: dict[Window, list[int]] = {}
    for row, box in enumerate(picture.boxes_xyxy.tolist()):
        window = tiling.window_of_box(box, height=height, width=width)
        members.setdefault(window, []).append(row)
    asked = [(window, picture.boxes_xyxy[rows]) for window, rows in members.items()]
    parts = [instances for _, instances in _look(model, picture, spec, asked)]
    order = np.concatenate([np.zeros(0, np.int64), *members.values()]).astype(np.int64)
    return together(parts, size=(height, width)).take(np.argsort(order))


def _look(
    model: nn.Module,
    picture: Picture,
    spec: InferenceSpec,
    asked: Sequence[tuple[Window, np.ndarray | None]],
) -> Iterator[tuple[Window, Instances]]:
    """The instances of each window, in the frame of the picture."""
    height, width = picture.rgb.shape[:2]

    def views() -> Iterator[Picture]:
        for (left, top, right, bottom), boxes in asked:
            inside = None if boxes is None else boxes - np.array([left, top, left, top], np.float32)
            view = np.ascontiguousarray(picture.rgb[top:bottom, left:right])
            yield Picture(rgb=view, boxes_xyxy=inside)

    for (window, _), instances in zip(asked, predict_pictures(model, views(), spec), strict=True):
        yield window, placed(instances, window, size=(height, width))
