"""Depth Anything 3, monocular (Apache-2.0): needs the package ``depth-anything-3``.

``--model adapter:boxdepth.depthgen.adapters.da3mono:FOLDER``, where the folder holds the files of
depth-anything/DA3MONO-LARGE. Its depth has no scale, and is turned over: near is large.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

KIND: Final = "inverse"
_NEAREST_SHARE: Final = 1e-3
"""Of the median depth: anything nearer is as near as this, so that no inverse runs away."""


class Model:
    """DA3's network, one image at a time: several would be taken for views of one scene."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """1 / depth, relative."""
        return [self._one(image) for image in images]

    def _one(self, image: np.ndarray) -> np.ndarray:
        depth = np.asarray(self._network.inference([image]).depth, dtype=np.float32)[0]
        nearest = np.float32(_NEAREST_SHARE) * np.float32(np.median(depth))
        inverse: np.ndarray = 1 / np.maximum(depth, max(nearest, np.float32(1e-6)))
        return inverse


def load(folder: Path, *, device: str) -> Model:
    """The network from the folder's ``config.json`` and weights."""
    from depth_anything_3.api import DepthAnything3

    return Model(DepthAnything3.from_pretrained(str(folder)).to(device).eval())
