"""A network and images of any size -> instances in the frame of the original images."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from boxdepth.trainer.build import AUTOCAST, mask_head_spec
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.data.augment import Geometry, resize_shape, transform_boxes, transform_image
from boxdepth.trainer.geometry.grid import equally_padded, padded_size
from boxdepth.trainer.model.detections import detect, detect_in_boxes
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec
from boxdepth.trainer.model.rules import Inference
from boxdepth.trainer.predict.masks import Finish, predict_masks
from boxdepth.trainer.predict.results import Instances
from boxdepth.trainer.structures import DenseOutputs, Detections


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class InferenceSpec:
    """How a network predicts."""

    mask_head: MaskHeadSpec
    settings: Inference
    crop_to_given: bool
    """Cut the masks of given boxes at those boxes."""
    autocast: torch.dtype | None
    quality: bool
    """Say of each mask how good it probably is."""

    def __init__(
        self,
        *,
        mask_head: MaskHeadSpec,
        settings: Inference | None = None,
        crop_to_given: bool = True,
        autocast: torch.dtype | None = None,
        quality: bool = False,
        **changed: Any,
    ) -> None:
        """Settings, and single ones of them by name: ``replace(spec, batch_size=3)``.

        Raises:
            ValidationError: no such setting, or a value that it can't have.
        """
        settings = settings or Inference()
        put = object.__setattr__
        put(self, "mask_head", mask_head)
        put(self, "settings", settings.changed(**changed) if changed else settings)
        put(self, "crop_to_given", crop_to_given)
        put(self, "autocast", autocast)
        put(self, "quality", quality)


def inference_spec(run: RunConfig) -> InferenceSpec:
    """How the run predicts."""
    return InferenceSpec(
        mask_head=mask_head_spec(run.model),
        settings=run.inference,
        autocast=AUTOCAST[run.precision] if run.precision != "fp16" else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image to predict on, and the boxes whose masks are wanted, if only those are."""

    rgb: UInt8[np.ndarray, "h w 3"]
    boxes_xyxy: Float32[np.ndarray, "n 4"] | None = None
    """In pixels of the image."""


def predict_pictures(
    model: nn.Module, pictures: Iterable[Picture], spec: InferenceSpec
) -> Iterator[Instances]:
    """The instances of each picture, in order; the network is left in the mode it was in."""
    device = next(model.parameters()).device
    rest = iter(pictures)
    with _evaluating(model):
        while group := list(islice(rest, spec.settings.batch_size)):
            yield from _predict(model, group, spec, device)


def _predict(
    model: nn.Module, pictures: Sequence[Picture], spec: InferenceSpec, device: torch.device
) -> list[Instances]:
    """One forward pass for each padded size among the pictures: mates change no result."""
    geometries = [_geometry(picture, spec) for picture in pictures]
    found: dict[int, Instances] = {}
    for numbers in equally_padded([geometry.new_size for geometry in geometries]):
        group = [pictures[number] for number in numbers]
        placed = [geometries[number] for number in numbers]
        found |= zip(numbers, _predict_at_once(model, group, placed, spec, device), strict=True)
    return [found[number] for number in range(len(pictures))]


@torch.no_grad()
def _predict_at_once(
    model: nn.Module,
    pictures: Sequence[Picture],
    geometries: Sequence[Geometry],
    spec: InferenceSpec,
    device: torch.device,
) -> list[Instances]:
    images, sizes = _padded(pictures, geometries, device)
    cast = torch.autocast(device.type, dtype=spec.autocast) if spec.autocast else nullcontext()
    with cast:
        outputs: DenseOutputs = model(images, sizes)
    given = [p.boxes_xyxy for p in pictures]
    return predict_masks(
        outputs,
        _detections(outputs, given, geometries, spec),
        spec.mask_head,
        Finish(
            settings=spec.settings,
            crop=spec.crop_to_given and any(boxes is not None for boxes in given),
            drop_empty_boxes=all(boxes is None for boxes in given),
        ),
        original_sizes=[geometry.old_size for geometry in geometries],
        images=images if spec.quality else None,
    )


def _detections(
    outputs: DenseOutputs,
    given: Sequence[np.ndarray | None],
    geometries: Sequence[Geometry],
    spec: InferenceSpec,
) -> list[Detections]:
    frames = [geometry.new_size for geometry in geometries]
    if any(boxes is not None for boxes in given):
        wanted = [
            torch.from_numpy(
                transform_boxes(np.zeros((0, 4), np.float32) if b is None else b, geometry)
            ).to(outputs.mask_features.device)
            for b, geometry in zip(given, geometries, strict=True)
        ]
        return detect_in_boxes(outputs, frames, wanted)
    return detect(outputs, frames, spec.settings)


def _geometry(picture: Picture, spec: InferenceSpec) -> Geometry:
    height, width = picture.rgb.shape[:2]
    settings = spec.settings
    new_size = resize_shape(
        height, width, short_side=settings.short_side, max_size=settings.max_size
    )
    return Geometry(old_size=(height, width), new_size=new_size, flip=False)


def _padded(
    pictures: Sequence[Picture], geometries: Sequence[Geometry], device: torch.device
) -> tuple[Tensor, Tensor]:
    sizes = np.array([geometry.new_size for geometry in geometries], dtype=np.int64)
    height, width = padded_size(sizes.tolist())
    images = np.zeros((len(pictures), 3, height, width), dtype=np.uint8)
    for k, (picture, geometry) in enumerate(zip(pictures, geometries, strict=True)):
        h, w = geometry.new_size
        images[k, :, :h, :w] = transform_image(picture.rgb, geometry).transpose(2, 0, 1)
    return torch.from_numpy(images).to(device), torch.from_numpy(sizes).to(device)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
