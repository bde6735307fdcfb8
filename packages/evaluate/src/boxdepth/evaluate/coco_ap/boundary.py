"""The boundary of a mask: what Boundary AP (arXiv:2103.16562) compares."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from pycocotools import mask as mask_api
from scipy import ndimage

from boxdepth.evaluate.results.arrays import Bool

# Width of a boundary, as a share of the image's diagonal.
_DILATION = 0.02


def boundary(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of the mask within 2 % of the image's diagonal (at least 1) of its outside.

    Distance is counted in steps to any of the eight neighbours, and what lies beyond the image's
    border is outside, as in the authors' code.
    """
    height, width = mask.shape
    steps = max(1, round(_DILATION * float(np.hypot(height, width))))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return mask
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inner = ndimage.minimum_filter(mask[box], size=2 * steps + 1, mode="constant", cval=0)
    found = mask.copy()
    found[box] &= ~inner
    return found


@contextlib.contextmanager
def boundaries(*records: list[dict[str, Any]]) -> Iterator[None]:
    """Exchange the records' masks for their boundaries for a while."""
    every = [record for part in records for record in part]
    whole = [record["segmentation"] for record in every]
    for record in every:
        mask = boundary(np.asarray(mask_api.decode(record["segmentation"]), dtype=bool))
        record["segmentation"] = mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))
    try:
        yield
    finally:
        for record, segmentation in zip(every, whole, strict=True):
            record["segmentation"] = segmentation
