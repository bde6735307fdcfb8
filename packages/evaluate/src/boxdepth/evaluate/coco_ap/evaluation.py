"""From files to a report: read, check, decide what can be compared, score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boxdepth.evaluate.coco_ap.fast import evaluate_fast
from boxdepth.evaluate.coco_ap.protocol import (
    AREA_RANGES,
    Backend,
    CocoReport,
    CocoSummary,
    Curves,
    IouType,
    empty_curves,
    summarise,
)
from boxdepth.evaluate.coco_ap.reference import evaluate_with_pycocotools
from boxdepth.evaluate.results import (
    DataError,
    GroundTruth,
    Predictions,
    read_annotations,
    read_predictions,
)
from boxdepth.evaluate.results.workers import Workers


def evaluate_coco(
    predictions: Path | str | Sequence[dict[str, Any]],
    annotations: Path | str | dict[str, Any],
    *,
    iou_types: Sequence[IouType] = ("segm", "bbox"),
    backend: Backend = "fast",
    workers: int = 1,
) -> CocoReport:
    """COCO AP of anybody's results.

    Args:
        predictions: a COCO results file, or its list.
        annotations: a COCO annotation file, or its document; neither is changed.
        iou_types: shapes to compare. With more than one, those the files cannot serve (masks from
            results that have boxes alone, say) are left out with a warning; alone it is an error.
        backend: "fast" (faster-coco-eval) or "pycocotools"; they agree to 1e-9.
        workers: processes for the fast backend; more than 1 needs an importable `__main__`.

    Raises:
        DataError: names every fault in the files that would change the score.
    """
    with Workers(workers) as pool:
        with_masks = tuple(iou_types) != ("bbox",)
        truth = read_annotations(_path(annotations), with_masks=with_masks)
        found = read_predictions(_path(predictions), truth, with_masks=with_masks, workers=pool)
        return evaluate_tables(truth, found, iou_types=iou_types, backend=backend, workers=pool)


def evaluate_tables(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    iou_types: Sequence[IouType] = ("segm", "bbox"),
    backend: Backend = "fast",
    workers: Workers | None = None,
) -> CocoReport:
    """`evaluate_coco` for files that are read already."""
    warnings = [*truth.notes, *predictions.notes]
    summaries: dict[str, CocoSummary] = {}
    for iou_type in iou_types:
        fault = cannot_compare(truth, predictions, iou_type)
        if fault and len(iou_types) == 1:
            raise DataError(fault)
        if fault:
            warnings.append(fault)
            continue
        curves = compute_curves(truth, predictions, iou_type, backend=backend, workers=workers)
        summaries[iou_type] = summarise(curves, truth.category_names)
    if not len(predictions):
        warnings.append("There are no predictions: every AP is 0.")
    return CocoReport(
        backend=backend,
        segm=summaries.get("segm"),
        bbox=summaries.get("bbox"),
        boundary=summaries.get("boundary"),
        images=len(truth.image_ids),
        predictions=len(predictions),
        warnings=tuple(warnings),
    )


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
    workers: Workers | None = None,
) -> Curves:
    """Precision and recall of every class by either backend."""
    if len(predictions) == 0 or len(truth) == 0:
        return _nothing_found(truth)
    if backend == "pycocotools":
        return evaluate_with_pycocotools(truth, predictions, iou_type)
    return evaluate_fast(truth, predictions, iou_type, workers or Workers())


def _nothing_found(truth: GroundTruth) -> Curves:
    curves = empty_curves(len(truth.category_ids))
    for place, (low, high) in enumerate(AREA_RANGES.values()):
        sized = ~truth.crowd & (truth.areas >= low) & (truth.areas <= high)
        classes = np.unique(truth.category_index[sized])
        curves.precision[:, :, classes, place] = 0.0
        curves.recall[:, classes, place] = 0.0
        curves.scores[:, :, classes, place] = 0.0
    return curves


def _path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) else value
