"""A level pinhole camera above a flat ground: rows and inverse depth are one straight line."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """Where a scene is seen from.

    A point at ``(x, y, z)`` metres (right, up from the ground, away) falls on column
    ``width / 2 + focal * x / z`` and row ``horizon + focal * (eye - y) / z``.

    Attributes:
        height: Rows of the image.
        width: Columns of the image.
        focal: Focal length in pixels.
        horizon: Row of the horizon, in pixels from the top.
        eye: Height of the camera above the ground, in metres.
    """

    height: int
    width: int
    focal: float
    horizon: float
    eye: float

    @property
    def rows(self) -> Float32[np.ndarray, "h 1"]:
        """Row coordinates of the pixel centres."""
        return (np.arange(self.height, dtype=np.float32) + np.float32(0.5))[:, None]

    @property
    def columns(self) -> Float32[np.ndarray, "1 w"]:
        """Column coordinates of the pixel centres, from the middle of the image."""
        centre = np.float32(0.5 - self.width / 2)
        return (np.arange(self.width, dtype=np.float32) + centre)[None, :]

    def ground_inverse_depth(self) -> Float32[np.ndarray, "h 1"]:
        """Inverse depth (1/m) of the ground in each row: ``(row - horizon) / (focal * eye)``.

        Negative above the horizon, where no ground is.
        """
        return (self.rows - np.float32(self.horizon)) / np.float32(self.focal * self.eye)

    def distance_of_row(self, row: float) -> float:
        """Distance in metres of the ground seen in a row below the horizon."""
        return self.focal * self.eye / (row - self.horizon)

    def row_of(self, *, distance: float, height: float = 0.0) -> float:
        """Row in which a point ``height`` metres above the ground is seen."""
        return self.horizon + self.focal * (self.eye - height) / distance

    def column_of(self, *, distance: float, right: float) -> float:
        """Column in which a point ``right`` metres right of the camera is seen."""
        return self.width / 2 + self.focal * right / distance


def draw_camera(rng: np.random.Generator, height: int, width: int) -> Camera:
    """A camera at eye height or a little above, with a tele lens."""
    return Camera(
        height=height,
        width=width,
        focal=max(height, width) * rng.uniform(1.9, 3.2),
        horizon=height * rng.uniform(0.2, 0.4),
        eye=rng.uniform(1.05, 1.6),
    )
