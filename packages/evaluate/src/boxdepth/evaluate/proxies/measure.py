"""Quality of masks where only boxes are annotated: stand-ins for mask AP, not mask AP.

Every number is a mean over annotated boxes that have a prediction of their class with a box IoU of
at least 0.5 (each prediction serves one box, the best scores choose first). How well each number
follows true mask AP is measured in docs/evaluation-proxies.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from boxdepth.evaluate.coco_ap.matching import Matches, match
from boxdepth.evaluate.proxies.edges import depth_edges, edge_agreement, image_edges
from boxdepth.evaluate.results import DataError, GroundTruth, Predictions
from boxdepth.evaluate.results.arrays import Float64
from boxdepth.evaluate.results.masks import box_ious, mask_ious
from boxdepth.evaluate.results.pictures import DepthMaps, read_image


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """Means over objects, in [0, 1]; None where there was nothing to measure.

    Attributes:
        covered: share of annotated boxes that have a matching prediction.
        tightness: IoU of the mask's tight box with the annotated box; 1 for a mask that just fills
            it. A mask that *is* the box is tight too: see `fill`.
        outside: share of the mask outside the annotated box; good masks have nearly 0.
        fill: mask area over box area; natural objects lie around 0.4 to 0.8, a mask that has
            collapsed to its box near 1.
        image_edges: mean rank of image edges along the outline (0.5 = by chance).
        depth_edges: the same for depth edges.
        agreement: IoU with the mask another model has for the same annotated box.
        quality: tightness * (1 - outside), times the mean of the edge ranks there are: one number
            to watch while training, not to publish.
    """

    covered: float | None
    tightness: float | None
    outside: float | None
    fill: float | None
    image_edges: float | None
    depth_edges: float | None
    agreement: float | None
    quality: float | None

    def to_json(self) -> dict[str, float | None]:
        """The numbers by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyReport:
    """Proxies over all classes and for each.

    Attributes:
        overall: over all matched objects.
        per_class: class name to its own.
        objects: annotated boxes that were matched.
        warnings: what could not be measured, in sentences.
    """

    overall: Proxies
    per_class: Mapping[str, Proxies]
    objects: int
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As `evaluate proxies --json` prints it."""
        return {
            **self.overall.to_json(),
            "per_class": {name: p.to_json() for name, p in self.per_class.items()},
            "objects": self.objects,
            "warnings": list(self.warnings),
        }


def measure_proxies(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    images: Path | None = None,
    depth: Path | None = None,
    other: Predictions | None = None,
) -> ProxyReport:
    """Measure masks against boxes, edges and each other.

    Args:
        truth: annotated boxes; masks in it are not looked at.
        predictions: results with masks.
        images: folder of the images, for image edges.
        depth: folder or HDF5 file of depth maps, for depth edges.
        other: another model's results for the same images, for agreement.

    Raises:
        DataError: results without masks, or faulty images or depth maps.
    """
    for table in (predictions, other):
        if table is not None and not table.masks.present.all():
            raise DataError(
                f"{table.source}: proxies are about masks; add a segmentation to each result"
            )
    objects, rows = _pairs(match(truth, predictions, "bbox"))
    columns = _boxes_and_masks(truth, predictions, objects, rows)
    columns["agreement"] = _agreement(truth, predictions, objects, rows, other)
    without = int((~truth.crowd).sum()) - len(objects)
    warnings = [f"{without} boxes have no matching prediction."] if without else []
    maps = DepthMaps(depth) if depth is not None else None
    columns.update(_edges(truth, predictions, objects, rows, images=images, maps=maps))
    if maps is not None and np.isnan(columns["depth_edges"]).all():
        warnings.append("No depth map fits an image: names are compared without their suffix.")
    return _report(truth, objects, columns, warnings)


def _pairs(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    rows = np.flatnonzero((matches.annotation[0] >= 0) & ~matches.ignored[0])
    return matches.annotation[0][rows], rows


def _boxes_and_masks(
    truth: GroundTruth, predictions: Predictions, objects: np.ndarray, rows: np.ndarray
) -> dict[str, Float64[np.ndarray, " m"]]:
    masks = predictions.masks.take(rows)
    tight, given = masks.boxes_xywh(), truth.boxes_xywh[objects]
    none = np.zeros(1, dtype=bool)
    ious = [box_ious(a[None], b[None], none)[0, 0] for a, b in zip(tight, given, strict=True)]
    outside = [_outside(masks.pixels(i), box) for i, box in enumerate(given.tolist())]
    return {
        "tightness": np.array(ious, dtype=np.float64),
        "outside": np.array(outside, dtype=np.float64),
        "fill": masks.areas / np.maximum(given.prod(axis=1, where=[False, False, True, True]), 1.0),
    }


def _outside(mask: np.ndarray, box: list[float]) -> float:
    x, y, width, height = box
    total = np.count_nonzero(mask)
    left, top = max(0, int(np.floor(x))), max(0, int(np.floor(y)))
    right, bottom = int(np.ceil(x + width)), int(np.ceil(y + height))
    inside = np.count_nonzero(mask[top:bottom, left:right])
    return 1.0 - inside / total if total else float("nan")


def _agreement(
    truth: GroundTruth,
    predictions: Predictions,
    objects: np.ndarray,
    rows: np.ndarray,
    other: Predictions | None,
) -> Float64[np.ndarray, " m"]:
    values = np.full(len(objects), np.nan)
    if other is None:
        return values
    other_objects, other_rows = _pairs(match(truth, other, "bbox"))
    partner = dict(zip(other_objects.tolist(), other_rows.tolist(), strict=True))
    none = np.zeros(1, dtype=bool)
    for place, (annotation, row) in enumerate(zip(objects.tolist(), rows.tolist(), strict=True)):
        if annotation in partner:
            mine = predictions.masks.take(np.array([row]))
            theirs = other.masks.take(np.array([partner[annotation]]))
            values[place] = mask_ious(mine, theirs, none)[0, 0]
    return values


def _edges(
    truth: GroundTruth,
    predictions: Predictions,
    objects: np.ndarray,
    rows: np.ndarray,
    *,
    images: Path | None,
    maps: DepthMaps | None,
) -> dict[str, Float64[np.ndarray, " m"]]:
    values = {name: np.full(len(objects), np.nan) for name in ("image_edges", "depth_edges")}
    if images is None and maps is None:
        return values
    of_object = truth.image_index[objects]
    for image in np.unique(of_object).tolist():
        found = dict(_edge_maps(truth, image, images=images, maps=maps))
        for place in np.flatnonzero(of_object == image).tolist():
            mask = predictions.masks.pixels(int(rows[place]))
            for name, edges in found.items():
                agreement = edge_agreement(mask, edges)
                values[name][place] = np.nan if agreement is None else agreement
    return values


def _edge_maps(
    truth: GroundTruth, image: int, *, images: Path | None, maps: DepthMaps | None
) -> Iterator[tuple[str, np.ndarray]]:
    height, width = truth.image_sizes[image].tolist()
    name = truth.image_names[image]
    if images is not None:
        yield "image_edges", image_edges(read_image(images, name, (height, width)))
    depth = maps.read(name, int(truth.image_ids[image])) if maps is not None else None
    if depth is not None:
        yield "depth_edges", depth_edges(depth, (height, width))


def _report(
    truth: GroundTruth,
    objects: np.ndarray,
    columns: dict[str, Float64[np.ndarray, " m"]],
    warnings: list[str],
) -> ProxyReport:
    real = truth.category_index[~truth.crowd]
    category = truth.category_index[objects]
    per_class = {
        truth.category_names[k]: _means(columns, category == k, int((real == k).sum()))
        for k in np.unique(real).tolist()
    }
    everything = _means(columns, np.ones(len(objects), dtype=bool), len(real))
    return ProxyReport(
        overall=everything, per_class=per_class, objects=len(objects), warnings=tuple(warnings)
    )


def _means(columns: dict[str, np.ndarray], chosen: np.ndarray, boxes: int) -> Proxies:
    means = {name: _mean(values[chosen]) for name, values in columns.items()}
    covered = float(chosen.sum() / boxes) if boxes else None
    ranks = [means[name] for name in ("image_edges", "depth_edges")]
    known = [rank for rank in ranks if rank is not None]
    quality = None
    if means["tightness"] is not None and means["outside"] is not None:
        edge = sum(known) / len(known) if known else 1.0
        quality = means["tightness"] * (1 - means["outside"]) * edge
    return Proxies(covered=covered, quality=quality, **means)


def _mean(values: Float64[np.ndarray, " m"]) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None
