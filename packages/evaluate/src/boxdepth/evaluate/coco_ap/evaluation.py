"""From files to a report: read, check, decide what can be compared, score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boxdepth.evaluate.coco_ap.fast import evaluate_fast
from boxdepth.evaluate.coco_ap.protocol import (
    Backend,
    CocoReport,
    CocoSummary,
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


def evaluate_coco(
    predictions: Path | str | Sequence[dict[str, Any]],
    annotations: Path | str | dict[str, Any],
    *,
    iou_types: Sequence[IouType] = ("segm", "bbox"),
    backend: Backend = "fast",
) -> CocoReport:
    """COCO AP of anybody's results.

    Args:
        predictions: a COCO results file, or its list.
        annotations: a COCO annotation file, or its document; neither is changed.
        iou_types: shapes to compare. With more than one, those the files cannot serve (masks from
            results that have boxes alone, say) are left out with a warning; alone it is an error.
        backend: "fast" (faster-coco-eval) or "pycocotools"; they agree to 1e-9.

    Raises:
        DataError: names every fault in the files that would change the score.
    """
    truth = read_annotations(_path(annotations))
    found = read_predictions(_path(predictions), truth)
    return evaluate_tables(truth, found, iou_types=iou_types, backend=backend)


def evaluate_tables(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    iou_types: Sequence[IouType] = ("segm", "bbox"),
    backend: Backend = "fast",
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
        else:
            summaries[iou_type] = _score(truth, predictions, iou_type, backend)
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


def _score(
    truth: GroundTruth, predictions: Predictions, iou_type: IouType, backend: Backend
) -> CocoSummary:
    if len(predictions) == 0 or len(truth) == 0:
        curves = empty_curves(len(truth.category_ids))
        return summarise(_nothing_found(truth, curves), truth.category_names)
    score = evaluate_fast if backend == "fast" else evaluate_with_pycocotools
    return summarise(score(truth, predictions, iou_type), truth.category_names)


def _nothing_found(truth: GroundTruth, curves: Any) -> Any:
    from boxdepth.evaluate.coco_ap.protocol import AREA_RANGES

    real = ~truth.crowd
    for place, (low, high) in enumerate(AREA_RANGES.values()):
        sized = real & (truth.areas >= low) & (truth.areas <= high)
        for category in set(truth.category_index[sized].tolist()):
            curves.precision[:, :, category, place] = 0.0
            curves.recall[:, category, place] = 0.0
            curves.scores[:, :, category, place] = 0.0
    return curves


def _path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) else value
