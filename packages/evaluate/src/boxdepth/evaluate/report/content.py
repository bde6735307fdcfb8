"""Everything a report shows, computed once and kept apart from how it looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from boxdepth.evaluate.cityscapes_ap import CityscapesReport, evaluate_cityscapes_tables
from boxdepth.evaluate.coco_ap import CocoReport, CocoSummary, IouType, evaluate_tables
from boxdepth.evaluate.coco_ap.matching import match
from boxdepth.evaluate.coco_ap.protocol import MAX_DETECTIONS, mean_precision
from boxdepth.evaluate.error_kinds import ErrorKinds, find_errors
from boxdepth.evaluate.measures import DepthSign, Measures, measure_matched
from boxdepth.evaluate.report.gallery import Picture, draw_gallery, tally
from boxdepth.evaluate.results import GroundTruth, Predictions

BINS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContent:
    """What a report shows.

    Attributes:
        title: headline.
        predictions, annotations: the files.
        coco: the twelve numbers for masks and boxes.
        cityscapes: official Cityscapes AP, where gtFine was given.
        shape: what curves, errors and gallery are about.
        summary: COCO numbers of that shape.
        precision: name of IoU threshold to mean precision at 101 recalls.
        score_edges, scores_right, scores_wrong: histogram of scores at IoU 0.5.
        errors: kinds of error.
        measures: F1, confusion, calibration, fragmentation, slices.
        threshold: score from which detections are drawn: highest F1.
        gallery: group to pictures, empty without images.
        notes: warnings of all parts, in sentences.
        class_counts: annotations per class.
        version: of the evaluator.
    """

    title: str
    predictions: str
    annotations: str
    coco: CocoReport
    cityscapes: CityscapesReport | None
    shape: IouType
    summary: CocoSummary
    precision: Mapping[str, list[float]]
    score_edges: list[float]
    scores_right: list[int]
    scores_wrong: list[int]
    errors: ErrorKinds
    measures: Measures
    threshold: float
    gallery: Mapping[str, list[Picture]]
    notes: tuple[str, ...]
    class_counts: Mapping[str, int]
    version: str


def collect(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    images: Path | None = None,
    gt_fine: Path | None = None,
    depth: Path | None = None,
    depth_sign: DepthSign = "inverse",
    max_detections: Sequence[int] = MAX_DETECTIONS,
    title: str = "Evaluation",
) -> ReportContent:
    """Compute a report's content.

    Args:
        truth: annotations.
        predictions: results.
        images: folder of the images, for the gallery.
        gt_fine: gtFine/<split>, for official Cityscapes AP beside COCO's.
        depth: depth maps, for slices by distance.
        depth_sign: what larger values in them mean.
        max_detections: as in `evaluate_coco`; the last one counts everywhere on the page.
        title: headline.
    """
    coco = evaluate_tables(truth, predictions, max_detections=max_detections)
    shape: IouType = "segm" if coco.segm is not None else "bbox"
    summary = coco.segm or coco.bbox
    assert summary is not None  # boxes can always be compared
    matches = match(truth, predictions, shape, summary.curves.max_detections[-1])
    errors = find_errors(truth, predictions, matches, shape)
    measures = measure_matched(
        truth, predictions, matches, iou_type=shape, depth=depth, depth_sign=depth_sign
    )
    threshold = measures.points.overall.threshold or 0.0
    counts = tally(truth, predictions, matches, errors, threshold)
    gallery, notes = (
        draw_gallery(truth, predictions, errors, counts, images) if images else ({}, [])
    )
    edges, right, wrong = _score_histogram(predictions, errors)
    return ReportContent(
        title=title,
        predictions=predictions.source,
        annotations=truth.source,
        coco=coco,
        cityscapes=evaluate_cityscapes_tables(truth, predictions, gt_fine) if gt_fine else None,
        shape=shape,
        summary=summary,
        precision=mean_precision(summary),
        score_edges=edges,
        scores_right=right,
        scores_wrong=wrong,
        errors=errors,
        measures=measures,
        threshold=threshold,
        gallery=gallery,
        notes=(*coco.warnings, *notes),
        class_counts=_class_counts(truth),
        version=version("boxdepth-evaluate"),
    )


def _score_histogram(
    predictions: Predictions, errors: ErrorKinds
) -> tuple[list[float], list[int], list[int]]:
    """Edges of the bins; right and wrong detections in each."""
    scores = predictions.scores
    low, high = float(scores.min(initial=0.0)), float(scores.max(initial=1.0))
    edges: list[float] = np.linspace(low, max(high, low + 1e-9), BINS + 1).tolist()
    right, wrong = (
        np.histogram(scores[chosen], bins=edges)[0].tolist()
        for chosen in (errors.kind == -1, errors.kind >= 0)
    )
    return edges, right, wrong


def _class_counts(truth: GroundTruth) -> dict[str, int]:
    real = np.bincount(truth.category_index[~truth.crowd], minlength=len(truth.category_ids))
    return dict(zip(truth.category_names, real.tolist(), strict=True))
