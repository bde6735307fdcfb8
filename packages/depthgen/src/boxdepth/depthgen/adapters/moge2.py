"""MoGe-2, metric depth (MIT): needs the package ``moge`` of its authors.

``--model adapter:boxdepth.depthgen.adapters.moge2:FOLDER``, where the folder holds ``model.pt`` of
Ruicheng/moge-2-vitl or one of its siblings.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

KIND: Final = "metric"


class Model:
    """MoGe's network, one image at a time."""

    def __init__(self, network: Any, device: str) -> None:
        self._network = network
        self._device = device

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Metres; where MoGe sees no surface (sky) and says infinity, the farthest there is."""
        return [self._one(image) for image in images]

    def _one(self, image: np.ndarray) -> np.ndarray:
        import torch

        planes = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        with torch.inference_mode():
            depth = self._network.infer(planes.to(self._device))["depth"].float().cpu().numpy()
        seen = np.isfinite(depth)
        farthest = depth[seen].max() if seen.any() else np.float32(np.nan)
        filled: np.ndarray = np.where(seen, depth, farthest).astype(np.float32)
        return filled


def load(folder: Path, *, device: str) -> Model:
    """The network from ``model.pt`` in the folder."""
    from moge.model.v2 import MoGeModel

    network = MoGeModel.from_pretrained(str(folder / "model.pt")).to(device).eval()
    return Model(network, device)
