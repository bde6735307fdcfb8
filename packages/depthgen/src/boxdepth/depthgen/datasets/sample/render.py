"""A scene: image, exact inverse depth and exact masks from one seed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from boxdepth.depthgen.datasets.sample import noise
from boxdepth.depthgen.datasets.sample.backdrop import Backdrop, draw_backdrop
from boxdepth.depthgen.datasets.sample.camera import Camera, draw_camera
from boxdepth.depthgen.datasets.sample.palette import (
    CAMOUFLAGED_SHARE,
    Paint,
    camouflaged_paint,
    shape_paint,
)
from boxdepth.depthgen.datasets.sample.place import Placed, place
from boxdepth.depthgen.datasets.sample.shapes import CLASSES, Surface
from boxdepth.depthgen.store.errors import ConfigError

_SMALLEST_AREA = 0.0012  # of the image: 59 pixels of 192x256
_LEAST_VISIBLE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A drawn scene with everything that is true of it.

    Attributes:
        image: sRGB.
        inverse_depth: Exact inverse distance along the optical axis, 1/m; larger is nearer, 0 is
            the sky.
        masks: Visible part of each shape, farthest shape first; disjoint, none empty.
        silhouettes: Each shape whole, hidden parts included, within the image.
        ground: Where the bare ground is seen.
        labels: Index of each shape into ``CLASSES``.
        distances: Distance of each shape's axis from the camera, in metres; descending.
        camouflaged: Shapes that wear the colours and the texture of what is behind them.
        visible_share: Visible part of each silhouette within the image, in (0, 1].
    """

    image: UInt8[np.ndarray, "h w 3"]
    inverse_depth: Float32[np.ndarray, "h w"]
    masks: Bool[np.ndarray, "n h w"]
    silhouettes: Bool[np.ndarray, "n h w"]
    ground: Bool[np.ndarray, "h w"]
    labels: Int64[np.ndarray, "n"]
    distances: Float32[np.ndarray, "n"]
    camouflaged: Bool[np.ndarray, "n"]
    visible_share: Float32[np.ndarray, "n"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """A shape on its patch of the image."""

    placed: Placed
    rows: slice
    columns: slice
    surface: Surface
    scale: float  # pixels per height

    @property
    def patch(self) -> tuple[slice, slice]:
        return self.rows, self.columns


def _draw(camera: Camera, placed: Placed) -> _Drawn | None:
    """Evaluate a shape's surface on the pixels that it may cover."""
    scale = camera.focal * placed.size / placed.distance
    foot = camera.row_of(distance=placed.distance)
    axis = camera.column_of(distance=placed.distance, right=placed.right)
    reach = CLASSES[placed.label].reach
    drop, rise = placed.view.tilt_foot * reach, max(placed.view.tilt_top, 0.0) * reach
    top = max(int(foot - (1 + rise) * scale) - 2, 0)
    bottom = min(int(foot + drop * scale) + 3, camera.height)
    left = max(int(axis - reach * scale) - 2, 0)
    right = min(int(axis + reach * scale) + 3, camera.width)
    if bottom - top < 2 or right - left < 2:
        return None
    rows, columns = slice(top, bottom), slice(left, right)
    x = (camera.columns[:, columns] - np.float32(axis - camera.width / 2)) / np.float32(scale)
    y = (np.float32(foot) - camera.rows[rows]) / np.float32(scale)
    x, y = (np.ascontiguousarray(part) for part in np.broadcast_arrays(x, y))
    surface = CLASSES[placed.label].surface(x, y, placed.view)
    return _Drawn(placed=placed, rows=rows, columns=columns, surface=surface, scale=scale)


def _stack(drawn: list[_Drawn], shape: tuple[int, int]) -> Int64[np.ndarray, "h w"]:
    """Index of the shape seen in each pixel, -1 for none; nearer shapes cover farther ones."""
    owner = np.full(shape, -1, np.int64)
    for index, item in enumerate(drawn):
        owner[item.patch][item.surface.inside > 0] = index
    return owner


def _silhouettes(drawn: list[_Drawn], shape: tuple[int, int]) -> Bool[np.ndarray, "n h w"]:
    whole = np.zeros((len(drawn), *shape), bool)
    for silhouette, item in zip(whole, drawn, strict=True):
        silhouette[item.patch] = item.surface.inside > 0
    return whole


def _visible(drawn: list[_Drawn], shape: tuple[int, int]) -> tuple[list[_Drawn], np.ndarray, list]:
    """Leave out shapes of which too little is seen, until none is."""
    while True:
        owner = _stack(drawn, shape)
        area = np.bincount(owner.ravel() + 1, minlength=len(drawn) + 1)[1:]
        full = [int((item.surface.inside > 0).sum()) for item in drawn]
        share = [seen / max(whole, 1) for seen, whole in zip(area, full, strict=True)]
        least = _SMALLEST_AREA * shape[0] * shape[1]
        keep = [
            seen >= least and part >= _LEAST_VISIBLE for seen, part in zip(area, share, strict=True)
        ]
        if all(keep):
            return drawn, owner, share
        drawn = [item for item, kept in zip(drawn, keep, strict=True) if kept]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sun:
    direction: Float32[np.ndarray, "3"]  # towards the sun: right, up, towards the camera
    ambient: float


def _draw_sun(rng: np.random.Generator) -> _Sun:
    azimuth = rng.uniform(0.25, 1.2) * rng.choice([-1, 1])
    elevation = rng.uniform(0.5, 1.1)
    flat = np.cos(elevation)
    direction = [np.sin(azimuth) * flat, np.sin(elevation), np.cos(azimuth) * flat]
    return _Sun(direction=np.array(direction, np.float32), ambient=1 - 0.55 * rng.random() ** 1.2)


def _shadow(image: np.ndarray, camera: Camera, item: _Drawn, sun: _Sun) -> None:
    """Darken the ground where the shape keeps the sun off: a capsule away from the light."""
    placed = item.placed
    length = min(0.75 * placed.size / max(float(sun.direction[1]), 0.3), 2.0)
    flat = sun.direction[[0, 2]] / np.hypot(sun.direction[0], sun.direction[2])
    step = np.array([-flat[0] * length, flat[1] * length])  # right, away
    radius = placed.reach * 0.62 + 0.02
    ends = np.array([[placed.right, placed.distance]]) + np.array([[0, 0], [1, 1]]) * step
    near, far = ends[:, 1].min() - 1.4 * radius, ends[:, 1].max() + 1.4 * radius
    near = max(near, 0.3)
    top = max(int(camera.row_of(distance=far)), 0)
    bottom = min(int(camera.row_of(distance=near)) + 1, camera.height)
    edges = [
        camera.column_of(distance=distance, right=right + side * 1.4 * radius)
        for right in ends[:, 0]
        for distance in (near, far)
        for side in (-1, 1)
    ]
    left, right = max(int(min(edges)), 0), min(int(max(edges)) + 1, camera.width)
    if bottom <= top or right <= left:
        return
    away = 1 / np.maximum(camera.ground_inverse_depth()[top:bottom], np.float32(1e-3))
    across = camera.columns[:, left:right] * away / np.float32(camera.focal)
    across, away = across - np.float32(placed.right), away - np.float32(placed.distance)
    unit = (step / length).astype(np.float32)
    along = np.clip(across * unit[0] + away * unit[1], 0, np.float32(length))
    gap = np.hypot(across - along * unit[0], away - along * unit[1])
    soft = np.clip((np.float32(1.25 * radius) - gap) / np.float32(0.6 * radius), 0, 1)
    dark = soft * soft * np.float32(0.62 * (1 - sun.ambient * 0.45))
    dark *= 1 - np.float32(0.5 / length) * along
    image[:, top:bottom, left:right] *= 1 - dark


def _pattern(rng: np.random.Generator, surface: Surface) -> Float32[np.ndarray, "h w"]:
    """Share of the second colour over a shape: plain, bands, stripes, checks or spots."""
    kind = int(rng.integers(-3, 6))
    period = np.float32(rng.uniform(0.16, 0.36))
    phase = np.float32(rng.random())
    if kind <= 1:
        return surface.accent
    along, across = surface.along / period + phase, surface.across / period
    if kind == 2:
        marks = (along % 1) < np.float32(0.45)
    elif kind == 3:
        marks = (across % 1) < np.float32(0.45)
    elif kind == 4:
        marks = ((along % 1) < np.float32(0.5)) ^ ((across % 1) < np.float32(0.5))
    else:
        spot = ((along % 1) - np.float32(0.5)) ** 2 + ((across % 1) - np.float32(0.5)) ** 2
        marks = spot < np.float32(0.09)
    share: np.ndarray = np.maximum(surface.accent, marks * np.float32(0.8))
    return share


def _shaded(
    rng: np.random.Generator, item: _Drawn, paint: Paint, sun: _Sun
) -> Float32[np.ndarray, "3 h w"]:
    """The shape's colours under the sun, before haze."""
    surface = item.surface
    height, width = surface.inside.shape
    colour = noise.mixed(noise.window(noise.bank(4.0, 32.0), rng, height, width), paint.mix)
    colour += paint.first
    colour += _pattern(rng, surface) * (paint.second - paint.first)
    lit = np.tensordot(sun.direction, surface.normal, axes=1)
    ambient = np.float32(sun.ambient) * (np.float32(0.85) + np.float32(0.15) * surface.normal[1])
    light = ambient + np.float32(1.25 - sun.ambient) * np.maximum(lit, 0)
    light *= np.float32(1) - np.float32(0.3) * np.exp(-np.maximum(surface.along, 0) * np.float32(9))
    colour *= light
    if CLASSES[item.placed.label].glossy:
        half = sun.direction + np.array([0, 0, 1], np.float32)
        half /= np.sqrt((half * half).sum())
        mirror = np.maximum(np.tensordot(half, surface.normal, axes=1), 0)
        mirror *= mirror
        mirror *= mirror
        mirror *= mirror
        colour += np.float32(0.3) * mirror * mirror * mirror
    return colour


def _paints(
    rng: np.random.Generator,
    drawn: list[_Drawn],
    camera: Camera,
    backdrop: Backdrop,
    camouflage: float,
) -> tuple[list[Paint], Bool[np.ndarray, "n"]]:
    """One paint a shape; camouflaged ones take what is behind their middle."""
    camouflaged = rng.random(len(drawn)) < camouflage
    paints = []
    for item, hidden in zip(drawn, camouflaged, strict=True):
        row = min((item.rows.start + item.rows.stop) // 2, camera.height - 1)
        column = min((item.columns.start + item.columns.stop) // 2, camera.width - 1)
        behind = backdrop.ground if backdrop.on_ground[row, column] else backdrop.behind
        paints.append(camouflaged_paint(rng, behind) if hidden else shape_paint(rng))
    return paints, camouflaged


def _hazed(image: np.ndarray, inverse_depth: np.ndarray, backdrop: Backdrop) -> None:
    """Mix in the air's colour by Koschmieder's law: ``exp(-density * distance)`` stays."""
    distance = 1 / np.maximum(inverse_depth, np.float32(1e-2))
    clear = np.exp(distance * np.float32(-backdrop.density))
    image *= clear
    image += (1 - clear) * backdrop.haze


def _exposed(rng: np.random.Generator, image: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Exposure, vignette and grain, rounded to bytes."""
    height, width = image.shape[1:]
    gain = np.float32(rng.uniform(0.95, 1.2) * 255)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)
    strength = np.float32(rng.uniform(0.0, 0.12))
    image *= gain * (1 - strength * (rows * rows + columns * columns))
    grain = noise.window(noise.grain(), rng, height, width)
    image += grain * np.float32(0.3 + 2.7 * rng.random() ** 2)
    image += np.float32(0.5)
    np.clip(image, 0, 255, out=image)
    return np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0))


def check_size(size: tuple[int, int]) -> None:
    """Refuse a (height, width) that is too small to draw in.

    Raises:
        ConfigError: A side is below 48 pixels.
    """
    if min(size) < 48:
        raise ConfigError(f"a scene of {size[0]}x{size[1]} pixels was asked for; at least 48x48")


def render_scene(
    seed_sequence: np.random.SeedSequence,
    size: tuple[int, int],
    *,
    camouflage: float = CAMOUFLAGED_SHARE,
) -> Scene:
    """Draw one scene.

    Args:
        seed_sequence: Source of every choice; the same sequence and size give the same bytes.
        size: (height, width) in pixels, at least 48 each.
        camouflage: Share of the shapes that wear what is behind them, in [0, 1]. Whatever it is,
            the shapes and the depth of the scene stay the same.

    Returns:
        The scene. It has at least one shape.

    Raises:
        ConfigError: The size is too small.
    """
    check_size(size)
    height, width = size
    rng = np.random.default_rng(seed_sequence)
    drawn: list[_Drawn] = []
    while not drawn:
        camera = draw_camera(rng, height, width)
        patches = [_draw(camera, placed) for placed in place(rng, camera)]
        drawn, owner, share = _visible([item for item in patches if item], (height, width))
    backdrop = draw_backdrop(rng, camera)
    image, inverse_depth = backdrop.image, backdrop.inverse_depth
    sun = _draw_sun(rng)
    for item in drawn:
        _shadow(image, camera, item, sun)
    _hazed(image, inverse_depth, backdrop)
    paints, camouflaged = _paints(rng, drawn, camera, backdrop, camouflage)
    for index, (item, paint) in enumerate(zip(drawn, paints, strict=True)):
        placed = item.placed
        relief = item.surface.relief * np.float32(placed.size)
        own_depth = 1 / (np.float32(placed.distance) - relief)
        colour = _shaded(rng, item, paint, sun)
        _hazed(colour, own_depth, backdrop)
        cover = np.clip(item.surface.inside * np.float32(item.scale) + np.float32(0.5), 0, 1)
        patch = image[:, *item.patch]
        colour -= patch
        colour *= cover
        patch += colour
        np.copyto(inverse_depth[item.patch], own_depth, where=owner[item.patch] == index)
    return Scene(
        image=_exposed(rng, image),
        inverse_depth=inverse_depth,
        masks=owner[None] == np.arange(len(drawn))[:, None, None],
        silhouettes=_silhouettes(drawn, (height, width)),
        ground=backdrop.on_ground & (owner < 0),
        labels=np.array([item.placed.label for item in drawn], np.int64),
        distances=np.array([item.placed.distance for item in drawn], np.float32),
        camouflaged=camouflaged,
        visible_share=np.array(share, np.float32),
    )
