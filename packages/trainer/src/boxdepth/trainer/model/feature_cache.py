"""Features of a frozen backbone, kept from epoch to epoch.

A backbone that does not learn says the same of the same pixels each time. Where a few hundred
images are seen dozens of times, that is most of what a step computes.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import final

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from boxdepth.trainer.geometry.grid import padded_size

Features = list[Tensor]
"""One image's, at strides 8, 16 and 32, each [c h/s w/s]."""


@final
class FeatureCache:
    """Known by their pixels: flips and sizes of an image have features of their own.

    An image's features are those that it has alone in a batch, as in prediction; beyond its own
    padding they are 0. Once the limit is reached nothing more is kept, and what is kept stays.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._kept: dict[bytes, Features] = {}

    @classmethod
    def of(cls, limit_bytes: int) -> "FeatureCache | None":
        """A cache of so many bytes; None where nothing may be kept."""
        return cls(limit_bytes) if limit_bytes else None

    def __deepcopy__(self, memo: object) -> "FeatureCache":
        """An empty one: a teacher is a copy of its student, and what it sees is not kept."""
        return FeatureCache(self.limit_bytes)

    def __len__(self) -> int:
        return len(self._kept)

    @torch.no_grad()
    def batch(
        self,
        images: UInt8[Tensor, "b 3 h w"],
        sizes: Int64[Tensor, "b 2"],
        compute: Callable[[UInt8[Tensor, "1 3 h1 w1"], Int64[Tensor, "1 2"]], Sequence[Tensor]],
    ) -> list[Tensor]:
        """The features of a padded batch, each [b c h/s w/s].

        Args:
            compute: makes the features of an image that is not known yet, from the image alone.
            sizes: (height, width) of the unpadded images.
        """
        found = [
            self._of_one(image, (height, width), compute)
            for image, (height, width) in zip(images, sizes.tolist(), strict=True)
        ]
        return [_joined(level) for level in zip(*found, strict=True)]

    def _of_one(
        self,
        image: UInt8[Tensor, "3 h w"],
        frame: tuple[int, int],
        compute: Callable[[Tensor, Tensor], Sequence[Tensor]],
    ) -> Features:
        height, width = frame
        key = _digest(image[:, :height, :width])
        if key in self._kept:
            return self._kept[key]
        rows, columns = padded_size([(height, width)])
        alone, size = image[None, :, :rows, :columns], torch.tensor([frame], device=image.device)
        features = [level[0].contiguous() for level in compute(alone, size)]
        taken = sum(level.numel() * level.element_size() for level in features)
        if self.bytes + taken <= self.limit_bytes:
            self._kept[key] = features
            self.bytes += taken
        return features


def _digest(pixels: UInt8[Tensor, "3 h w"]) -> bytes:
    shape = repr(tuple(pixels.shape)).encode()
    values = pixels.contiguous().cpu().numpy()
    return hashlib.blake2b(values.data, key=shape, digest_size=16).digest()


def _joined(levels: Sequence[Tensor]) -> Float[Tensor, "b c _ _"]:
    """One level of all images: a batch is as large as its largest image."""
    rows = max(level.shape[1] for level in levels)
    columns = max(level.shape[2] for level in levels)
    channels = levels[0].shape[0]
    out = levels[0].new_zeros(len(levels), channels, rows, columns)
    for image, level in zip(out, levels, strict=True):
        image[:, : level.shape[1], : level.shape[2]] = level
    return out
