"""All that isn't a shape: ground, wall or hills, sky."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from boxdepth.depthgen.datasets.sample import noise
from boxdepth.depthgen.datasets.sample.camera import Camera
from boxdepth.depthgen.datasets.sample.palette import (
    Colour,
    Paint,
    ground_paint,
    hill_paint,
    sky_colours,
    wall_paint,
)
from boxdepth.depthgen.datasets.sample.place import FARTHEST_FOOT

WALLED_SHARE = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdrop:
    """The empty stage.

    Attributes:
        image: Colours in [0, 1], before haze.
        inverse_depth: 1/m; 0 in the sky.
        on_ground: Where the ground is seen.
        ground: The ground's paint.
        behind: The wall's or the hills' paint.
        haze: Colour of the air.
        density: Extinction of the air, 1/m.
    """

    image: Float32[np.ndarray, "3 h w"]
    inverse_depth: Float32[np.ndarray, "h w"]
    on_ground: Bool[np.ndarray, "h w"]
    ground: Paint
    behind: Paint
    haze: Colour
    density: float


def _textured(
    rng: np.random.Generator, paint: Paint, height: int, width: int, *, fine: float
) -> Float32[np.ndarray, "3 {height} {width}"]:
    """A flat painted surface seen head-on."""
    field = noise.window(noise.bank(4.0 * fine, 64.0), rng, height, width)
    painted: np.ndarray = noise.mixed(field, paint.mix) + paint.first
    return painted


def _ground(
    rng: np.random.Generator, camera: Camera, paint: Paint, first_row: int
) -> Float32[np.ndarray, "3 g w"]:
    """The ground in perspective from ``first_row`` down: two octaves of noise and a pattern."""
    inverse = np.maximum(camera.ground_inverse_depth()[first_row:], np.float32(1e-3))
    distance = 1 / inverse
    right = camera.columns * distance / np.float32(camera.focal)
    texels = np.float32(camera.height * rng.uniform(0.30, 0.5))
    shift = rng.integers(noise.SIDE, size=4)
    columns = (right * texels).astype(np.int64)
    rows = np.broadcast_to((distance * texels).astype(np.int64), columns.shape)
    coarse = noise.lookup(noise.bank(3.0, 64.0), (rows >> 2) + shift[0], (columns >> 2) + shift[1])
    fine = noise.lookup(noise.bank(3.0, 16.0), rows + shift[2], columns + shift[3])
    near = np.minimum(inverse * np.float32(4), np.float32(1))
    fine *= near
    coarse += fine
    image = noise.mixed(coarse, paint.mix * np.float32(0.75))
    image += paint.first
    image += _marks(rng, right, distance) * (paint.second - paint.first)
    return image


def _marks(
    rng: np.random.Generator,
    right: Float32[np.ndarray, "g w"],
    distance: Float32[np.ndarray, "g 1"],
) -> Float32[np.ndarray, "g w"]:
    """Pattern of the ground in [0, 1]: none, tiles, boards or lanes."""
    kind, size = int(rng.integers(4)), np.float32(rng.uniform(0.5, 1.3))
    if kind == 0:
        return np.zeros_like(right)
    # Colour steps without depth steps.
    along = np.floor(distance / size + np.float32(rng.random())).astype(np.int32)
    across = np.floor(right / size + np.float32(rng.random())).astype(np.int32)
    if kind == 1:
        return ((along + across) & 1).astype(np.float32)
    if kind == 2:
        return np.broadcast_to((along * 7 % 3).astype(np.float32) / 2, right.shape)
    lanes: np.ndarray = ((across % 3) == 0).astype(np.float32)
    return lanes


def _wall(
    rng: np.random.Generator, camera: Camera, inverse: float
) -> tuple[Float32[np.ndarray, "3 t w"], Float32[np.ndarray, "1 w"], Paint]:
    """A wall across the scene, turned a little, with courses and joints."""
    paint = wall_paint(rng)
    lean = rng.uniform(-0.35, 0.35) if rng.random() < 0.6 else 0.0
    depth = np.float32(inverse) * (1 + np.float32(lean / camera.width) * camera.columns)
    lowest = camera.horizon + camera.focal * camera.eye * float(depth.max())
    bottom = min(int(lowest) + 2, camera.height)
    image = _textured(rng, paint, bottom, camera.width, fine=1.0)
    course = camera.focal * inverse * rng.uniform(0.25, 0.6)
    row = np.floor((camera.rows[:bottom] - np.float32(camera.horizon)) / np.float32(course))
    column = camera.columns / np.float32(course * 2.2) + np.float32(0.5) * (row % 2)
    tone = np.sin(row * np.float32(12.9) + np.floor(column) * np.float32(78.2))
    strength = np.float32(rng.choice([0.0, 0.6, 1.0]))
    image += (np.abs(tone) * strength) * (paint.second - paint.first)
    return image, depth, paint


def _sky(
    rng: np.random.Generator, camera: Camera, zenith: Colour, haze: Colour, rows: int
) -> Float32[np.ndarray, "3 {rows} w"]:
    """A gradient with clouds."""
    height = np.float32(1) - camera.rows[:rows] / np.float32(max(rows, 1))
    clouds = noise.window(noise.bank(12.0, 128.0), rng, rows, camera.width)[0]
    white = np.clip(clouds * np.float32(0.2) + np.float32(rng.uniform(-0.3, 0.2)), 0, 1) * height
    image = haze + (zenith - haze) * height
    clouded: np.ndarray = image + white * (np.float32(0.97) - image)
    return clouded


def _ridge(rng: np.random.Generator, camera: Camera, height: float) -> Float32[np.ndarray, "1 w"]:
    """Skyline of hills: rows of their crest."""
    line = noise.bank(24.0, 160.0)[0, int(rng.integers(noise.SIDE))]
    place = np.linspace(0, noise.SIDE, camera.width, endpoint=False)
    crest = np.interp(place, np.arange(noise.SIDE), np.roll(line, int(rng.integers(noise.SIDE))))
    crest_rows: np.ndarray = (camera.horizon - height * (1 + 0.35 * crest)).astype(np.float32)[
        None, :
    ]
    return crest_rows


def _landscape(
    rng: np.random.Generator, camera: Camera, zenith: Colour, haze: Colour, near: float
) -> tuple[Float32[np.ndarray, "3 t w"], Float32[np.ndarray, "t w"], Paint]:
    """Sky over two rows of hills, the nearer ``near`` metres away."""
    bottom = min(int(camera.row_of(distance=near)) + 2, camera.height)
    image = _sky(rng, camera, zenith, haze, bottom)
    depth = np.zeros((bottom, camera.width), np.float32)
    rows = camera.rows[:bottom]
    paint = hill_paint(rng)
    for distance, height, pale in ((near * 2.5, 0.2, 0.55), (near, 0.09, 0.15)):
        crest = _ridge(rng, camera, camera.horizon * height * rng.uniform(0.8, 2.2))
        top = max(int(crest.min()) - 1, 0)
        hill = rows[top:] > crest
        colour = _textured(rng, paint, bottom - top, camera.width, fine=1.5)
        colour += (haze - colour) * np.float32(pale)
        np.copyto(image[:, top:], colour, where=hill)
        np.copyto(depth[top:], np.float32(1 / distance), where=hill)
    return image, depth, paint


def draw_backdrop(rng: np.random.Generator, camera: Camera) -> Backdrop:
    """A ground that recedes to a wall or to hills under a sky."""
    paint = ground_paint(rng)
    zenith, haze = sky_colours(rng)
    farthest = camera.distance_of_row(
        camera.horizon + FARTHEST_FOOT * (camera.height - camera.horizon)
    )
    behind_all = farthest * rng.uniform(1.3, 2.2)
    if rng.random() < WALLED_SHARE:
        upper, depth, behind = _wall(rng, camera, 1 / behind_all)
        haze = behind.first + (haze - behind.first) * np.float32(0.4)
    else:
        upper, depth, behind = _landscape(rng, camera, zenith, haze, behind_all)
    ground = camera.ground_inverse_depth()
    rows = upper.shape[1]
    behind_depth = np.zeros((camera.height, camera.width), np.float32)
    behind_depth[:rows] = depth
    on_ground = ground > behind_depth
    first_row = int(np.argmax(on_ground.any(axis=1)))
    image = np.empty((3, camera.height, camera.width), np.float32)
    image[:, first_row:] = _ground(rng, camera, paint, first_row)
    np.copyto(image[:, :rows], upper, where=~on_ground[:rows])
    return Backdrop(
        image=image,
        inverse_depth=np.maximum(ground, behind_depth),
        on_ground=on_ground,
        ground=paint,
        behind=behind,
        haze=haze,
        density=rng.uniform(0.15, 1.0) / farthest,
    )
