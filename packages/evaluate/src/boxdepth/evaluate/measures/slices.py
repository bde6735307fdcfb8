"""The same numbers for parts of the annotations: by size, by overlap, by distance.

Objects outside a slice are ignored in it, with the detections that find them. A detection that
finds nothing has no overlap or distance of its own, so it counts in every slice: AP of a slice can
be compared with the other slices' AP, not with AP over everything.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from boxdepth.evaluate.coco_ap.matching import Matches, average_precisions
from boxdepth.evaluate.results import GroundTruth, Predictions
from boxdepth.evaluate.results.arrays import Bool, Float64, Int64
from boxdepth.evaluate.results.masks import box_ious
from boxdepth.evaluate.results.pictures import DepthMaps

DepthSign = Literal["inverse", "distance"]
OVERLAP_EDGES = (0.1, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One part of the annotations.

    Attributes:
        by: "size", "overlap" or "depth".
        name: which part.
        range: in words and numbers.
        objects: annotations in it (no crowds).
        ap, ap50: mean over the classes that occur in it; None where it is empty.
        recall: share found at IoU 0.5 by detections of the best threshold; None where empty.
        average_recall: share found, mean over IoU 0.50 to 0.95, by all detections.
    """

    by: str
    name: str
    range: str
    objects: int
    ap: float | None
    ap50: float | None
    recall: float | None
    average_recall: float | None

    def to_json(self) -> dict[str, Any]:
        """The values by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A way to part the annotations: names, ranges in words, and each annotation's part (or -1)."""

    by: str
    names: tuple[str, ...]
    ranges: tuple[str, ...]
    of_object: Int64[np.ndarray, " n"]


def measure_slices(
    truth: GroundTruth,
    predictions: Predictions,
    matches: Matches,
    *,
    threshold: float | None,
    parts: Sequence[Parts],
) -> list[Slice]:
    """Numbers of every part of every way to part the annotations."""
    kept = predictions.scores >= (np.inf if threshold is None else threshold)
    slices = []
    for division in parts:
        for place, (name, words) in enumerate(zip(division.names, division.ranges, strict=True)):
            inside = (division.of_object == place) & ~truth.crowd
            ap, ap50 = _aps(truth, predictions, matches, inside)
            found = _found(matches, inside)
            seen = _found(matches, inside, kept)
            objects = int(inside.sum())
            slices.append(
                Slice(
                    by=division.by,
                    name=name,
                    range=words,
                    objects=objects,
                    ap=ap,
                    ap50=ap50,
                    recall=float(seen[0]) / objects if objects else None,
                    average_recall=float(found.mean()) / objects if objects else None,
                )
            )
    return slices


def by_size(truth: GroundTruth) -> Parts:
    """Thirds of the annotations by area: as many small as middling and large ones."""
    return _thirds("size", ("small third", "middle third", "large third"), truth, truth.areas, "px")


def by_overlap(truth: GroundTruth) -> Parts:
    """How much of an object's box lies in another object's box, at most: a cue of occlusion."""
    share = box_overlap(truth)
    low, high = OVERLAP_EDGES
    return Parts(
        by="overlap",
        names=("free", "touched", "crowded"),
        ranges=(f"below {low:.0%}", f"{low:.0%} to {high:.0%}", f"from {high:.0%}"),
        of_object=np.searchsorted(OVERLAP_EDGES, share, side="right"),
    )


def by_depth(truth: GroundTruth, depth: Path, sign: DepthSign = "inverse") -> Parts:
    """Thirds of the annotations by nearness, which is relative to their image.

    An object's nearness is the share of its image's pixels that are farther away than its median:
    it needs no scale, so relative depth will do, and compares objects across images.
    """
    nearness = np.full(len(truth), np.nan)
    maps = DepthMaps(depth)
    for image in np.unique(truth.image_index).tolist():
        values = maps.read(truth.image_names[image], int(truth.image_ids[image]))
        if values is None:
            continue
        near = values if sign == "inverse" else -values
        ordered = np.sort(near, axis=None)
        for row in np.flatnonzero(truth.image_index == image).tolist():
            inside = _depth_inside(truth, row, near)
            if inside.size:
                nearness[row] = np.searchsorted(ordered, np.median(inside)) / ordered.size
    return _thirds(
        "depth", ("far third", "middle third", "near third"), truth, nearness, "nearness"
    )


def box_overlap(truth: GroundTruth) -> Float64[np.ndarray, " n"]:
    """Largest share of each box that lies in the box of another object of its image (no crowd)."""
    share = np.zeros(len(truth))
    for rows in _rows_of_images(truth):
        boxes = truth.boxes_xywh[rows]
        inside = box_ious(boxes, boxes, np.ones(len(rows), dtype=bool))
        np.fill_diagonal(inside, 0.0)
        inside[:, truth.crowd[rows]] = 0.0
        share[rows] = inside.max(axis=1, initial=0.0)
    return share


def _rows_of_images(truth: GroundTruth) -> Iterator[np.ndarray]:
    order = np.argsort(truth.image_index, kind="stable")
    cuts = np.searchsorted(truth.image_index[order], np.arange(len(truth.image_ids) + 1))
    for begin, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        if end > begin:
            yield order[begin:end]


def _depth_inside(truth: GroundTruth, row: int, depth: np.ndarray) -> np.ndarray:
    """Depth at an object's pixels (its box's where it has no mask), whatever the map's size."""
    height, width = truth.image_sizes[truth.image_index[row]].tolist()
    rows = np.arange(depth.shape[0]) * height // depth.shape[0]
    columns = np.arange(depth.shape[1]) * width // depth.shape[1]
    if truth.masks.present[row]:
        return np.asarray(depth[truth.masks.pixels(row)[np.ix_(rows, columns)]])
    x, y, w, h = truth.boxes_xywh[row].tolist()
    inside = np.ix_((rows >= y) & (rows < y + h), (columns >= x) & (columns < x + w))
    return np.asarray(depth[inside].reshape(-1))


def _thirds(
    by: str, names: tuple[str, ...], truth: GroundTruth, values: np.ndarray, unit: str
) -> Parts:
    """Three parts of equal number, as far as equal values allow; NaN belongs to none."""
    known = ~np.isnan(values) & ~truth.crowd
    edges = np.quantile(values[known], (1 / 3, 2 / 3)) if known.any() else np.zeros(2)
    low, high = (f"{edge:.3g}" if edge < 1000 else f"{edge:,.0f}" for edge in edges.tolist())
    return Parts(
        by=by,
        names=names,
        ranges=(f"to {low} {unit}", f"to {high} {unit}", f"above {high} {unit}"),
        of_object=np.where(known, np.searchsorted(edges, values, side="left"), -1),
    )


def _found(
    matches: Matches, inside: Bool[np.ndarray, " g"], kept: Bool[np.ndarray, " n"] | None = None
) -> Int64[np.ndarray, " t"]:
    """How many of the objects `inside` are found, at each IoU threshold."""
    hit = (matches.annotation >= 0) & ~matches.ignored
    hit &= inside[matches.annotation] if len(inside) else False
    return np.asarray((hit if kept is None else hit & kept).sum(axis=1))


def _aps(
    truth: GroundTruth, predictions: Predictions, matches: Matches, inside: np.ndarray
) -> tuple[float | None, float | None]:
    order = np.argsort(-predictions.scores, kind="stable")
    table = []
    for category in np.unique(truth.category_index[inside]).tolist():
        wanted = np.array([(inside & (truth.category_index == category)).sum()], dtype=np.float64)
        rows = order[predictions.category_index[order] == category]
        objects = matches.annotation[:, rows]
        right = (objects >= 0) & inside[objects]
        counted = ~matches.ignored[:, rows] & (right | (objects < 0))
        table.append(
            [
                average_precisions(hit[keep], np.ones((1, int(keep.sum()))), wanted)[0]
                for hit, keep in zip(right, counted, strict=True)
            ]
        )
    if not table:
        return None, None
    values = np.array(table)
    return float(values.mean()), float(values[:, 0].mean())
