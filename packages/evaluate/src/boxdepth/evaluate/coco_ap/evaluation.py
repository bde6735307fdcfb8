"""From files or tables to a report: read, check, decide what can be compared, score."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from boxdepth.evaluate.coco_ap import hotcoco_backend
from boxdepth.evaluate.coco_ap.protocol import (
    AREA_RANGES,
    MAX_DETECTIONS,
    Backend,
    CocoSummary,
    Curves,
    IouType,
    empty_curves,
    summarise,
)
from boxdepth.evaluate.coco_ap.report import CocoReport, CrossCheck
from boxdepth.evaluate.results import (
    DataError,
    GroundTruth,
    Predictions,
    UsageError,
    read_annotations,
    read_predictions,
)
from boxdepth.evaluate.results.inputs import AnnotationsInput, PredictionsInput, as_input
from boxdepth.evaluate.words import counted


def evaluate_coco(
    predictions: PredictionsInput,
    annotations: AnnotationsInput,
    *,
    iou_types: Sequence[IouType] = ("segm", "bbox"),
    backend: Backend = "fast",
    max_detections: Sequence[int] = MAX_DETECTIONS,
    cross_check: int = 0,
) -> CocoReport:
    """COCO AP of anybody's results. Nothing is printed, written, or started.

    Args:
        predictions: a COCO results file, its list, or `{image id: instances}` where instances hold
            arrays `boxes` (xyxy in pixels), `labels` (category ids), `scores` and `masks`
            [n, h, w]: a dict, an object with those attributes, or `supervision.Detections`.
        annotations: a COCO annotation file, or its document; neither is changed.
        iou_types: shapes to compare. With more than one, those the files cannot serve (masks from
            results that have boxes alone, say) are left out with a warning; alone it is an error.
        backend: "fast" (hotcoco) or "pycocotools"; they agree to 1e-12. Boundaries are always
            compared by pycocotools.
        max_detections: how many of each image and class count, best scores first; AP is at the
            largest. More than COCO's 100 is right where an image holds more objects of a class.
        cross_check: score so many images, drawn at random, with both backends.

    Raises:
        DataError: names every fault in the files that would change the score.
        UsageError: `max_detections` or `cross_check` mean nothing.
    """
    with_masks = tuple(iou_types) != ("bbox",)
    truth = read_annotations(as_input(annotations), with_masks=with_masks)
    found = read_predictions(as_input(predictions), truth, with_masks=with_masks)
    return evaluate_tables(
        truth,
        found,
        iou_types=iou_types,
        backend=backend,
        max_detections=max_detections,
        cross_check=cross_check,
    )


def evaluate_tables(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    iou_types: Sequence[IouType] = ("segm", "bbox"),
    backend: Backend = "fast",
    max_detections: Sequence[int] = MAX_DETECTIONS,
    cross_check: int = 0,
) -> CocoReport:
    """`evaluate_coco` for files that are read already."""
    limits = checked_limits(max_detections)
    warnings = [*truth.notes, *predictions.notes, *_crowded(truth, limits[-1])]
    summaries: dict[str, CocoSummary] = {}
    compared: list[IouType] = []
    for iou_type in iou_types:
        fault = cannot_compare(truth, predictions, iou_type)
        if fault and len(iou_types) == 1:
            raise DataError(fault)
        if fault:
            warnings.append(fault)
            continue
        curves = compute_curves(
            truth, predictions, iou_type, backend=backend, max_detections=limits
        )
        summaries[iou_type] = summarise(curves, truth.category_names)
        compared.append(iou_type)
    if not len(predictions):
        warnings.append("There are no predictions: every AP is 0.")
    return CocoReport(
        backend=backend_name(backend, compared),
        segm=summaries.get("segm"),
        bbox=summaries.get("bbox"),
        boundary=summaries.get("boundary"),
        images=len(truth.image_ids),
        predictions=len(predictions),
        warnings=tuple(warnings),
        cross_check=(
            check_against_reference(truth, predictions, compared, limits, cross_check)
            if cross_check
            else None
        ),
    )


def _crowded(truth: GroundTruth, limit: int) -> list[str]:
    """A word where an image holds more objects of a class than detections count."""
    classes = len(truth.category_ids)
    pairs = (truth.image_index * classes + truth.category_index)[~truth.crowd]
    kinds, counts = np.unique(pairs, return_counts=True)
    if counts.max(initial=0) <= limit:
        return []
    image, category = divmod(kinds[counts.argmax()].item(), classes)
    images = len(np.unique(kinds[counts > limit] // classes))
    return [
        f"{counted(images, 'image')} with more objects of a class than the {limit} detections that "
        f"count (image {truth.image_ids[image]}: {counts.max()} of "
        f"{truth.category_names[category]}), so the others cannot be found: count more with "
        f"--max-detections 1,10,100,{10 * math.ceil(1.5 * counts.max() / 10)}."
    ]


def cannot_compare(truth: GroundTruth, predictions: Predictions, iou_type: IouType) -> str | None:
    """Why the files have no AP of this kind, or None if they do.

    Boxes are never silently scored as masks: pycocotools would, and call it segm AP.
    """
    if iou_type == "bbox":
        return None
    lacking = int((~predictions.masks.present).sum())
    if lacking:
        return (
            f"{predictions.source}: {lacking} of {len(predictions)} results have no segmentation, "
            f"so there is no {iou_type} AP. Add masks, or ask for --iou-type bbox."
        )
    lacking = int((~truth.masks.present).sum())
    if lacking:
        return (
            f"{truth.source}: {lacking} of {len(truth)} annotations have no segmentation, so there "
            f"is no {iou_type} AP. `evaluate proxies` measures masks against boxes alone."
        )
    return None


def compute_curves(
    truth: GroundTruth,
    predictions: Predictions,
    iou_type: IouType,
    *,
    backend: Backend = "fast",
    max_detections: tuple[int, ...] = MAX_DETECTIONS,
) -> Curves:
    """Precision and recall of every class by either backend."""
    if len(predictions) == 0 or len(truth) == 0:
        return _nothing_found(truth, max_detections)
    if backend_name(backend, (iou_type,)) == "pycocotools":
        # pycocotools imports pyplot where it is installed: half a second that few runs need.
        from boxdepth.evaluate.coco_ap.reference import evaluate_with_pycocotools

        return evaluate_with_pycocotools(truth, predictions, iou_type, max_detections)
    return hotcoco_backend.evaluate_with_hotcoco(truth, predictions, iou_type, max_detections)


def backend_name(backend: Backend, iou_types: Sequence[str]) -> str:
    """Who counts: hotcoco, unless it may not be called here or knows no such shape."""
    fast = backend == "fast" and "boundary" not in iou_types and hotcoco_backend.is_usable()
    return "hotcoco" if fast else "pycocotools"


def checked_limits(max_detections: Sequence[int]) -> tuple[int, ...]:
    """The numbers of detections to keep, rising; raises `UsageError` for what is none."""
    limits = tuple(sorted(set(max_detections)))
    if not limits or limits[0] < 1:
        raise UsageError(
            f"max_detections is {list(max_detections)}, expected whole numbers from 1, "
            "such as 1,10,100."
        )
    return limits


def check_against_reference(
    truth: GroundTruth,
    predictions: Predictions,
    iou_types: Sequence[IouType],
    limits: tuple[int, ...],
    images: int,
) -> CrossCheck:
    """How far the two backends are apart on a random part of the images."""
    if images < 1:
        raise UsageError(f"a cross-check of {images} images checks nothing: expected at least 1.")
    kept = np.sort(np.random.default_rng(0).permutation(len(truth.image_ids))[:images])
    rows = np.flatnonzero(np.isin(predictions.image_index, kept))
    part = predictions.take(rows)
    part = replace(part, image_index=np.searchsorted(kept, part.image_index))
    sample, largest = truth.only_images(kept), 0.0
    for iou_type in iou_types:
        fast, reference = (
            compute_curves(sample, part, iou_type, backend=backend, max_detections=limits)
            for backend in ("fast", "pycocotools")
        )
        for name in ("precision", "recall"):
            gap = np.abs(getattr(fast, name) - getattr(reference, name))
            largest = max(largest, float(gap.max(initial=0.0)))
    return CrossCheck(images=len(kept), largest_difference=largest)


def _nothing_found(truth: GroundTruth, max_detections: tuple[int, ...]) -> Curves:
    curves = empty_curves(len(truth.category_ids), max_detections)
    for place, (low, high) in enumerate(AREA_RANGES.values()):
        sized = ~truth.crowd & (truth.areas >= low) & (truth.areas <= high)
        classes = np.unique(truth.category_index[sized])
        curves.precision[:, :, classes, place] = 0.0
        curves.recall[:, classes, place] = 0.0
        curves.scores[:, :, classes, place] = 0.0
    return curves
