"""Outlines of masks as polygons: traced, simplified, and rasterised again to see what it cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

import numpy as np
import shapely
from contourpy import FillType, contour_generator
from pycocotools import mask as mask_api
from scipy.spatial import cKDTree

from boxdepth.evaluate.results.arrays import Bool, Float64

Ring = Float64[np.ndarray, "_ 2"]
_NEAR = 64
ENOUGH = 0.99
"""Round-trip IoU from which an outline is simplified no less than the tolerance allows."""


class Policy(StrEnum):
    """What becomes of holes and of objects in several parts, where a format has one outline.

    `bridge`: joined, and holes cut in, by seams without width. `largest`: the largest part with its
    holes filled. `keep`: parts stay apart where the format can say that they are one object (their
    holes are bridged where it has none).
    """

    bridge = "bridge"
    largest = "largest"
    keep = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One connected part: its outline and its holes, closed rings in pixels.

    (0, 0) is the outer corner of the first pixel, whose centre is (0.5, 0.5).
    """

    outer: Ring
    holes: tuple[Ring, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """An object as polygons.

    Attributes:
        parts: what is written; without holes unless the format has them.
        note: what was done to holes and parts, in words; empty if nothing.
        simplified: points were left out.
    """

    parts: tuple[Part, ...]
    note: str
    simplified: bool = False


def outline(
    mask: Bool[np.ndarray, "h w"], *, policy: Policy, tolerance: float, with_holes: bool
) -> Outline:
    """Polygons of a mask, as simple as tolerance and a round-trip IoU of 0.99 allow.

    Args:
        mask: at least one pixel of it is set.
        policy: for holes and parts.
        tolerance: how far an outline may move, in pixels; 0 keeps every turn.
        with_holes: the format has holes of its own.
    """
    traced = trace(mask)
    best, best_iou, left_out = traced, -1.0, False
    for step in (tolerance, tolerance / 2, tolerance / 4, 0.0):
        simple = [simplify(part, step) for part in traced]
        iou = overlap(rasterise(simple, mask.shape), mask)
        if iou > best_iou:
            best, best_iou, left_out = simple, iou, step > 0
        if iou >= ENOUGH:
            break
    return replace(shape_by_policy(best, policy, with_holes=with_holes), simplified=left_out)


def shape_by_policy(parts: Sequence[Part], policy: Policy, *, with_holes: bool) -> Outline:
    """Parts as a format with one outline, several, or outlines with holes takes them."""
    holes = sum(len(part.holes) for part in parts)
    said = []
    if policy == Policy.largest:
        largest = max(parts, key=lambda part: shapely.Polygon(part.outer).area)
        if len(parts) > 1:
            said.append(f"{len(parts) - 1} of {len(parts)} parts dropped")
        if largest.holes:
            said.append(f"{_count(len(largest.holes), 'hole')} filled")
        return Outline(parts=(Part(outer=largest.outer),), note=", ".join(said))
    if with_holes:
        return Outline(parts=tuple(parts), note="")
    rings = [_bridged(part.outer, part.holes) for part in parts]
    if holes:
        said.append(f"{_count(holes, 'hole')} cut in")
    if policy == Policy.bridge and len(rings) > 1:
        said.append(f"{len(rings)} parts joined")
        rings = [_joined(rings)]
    return Outline(parts=tuple(Part(outer=ring) for ring in rings), note=", ".join(said))


def trace(mask: Bool[np.ndarray, "h w"]) -> list[Part]:
    """Outlines half-way between pixels inside and outside (marching squares), largest part first.

    They enclose the centre of every pixel of the mask and of no other.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    window = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1).astype(np.float64)
    tracer = contour_generator(z=window, fill_type=FillType.OuterOffset)
    shift = np.array([left - 0.5, top - 0.5])
    parts = []
    for points, cuts in zip(*tracer.filled(0.5, np.inf), strict=True):
        rings = [points[a:b] + shift for a, b in pairwise(cuts.tolist())]
        parts.append(Part(outer=rings[0], holes=tuple(rings[1:])))
    return sorted(parts, key=lambda part: -shapely.Polygon(part.outer).area)


def simplify(part: Part, tolerance: float) -> Part:
    """The same outline with fewer points, none farther than `tolerance` pixels from it."""
    polygon = shapely.simplify(shapely.Polygon(part.outer, part.holes), tolerance)
    if polygon.is_empty or polygon.geom_type != "Polygon":
        return part
    outer = np.asarray(polygon.exterior.coords)
    return Part(outer=outer, holes=tuple(np.asarray(ring.coords) for ring in polygon.interiors))


def rasterise(parts: Sequence[Part], size: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """Pixels inside any part and none of its holes, by COCO's rasteriser."""
    height, width = size
    pixels = np.zeros((height, width), dtype=bool)
    for part in parts:
        inside = _fill(part.outer, height, width)
        for hole in part.holes:
            inside &= ~_fill(hole, height, width)
        pixels |= inside
    return pixels


def overlap(one: Bool[np.ndarray, "h w"], other: Bool[np.ndarray, "h w"]) -> float:
    """IoU of two masks; 1 if both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def _fill(ring: Ring, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    points = ring[:-1] if len(ring) > 1 and (ring[0] == ring[-1]).all() else ring
    if len(points) < 3:
        return np.zeros((height, width), dtype=bool)
    coded = mask_api.frPyObjects([points.reshape(-1).tolist()], height, width)
    return np.asarray(mask_api.decode(mask_api.merge(coded)).astype(bool))


def _bridged(outer: Ring, holes: Sequence[Ring]) -> Ring:
    """One closed ring that runs along a seam into each hole and back."""
    return _joined([outer, *holes])


def _joined(rings: Sequence[Ring]) -> Ring:
    """Rings one after the other, each entered and left at the points that lie nearest.

    Noise of very many rings is joined in one place: looking for near points costs their square, and
    a seam has no width however long it is.
    """
    if len(rings) > _NEAR:
        first = rings[0][:1]
        loops = [np.concatenate((ring, first)) for ring in rings[1:]]
        return np.concatenate((rings[0], *loops))
    joined, waiting = rings[0][:-1], [ring[:-1] for ring in rings[1:]]
    while waiting:
        tree = cKDTree(joined)
        nearest = [tree.query(ring) for ring in waiting]
        chosen = int(np.argmin([distance.min() for distance, _ in nearest]))
        distance, places = nearest[chosen]
        ring = waiting.pop(chosen)
        there = int(np.argmin(distance))
        here = int(places[there])
        around = np.concatenate((ring[there:], ring[: there + 1]))
        joined = np.concatenate((joined[: here + 1], around, joined[here:]))
    return np.concatenate((joined, joined[:1]))


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("s" if number != 1 else "")
