"""Predicting from Python: an image in, instances out."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch

from boxdepth.trainer.engine.device import choose_device, fitting_precision
from boxdepth.trainer.errors import ConfigError
from boxdepth.trainer.geometry.tiles import Tiling
from boxdepth.trainer.predict.images import ImageLike, boxes_of, rgb_of
from boxdepth.trainer.predict.inference import (
    InferenceSpec,
    Picture,
    inference_spec,
    predict_pictures,
)
from boxdepth.trainer.predict.model import Model, Which, load_model
from boxdepth.trainer.predict.results import Instances
from boxdepth.trainer.predict.tiled import predict_tiled


@final
class Predictor:
    """A trained network that finds instances in images, or the masks of boxes that are there."""

    def __init__(
        self,
        model: Model,
        *,
        score_threshold: float | None = None,
        crop: bool = True,
        tiling: Tiling | None = None,
    ) -> None:
        """Wrap a loaded model.

        Args:
            score_threshold: least final score of what is found, 0..1; None: the run's own rule.
            crop: cut the masks of given boxes at those boxes.
            tiling: look at larger images tile by tile; None: as the run was trained to.

        Raises:
            ConfigError: a threshold outside 0..1.
        """
        if score_threshold is not None and not 0 <= score_threshold <= 1:
            raise ConfigError(f"score_threshold {score_threshold}: expected 0 to 1")
        self.model = model
        self.tiling = tiling or model.config.inference.tiling
        self.score_threshold = score_threshold or 0.0
        self.spec: InferenceSpec = replace(
            inference_spec(model.config), crop_to_given=crop, quality=True
        )
        if self.precision == "bf16":  # of the run; here it may be no gain
            self.compute_in("auto")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes; a label is a place in it."""
        return self.model.category_names

    def allow(self, max_detections: int) -> None:
        """Find up to so many instances in an image (a tile), whatever the run's settings say."""
        settings = self.spec.settings.changed(max_detections=max_detections)
        self.spec = replace(self.spec, settings=settings)

    @property
    def precision(self) -> str:
        """Of the network: fp32 or bf16."""
        return "fp32" if self.spec.autocast is None else "bf16"

    def compute_in(self, precision: str) -> None:
        """Choose the precision of the network, whatever it was trained in.

        Masks and boxes are made from its outputs in fp32 either way.

        Args:
            precision: ``fp32``, ``bf16`` or ``auto``: bf16 on a device that multiplies it.

        Raises:
            ConfigError: none of the three.
        """
        if precision not in ("fp32", "bf16", "auto"):
            raise ConfigError(f"precision {precision!r}: expected fp32, bf16 or auto")
        if precision == "auto":
            precision = fitting_precision(next(self.model.network.parameters()).device)
        self.spec = replace(self.spec, autocast=torch.bfloat16 if precision == "bf16" else None)

    def __call__(self, image: ImageLike, *, boxes: Any = None) -> Instances:
        """The instances of one image, best first; with ``boxes`` one for each, in their order.

        Args:
            image: uint8 array [h w 3] (RGB) or [h w], PIL image, or path; used as it lies in the
                file: an EXIF orientation is ignored.
            boxes: [n 4], (x1, y1, x2, y2) in pixels of the image; a box outside is an error.

        Returns:
            Boxes in pixels of the image, scores 0..1, labels (places in ``classes``), masks of the
            image's size and ``quality``, the expected IoU of each with the true mask. With
            ``boxes`` the boxes are the given ones, cut at the image; score and label are the best
            guess for what is in each.

        Raises:
            ImageTypeError: an image or boxes of another type, shape or range.
            DataError: a file that is not a picture that can be used.
        """
        rgb = rgb_of(image)
        wanted = None if boxes is None else boxes_of(boxes, (rgb.shape[0], rgb.shape[1]))
        [instances] = self.stream([Picture(rgb=rgb, boxes_xyxy=wanted)])
        return instances

    def stream(self, pictures: Iterable[Picture]) -> Iterator[Instances]:
        """The instances of each picture, in order, ``inference.batch_size`` at hand together."""
        held: list[bool] = []

        def watched() -> Iterator[Picture]:
            for picture in pictures:
                held.append(picture.boxes_xyxy is not None)
                yield picture

        for instances in self._instances(watched()):
            given = held.pop(0)
            yield instances if given else instances.above(self.score_threshold)

    def _instances(self, pictures: Iterable[Picture]) -> Iterator[Instances]:
        if self.tiling is None:
            yield from predict_pictures(self.model.network, pictures, self.spec)
            return
        for picture in pictures:
            yield predict_tiled(
                self.model.network,
                picture,
                self.spec,
                self.tiling,
                least_score=self.score_threshold,
            )


def load_predictor(
    run: str | Path,
    *,
    device: str = "auto",
    weights: Which | None = None,
    score_threshold: float | None = None,
    crop: bool = True,
    tiling: Tiling | None = None,
) -> Predictor:
    """The predictor of a run (its best checkpoint, else its latest) or of a checkpoint.

    Args:
        run: a run folder or a checkpoint folder.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        weights: ``teacher`` or ``student``; None: the teacher, if there is one.
        score_threshold: least final score of what is found, 0..1; None: the run's own rule.
        crop: cut the masks of given boxes at those boxes.
        tiling: look at larger images tile by tile; None: as the run was trained to.

    Raises:
        CheckpointError: none there, damaged, or without the weights that were asked for.
        ConfigError: no such device, weights of neither, a threshold outside 0..1.
    """
    model = load_model(Path(run), choose_device(device), weights=weights)
    return Predictor(model, score_threshold=score_threshold, crop=crop, tiling=tiling)
