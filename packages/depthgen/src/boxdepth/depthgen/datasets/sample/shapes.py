"""The eight shapes: silhouette, relief and normals as functions of the place on the shape.

A shape lives in its own frame, in units of its height: ``x`` to the right of its axis, ``y`` up
from its foot. ``relief`` is how far the surface stands out of the plane through the axis towards
the camera. Shapes with a flat base or a lid are seen from above: a point that stands out by
``relief`` at height ``y`` appears lower by ``tilt(y) * relief``, where ``tilt`` is the slope of
the line of sight there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

Grid = Float32[np.ndarray, "h w"]

FLATNESS = 0.6
"""Depth of the round shapes over their width: like depth predictors, we see them flattened."""
_FLAT = np.float32(FLATNESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How one object is seen and formed.

    Attributes:
        tilt_foot: Slope of the line of sight at the foot (eye height / distance).
        tilt_top: The same at the top; not above 0 when the top is at or above eye height.
        yaw: Turn about the vertical axis, in radians.
        form: Where between its two extremes the shape lies, in [0, 1].
    """

    tilt_foot: float
    tilt_top: float
    yaw: float
    form: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """The visible front of a shape on a grid of its frame.

    Attributes:
        inside: Signed distance to the silhouette in units of the height, positive inside
            (exact near the silhouette only).
        relief: Distance from the axis plane towards the camera, in units of the height.
        normal: Unit normals: right, up, towards the camera.
        across: Texture coordinate around the shape, about one unit for a height.
        along: Texture coordinate along the shape, likewise.
        accent: Share of the second colour, in [0, 1]: lids, openings, plates, borders.
    """

    inside: Grid
    relief: Grid
    normal: Float32[np.ndarray, "3 h w"]
    across: Grid
    along: Grid
    accent: Grid


def _root(value: Grid) -> Grid:
    root: np.ndarray = np.sqrt(np.maximum(value, np.float32(0)))
    return root


def ball(x: Grid, y: Grid, view: View) -> Surface:
    """A sphere."""
    up = y - np.float32(0.5)
    squared = x * x + up * up
    relief = _root(np.float32(0.25) - squared)
    normal = np.stack([x, up, relief]) * np.float32(2)
    turn = np.float32(view.yaw)
    return Surface(
        inside=np.float32(0.5) - np.sqrt(squared),
        relief=relief * _FLAT,
        normal=normal,
        across=(np.arctan2(x, relief + np.float32(1e-3)) + turn) * np.float32(0.5),
        along=y + np.float32(0.5) * (view.form - np.float32(0.5)) * x,
        accent=np.zeros_like(x),
    )


_HEIGHTS = np.linspace(0, 1, 129, dtype=np.float32)


def _table(points: list[tuple[float, float]]) -> np.ndarray:
    places, widths = zip(*points, strict=True)
    table: np.ndarray = np.interp(_HEIGHTS, places, widths).astype(np.float32)
    return table


def _pick(table: np.ndarray, y: Grid) -> Grid:
    place = np.clip(y, np.float32(0), np.float32(1)) * np.float32(len(table) - 1)
    low = place.astype(np.int32)
    np.minimum(low, len(table) - 2, out=low)
    left = table.take(low)
    picked: np.ndarray = left + (table.take(low + 1) - left) * (place - low.astype(np.float32))
    return picked


def _revolution(x: Grid, y: Grid, view: View, radius: np.ndarray, *, lid: float) -> Surface:
    """A solid turned about its axis, ``radius`` given at 129 heights; ``lid`` > 0 is its top disc's
    share of the second colour, 0 means that the solid ends in a point."""
    foot, top = np.float32(view.tilt_foot), np.float32(max(view.tilt_top, 0.0))
    tilt = foot + (top - foot) * np.clip(y, np.float32(0), np.float32(1))
    squared = x * x
    wide = _pick(radius, y)
    lifted = y + tilt * _FLAT * _root(wide * wide - squared)
    wide = _pick(radius, lifted)
    relief = _root(wide * wide - squared)
    slope = _pick(np.gradient(radius, _HEIGHTS[1]).astype(np.float32), lifted)
    inside = np.minimum(wide - np.abs(x), lifted)
    normal = np.stack([x, -wide * slope, relief])
    accent = np.zeros_like(x)
    if lid == 0:
        inside = np.minimum(inside, np.float32(1) - y)
    else:
        rim = np.float32(radius[-1])
        back = (np.float32(1) - y) / np.maximum(top * _FLAT, np.float32(1e-4))
        disc = (rim - np.sqrt(squared + back * back)) * np.minimum(top * _FLAT, np.float32(1))
        on_lid = (disc > 0) if top > 0 else np.zeros(x.shape, bool)
        inside = np.where(on_lid, disc, np.minimum(inside, np.float32(1) - lifted))
        relief = np.where(on_lid, back, relief)
        accent = on_lid.astype(np.float32) * np.float32(lid)
        normal[:, on_lid] = np.array([[0], [1], [0]], np.float32)
    normal /= np.sqrt((normal * normal).sum(0)) + np.float32(1e-6)
    around = np.arctan2(x, relief + np.float32(1e-3)) + np.float32(view.yaw)
    girth = np.float32(radius.max())
    return Surface(
        inside=inside,
        relief=relief * _FLAT,
        normal=normal,
        across=around * girth,
        along=lifted,
        accent=accent,
    )


def barrel(x: Grid, y: Grid, view: View) -> Surface:
    """A bulging cylinder with hoops and a lid."""
    waist = 0.27 + 0.1 * view.form
    radius = (waist + 0.07 * np.sin(np.pi * _HEIGHTS)).astype(np.float32)
    surface = _revolution(x, y, view, radius, lid=0.55)
    hoop = np.abs(np.abs(surface.along - np.float32(0.5)) - np.float32(0.32)) < np.float32(0.035)
    np.maximum(surface.accent, hoop * np.float32(0.9), out=surface.accent)
    return surface


def cone(x: Grid, y: Grid, view: View) -> Surface:
    """A traffic cone: a slab, a cone with a collar."""
    foot = 0.27 + 0.06 * view.form
    radius = _table([(0, foot + 0.08), (0.07, foot + 0.08), (0.08, foot), (1, 0.03)])
    surface = _revolution(x, y, view, radius, lid=0.0)
    collar = np.abs(surface.along - np.float32(0.6)) < np.float32(0.1)
    np.maximum(surface.accent, collar.astype(np.float32), out=surface.accent)
    return surface


def vase(x: Grid, y: Grid, view: View) -> Surface:
    """A belly, a neck and an open lip."""
    belly = 0.24 + 0.1 * view.form
    knots = [(0, 0.15), (0.12, 0.20), (0.25, 0.9 * belly), (0.4, belly), (0.55, 0.8 * belly)]
    knots += [(0.68, 0.13), (0.78, 0.09), (0.88, 0.09), (0.96, 0.14), (1, 0.17)]
    smooth = np.convolve(np.pad(_table(knots), 5, mode="edge"), np.full(11, 1 / 11), mode="valid")
    return _revolution(x, y, view, smooth.astype(np.float32), lid=0.85)


def mushroom(x: Grid, y: Grid, view: View) -> Surface:
    """A stem under a wide dome."""
    gill = 0.5 + 0.08 * view.form
    dome = np.clip((_HEIGHTS - gill) / (1 - gill), 0, 1)
    stem = 0.13 - 0.03 * np.sin(np.pi * _HEIGHTS)
    radius = np.where(gill > _HEIGHTS, stem, 0.48 * np.sqrt(1 - dome**2)).astype(np.float32)
    surface = _revolution(x, y, view, radius, lid=0.0)
    np.maximum(surface.accent, surface.along < np.float32(gill - 0.01), out=surface.accent)
    return surface


def ring(x: Grid, y: Grid, view: View) -> Surface:
    """A torus standing upright, turned a little: its hole shows what is behind."""
    tube = np.float32(0.10 + 0.05 * view.form)
    middle = np.float32(0.5) - tube
    turn = view.yaw * 0.4
    across = x / np.float32(np.cos(turn))
    up = y - np.float32(0.5)
    radius = np.sqrt(across * across + up * up) + np.float32(1e-6)
    offset = radius - middle
    bulge = _root(tube * tube - offset * offset)
    outward = offset / (tube * radius)
    lean = np.float32(np.tan(turn))
    normal = np.stack([across * outward - lean * bulge / tube, up * outward, bulge / tube])
    normal /= np.sqrt((normal * normal).sum(0)) + np.float32(1e-6)
    angle = np.arctan2(across, up)
    return Surface(
        inside=tube - np.abs(offset),
        relief=bulge * _FLAT - lean * x,
        normal=normal,
        across=angle * middle,
        along=offset,
        accent=(np.sin(angle * np.float32(4)) > np.float32(0.6)).astype(np.float32),
    )


def signpost(x: Grid, y: Grid, view: View) -> Surface:
    """A thin pole with a turned plate: a disc, a square on its edge or a square."""
    turn = view.yaw * 0.45
    across = np.abs(x / np.float32(np.cos(turn)))
    up = np.abs(y - np.float32(0.76))
    half = np.float32(0.22)
    if view.form < 0.34:
        plate = half - np.sqrt(across * across + up * up)
    elif view.form < 0.67:
        plate = (np.float32(0.24) - across - up) * np.float32(0.71)
    else:
        plate = np.float32(0.19) - np.maximum(across, up)
    thick = np.float32(0.038)
    pole = np.minimum(thick - np.abs(x), np.minimum(y, np.float32(0.8) - y))
    on_plate = plate >= 0
    lean = np.float32(np.tan(turn))
    bulge = _root(thick * thick - x * x)
    flat = np.array([np.sin(turn), 0, np.cos(turn)], np.float32)[:, None, None]
    tube = np.stack([x / thick, np.zeros_like(x), bulge / thick])
    return Surface(
        inside=np.maximum(plate, pole),
        relief=np.where(on_plate, thick - lean * x, bulge),
        normal=np.where(on_plate, flat, tube),
        across=x,
        along=y,
        accent=np.where(on_plate, plate < np.float32(0.035), True).astype(np.float32),
    )


def crate(x: Grid, y: Grid, view: View) -> Surface:
    """A box turned about its upright edge: two slanted sides and a top."""
    away = 0.14 + 0.36 * abs(view.yaw)
    turn = np.float32(away if view.yaw < 0 else np.pi / 2 - away)
    cos, sin = np.cos(turn), np.sin(turn)
    half_a, half_b = np.float32(0.40 + 0.25 * view.form), np.float32(0.42)
    right_side = (half_a - x * cos) / sin
    left_side = (half_b + x * sin) / cos
    front = np.minimum(left_side, right_side)
    back = np.maximum((-half_a - x * cos) / sin, (-half_b + x * sin) / cos)
    foot, top = np.float32(view.tilt_foot), np.float32(max(view.tilt_top, 0.0))
    low, high = y + foot * front, y + top * front
    share = np.clip(low / np.maximum(np.float32(1) + low - high, np.float32(1e-3)), 0, 1)
    reach = (front - back) * sin * cos
    sides = np.minimum(np.minimum(low, np.float32(1) - high), reach)
    depth_on_top = (np.float32(1) - y) / np.maximum(top, np.float32(1e-4))
    lid = np.minimum(front - depth_on_top, depth_on_top - back) * top
    on_top = (lid >= 0) & (high > 1) & (top > 0)
    left_face = left_side < right_side
    face = np.where(left_face, x * cos + front * sin, -x * sin + front * cos)
    normal = np.where(
        on_top,
        np.array([0, 1, 0], np.float32)[:, None, None],
        np.where(
            left_face,
            np.array([-sin, 0, cos], np.float32)[:, None, None],
            np.array([cos, 0, sin], np.float32)[:, None, None],
        ),
    )
    half = np.where(left_face, half_a, half_b)
    edge = np.minimum(np.minimum(share, 1 - share), half - np.abs(face))
    return Surface(
        inside=np.where(on_top, lid, sides),
        relief=np.where(on_top, depth_on_top, front),
        normal=normal,
        across=face,
        along=share,
        accent=np.where(on_top, np.float32(0.25), (edge < np.float32(0.07)) * np.float32(0.8)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeClass:
    """One category of the scenes.

    Attributes:
        name: Category name.
        surface: Its geometry.
        reach: Greatest distance of a point of it from its axis, in units of its height.
        height: Usual height in metres.
        glossy: Whether it shows a highlight.
    """

    name: str
    surface: Callable[[Grid, Grid, View], Surface]
    reach: float
    height: float
    glossy: bool


CLASSES: tuple[ShapeClass, ...] = (
    ShapeClass(name="ball", surface=ball, reach=0.5, height=0.62, glossy=True),
    ShapeClass(name="crate", surface=crate, reach=0.78, height=0.62, glossy=False),
    ShapeClass(name="barrel", surface=barrel, reach=0.44, height=0.95, glossy=False),
    ShapeClass(name="cone", surface=cone, reach=0.41, height=0.85, glossy=False),
    ShapeClass(name="vase", surface=vase, reach=0.35, height=0.95, glossy=True),
    ShapeClass(name="mushroom", surface=mushroom, reach=0.5, height=0.8, glossy=True),
    ShapeClass(name="ring", surface=ring, reach=0.5, height=0.85, glossy=True),
    ShapeClass(name="signpost", surface=signpost, reach=0.3, height=1.35, glossy=False),
)
