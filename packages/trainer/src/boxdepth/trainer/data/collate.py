"""Samples to one padded batch."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from boxdepth.trainer.geometry.grid import padded_size
from boxdepth.trainer.structures import MASK_STRIDE, Batch, Sample


def collate(samples: Sequence[Sample]) -> Batch:
    """Pad at the right and bottom with zeros to the largest size of the batch, rounded up to 32.

    Works in numpy, so that loader threads never start torch's own thread pools.
    """
    sizes = np.array([sample.image.shape[-2:] for sample in samples], dtype=np.int64)
    height, width = padded_size(sizes.tolist())
    valid = np.zeros((len(samples), height, width), dtype=bool)
    for k, sample in enumerate(samples):
        h, w = sizes[k]
        valid[k, : max(h - sample.bottom_rows_removed, 0), :w] = True
    counts = [len(sample.labels) for sample in samples]
    views = [sample.student_image for sample in samples if sample.student_image is not None]
    steps = [sample.depth_steps for sample in samples if sample.depth_steps is not None]
    return Batch(
        images=_padded([sample.image for sample in samples], height=height, width=width),
        sizes=torch.from_numpy(sizes),
        valid=torch.from_numpy(valid),
        inverse_depth=_padded_maps(
            [sample.inverse_depth for sample in samples],
            height=height // samples[0].depth_stride,
            width=width // samples[0].depth_stride,
        ),
        depth_valid=torch.tensor([sample.depth_valid for sample in samples]),
        boxes_xyxy=torch.cat([sample.boxes_xyxy for sample in samples]),
        labels=torch.cat([sample.labels for sample in samples]),
        image_index=torch.from_numpy(np.repeat(np.arange(len(samples)), counts)),
        centers_xy=torch.cat([sample.centers_xy for sample in samples]),
        masks=_pad_masks(samples, rows=height // MASK_STRIDE, columns=width // MASK_STRIDE),
        has_mask=torch.cat([sample.has_mask for sample in samples]),
        image_ids=tuple(sample.image_id for sample in samples),
        frames=tuple((int(h), int(w)) for h, w in sizes.tolist()),
        counts=tuple(counts),
        cut=_cut_sides(samples),
        student_images=_padded(views, height=height, width=width) if views else None,
        depth_steps=_padded_maps(steps, height=height // MASK_STRIDE, width=width // MASK_STRIDE)
        if steps
        else None,
    )


def _cut_sides(samples: Sequence[Sample]) -> Bool[torch.Tensor, "m 4"] | None:
    given = [sample.cut for sample in samples if sample.cut is not None]
    return torch.cat(given) if len(given) == len(samples) else None


def _padded(
    images: Sequence[UInt8[torch.Tensor, "3 _ _"]], *, height: int, width: int
) -> UInt8[torch.Tensor, "b 3 h w"]:
    """Channels last in memory, as samples and networks have them: nothing is ever turned."""
    padded = np.empty((len(images), height, width, 3), dtype=np.uint8)
    for out, image in zip(padded, images, strict=True):
        h, w = image.shape[1:]
        out[:h, :w] = image.permute(1, 2, 0).numpy()
        out[:h, w:] = 0
        out[h:] = 0
    return torch.from_numpy(padded).permute(0, 3, 1, 2)


def _padded_maps(
    maps: Sequence[Float[torch.Tensor, "c _ _"]], *, height: int, width: int
) -> Float[torch.Tensor, "b c hd wd"]:
    padded = np.zeros((len(maps), len(maps[0]), height, width), dtype=np.float32)
    for out, one in zip(padded, maps, strict=True):
        out[:, : one.shape[1], : one.shape[2]] = one.numpy()
    return torch.from_numpy(padded)


def _pad_masks(
    samples: Sequence[Sample], *, rows: int, columns: int
) -> Bool[torch.Tensor, "m hm wm"] | None:
    given = [sample.masks for sample in samples if sample.masks is not None]
    if len(given) != len(samples):
        return None
    padded = np.zeros((sum(len(masks) for masks in given), rows, columns), dtype=bool)
    start = 0
    for masks in given:
        n, h, w = masks.shape
        padded[start : start + n, :h, :w] = masks.numpy()
        start += n
    return torch.from_numpy(padded)
