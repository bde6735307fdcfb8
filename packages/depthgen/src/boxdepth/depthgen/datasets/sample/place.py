"""Where the shapes of a scene stand: never inside one another, some touching, some hidden."""

from dataclasses import dataclass
from math import cos, hypot, pi, sin

import numpy as np

from boxdepth.depthgen.datasets.sample.camera import Camera
from boxdepth.depthgen.datasets.sample.shapes import CLASSES, View

TOUCHING_SHARE = 0.3
_TRIES = 12
NEAREST_FOOT, FARTHEST_FOOT = 0.98, 0.14  # rows below the horizon, as a share of all of them
_SMALLEST, _LARGEST = 0.1, 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One shape on the ground.

    Attributes:
        label: Index into :data:`~boxdepth.depthgen.datasets.sample.shapes.CLASSES`.
        right: Metres right of the camera.
        distance: Metres from the camera to the shape's axis.
        size: Height in metres.
        view: How it is turned, formed and seen.
    """

    label: int
    right: float
    distance: float
    size: float
    view: View

    @property
    def reach(self) -> float:
        """Radius in metres of the circle on the ground that holds the shape."""
        return self.size * CLASSES[self.label].reach


def _anywhere(rng: np.random.Generator, camera: Camera) -> tuple[float, float]:
    ground = camera.height - camera.horizon
    share = FARTHEST_FOOT + (NEAREST_FOOT - FARTHEST_FOOT) * rng.random() ** 0.9
    distance = camera.distance_of_row(camera.horizon + share * ground)
    half = camera.width / 2 * distance / camera.focal
    return rng.uniform(-0.98, 0.98) * half, distance


def _beside(rng: np.random.Generator, other: Placed, reach: float) -> tuple[float, float]:
    gap = (other.reach + reach) * rng.uniform(1.0, 1.08)
    angle = rng.uniform(-0.3, pi + 0.3)
    return other.right + gap * cos(angle), other.distance - gap * sin(angle) * 0.8


def _fits(camera: Camera, right: float, distance: float, size: float) -> bool:
    foot = (camera.row_of(distance=distance) - camera.horizon) / (camera.height - camera.horizon)
    if not FARTHEST_FOOT <= foot <= NEAREST_FOOT + 0.02:
        return False
    tall = camera.focal * size / distance / camera.height
    column = camera.column_of(distance=distance, right=right) / camera.width
    return _SMALLEST < tall < _LARGEST and -0.02 < column < 1.02


def _collides(placed: list[Placed], right: float, distance: float, reach: float) -> bool:
    return any(
        hypot(right - other.right, distance - other.distance) < 0.999 * (reach + other.reach)
        for other in placed
    )


def place(rng: np.random.Generator, camera: Camera) -> list[Placed]:
    """Draw a scene's shapes.

    Args:
        rng: Source of every choice.
        camera: Whence the scene is seen.

    Returns:
        Three to nine shapes (in rare scenes fewer), farthest first: the order in which they are
        painted. About :data:`TOUCHING_SHARE` of them stand against another one.
    """
    placed: list[Placed] = []
    for _ in range(int(rng.integers(3, 10))):
        label = int(rng.integers(len(CLASSES)))
        shape = CLASSES[label]
        size = shape.height * rng.uniform(0.75, 1.35)
        beside = bool(placed) and rng.random() < TOUCHING_SHARE
        for _ in range(_TRIES):
            if beside:
                other = placed[int(rng.integers(len(placed)))]
                right, distance = _beside(rng, other, size * shape.reach)
            else:
                right, distance = _anywhere(rng, camera)
            if not _fits(camera, right, distance, size):
                continue
            if _collides(placed, right, distance, size * shape.reach):
                continue
            view = View(
                tilt_foot=camera.eye / distance,
                tilt_top=(camera.eye - size) / distance,
                yaw=rng.uniform(-1.0, 1.0),
                form=rng.random(),
            )
            placed.append(Placed(label=label, right=right, distance=distance, size=size, view=view))
            break
    return sorted(placed, key=lambda shape: -shape.distance)
