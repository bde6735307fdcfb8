"""Says in words why an AP is low or zero, and what it would be after each likely cure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from boxdepth.evaluate.check.cures import CURES, Cure
from boxdepth.evaluate.coco_ap import IouType, evaluate_tables
from boxdepth.evaluate.coco_ap.evaluation import cannot_compare
from boxdepth.evaluate.coco_ap.protocol import MAX_DETECTIONS
from boxdepth.evaluate.results import (
    DataError,
    GroundTruth,
    Predictions,
    load_json,
    read_annotations,
    read_predictions,
)
from boxdepth.evaluate.results.masks import box_ious
from boxdepth.evaluate.results.records import Record

# A cure must raise AP by this much to be believed; four of them in a row are tried.
_GAIN, _ROUNDS = 0.01, 4
# Cures are tried on as many images as this: enough to tell right from wrong.
_SAMPLE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A mistake whose cure raises the AP, given the cures before it.

    Attributes:
        problem: what is wrong, in words.
        advice: how to mend it for good.
        ap_after: AP once it (and the findings before it) are mended.
    """

    problem: str
    advice: str
    ap_after: float

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {"problem": self.problem, "advice": self.advice, "ap_after": self.ap_after}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What `evaluate check` found.

    Attributes:
        error: why the file cannot be scored as it is, or None.
        iou_type: what every AP here compares.
        ap: AP as the file is; None if it cannot be scored.
        findings: mistakes and cures, to be applied in this order.
        class_agnostic_ap: AP if all classes were one, after the cures: high beside a low AP means
            that places are right and classes wrong.
        notes: everything else worth knowing, in sentences.
        images: how many images the APs are about.
    """

    error: str | None
    iou_type: IouType
    ap: float | None
    findings: tuple[Finding, ...]
    class_agnostic_ap: float | None
    notes: tuple[str, ...]
    images: int

    @property
    def is_sound(self) -> bool:
        """Whether the file can be scored and no cure would raise its AP."""
        return self.error is None and not self.findings

    def to_json(self) -> dict[str, Any]:
        """As `evaluate check --json` prints it."""
        return {
            "sound": self.is_sound,
            "error": self.error,
            "iou_type": self.iou_type,
            "ap": self.ap,
            "findings": [finding.to_json() for finding in self.findings],
            "class_agnostic_ap": self.class_agnostic_ap,
            "notes": list(self.notes),
            "images": self.images,
        }


def check_results(
    predictions: Path | Sequence[object], annotations: Path | dict[str, Any]
) -> CheckReport:
    """Look for the usual mistakes in a results file.

    Raises:
        DataError: the annotations themselves are faulty, or the results are no JSON list.
    """
    truth = read_annotations(annotations)
    records = _load(predictions)
    truth, records = _sampled(truth, records)
    error, table = _try(records, truth)
    iou_type = _shape(truth, records)
    ap = _ap(truth, table, iou_type)
    findings, records = _cure(records, truth, iou_type, ap)
    _, mended = _try(records, truth)
    notes = () if mended is None else (*truth.notes, *mended.notes, *_notes(truth, mended))
    return CheckReport(
        error=error,
        iou_type=iou_type,
        ap=ap,
        findings=tuple(findings),
        class_agnostic_ap=None if mended is None else _class_agnostic(truth, mended, iou_type),
        notes=notes,
        images=len(truth.image_ids),
    )


def _load(predictions: Path | Sequence[object]) -> list[Record]:
    value = load_json(predictions) if isinstance(predictions, Path) else predictions
    if isinstance(value, dict) and isinstance(value.get("annotations"), list):
        value = _with_names(value)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(f"{predictions}: is no list of results, and holds none under annotations")
    return [record for record in value if isinstance(record, dict)]


def _with_names(document: dict[str, Any]) -> list[object]:
    """A whole COCO document given as results: its own category names go into the records."""
    categories = document.get("categories")
    known = categories if isinstance(categories, list) else []
    names = {str(c.get("id")): c.get("name") for c in known if isinstance(c, dict)}
    return [
        {**record, "category_name": names.get(str(record.get("category_id")))}
        for record in document["annotations"]
        if isinstance(record, dict)
    ]


def _sampled(truth: GroundTruth, records: list[Record]) -> tuple[GroundTruth, list[Record]]:
    if len(truth.image_ids) <= _SAMPLE:
        return truth, records
    known = set(truth.image_ids.tolist())
    if not all(type(r.get("image_id")) is int and r["image_id"] in known for r in records):
        return truth, records  # ids must be mended first, which needs all of them
    kept = np.random.default_rng(0).permutation(len(truth.image_ids))[:_SAMPLE]
    part = truth.only_images(np.sort(kept))
    ids = set(part.image_ids.tolist())
    return part, [record for record in records if record["image_id"] in ids]


def _try(records: list[Record], truth: GroundTruth) -> tuple[str | None, Predictions | None]:
    try:
        return None, read_predictions(records, truth)
    except DataError as error:
        return str(error), None


def _shape(truth: GroundTruth, records: list[Record]) -> IouType:
    masked = bool(records) and all(record.get("segmentation") for record in records)
    return "segm" if masked and len(truth) and truth.masks.present.all() else "bbox"


def _ap(truth: GroundTruth, table: Predictions | None, iou_type: IouType) -> float | None:
    if table is None or cannot_compare(truth, table, iou_type):
        return None
    report = evaluate_tables(truth, table, iou_types=(iou_type,))
    summary = report.segm if iou_type == "segm" else report.bbox
    return summary.ap if summary else None


def _cure(
    records: list[Record], truth: GroundTruth, iou_type: IouType, ap: float | None
) -> tuple[list[Finding], list[Record]]:
    """Apply the best cure, and again, as long as one raises the AP."""
    findings: list[Finding] = []
    best = ap if ap is not None else -1.0
    for _ in range(_ROUNDS):
        trials = [(cure, *_trial(cure, records, truth, iou_type)) for cure in CURES]
        cure, after, mended = max(trials, key=lambda trial: trial[1])
        if mended is None or after < best + _GAIN:
            break
        findings.append(Finding(problem=cure.problem, advice=cure.advice, ap_after=max(after, 0.0)))
        records, best = mended, after
    return findings, records


def _trial(
    cure: Cure, records: list[Record], truth: GroundTruth, iou_type: IouType
) -> tuple[float, list[Record] | None]:
    """AP after a cure: -1 for one that does not apply, -0.5 if it leaves fewer faults at least."""
    mended = cure.apply(records, truth)
    if mended is None:
        return -1.0, None
    error, table = _try(mended, truth)
    ap = _ap(truth, table, iou_type)
    if ap is not None:
        return ap, mended
    before, _ = _try(records, truth)
    return (-0.5 if before is not None and error != before else -1.0), mended


def _class_agnostic(truth: GroundTruth, table: Predictions, iou_type: IouType) -> float | None:
    one = replace(
        truth,
        category_ids=np.zeros(1, dtype=np.int64),
        category_names=("anything",),
        category_index=np.zeros_like(truth.category_index),
    )
    return _ap(one, replace(table, category_index=np.zeros_like(table.category_index)), iou_type)


def _notes(truth: GroundTruth, table: Predictions) -> list[str]:
    notes = []
    covered = np.unique(table.image_index)
    if 0 < len(covered) < len(truth.image_ids):
        part = truth.only_images(covered)
        place = np.searchsorted(covered, table.image_index)
        ap = _ap(part, replace(table, image_index=place), "bbox")
        notes.append(f"Box AP over the {len(covered)} images that have results: {_percent(ap)}.")
    if len(table) > 1 and len(np.unique(table.scores)) == 1:
        notes.append("All scores are equal: AP then depends on an order that means nothing.")
    crowded = Counter(table.image_index.tolist()).most_common(1)
    if crowded and crowded[0][1] > MAX_DETECTIONS[-1]:
        notes.append(
            f"Up to {crowded[0][1]} detections in an image: COCO counts the best 100 of each class."
        )
    notes.extend(_mask_notes(table))
    return notes


def _mask_notes(table: Predictions) -> list[str]:
    both = np.flatnonzero(table.has_box & table.masks.present)
    if not len(both):
        return []
    tight, given = table.masks.boxes_xywh()[both], table.boxes_xywh[both]
    agreement = np.array(
        [
            box_ious(a[None], b[None], np.zeros(1, dtype=bool))[0, 0]
            for a, b in zip(tight, given, strict=True)
        ]
    )
    empty = int((table.masks.areas[both] == 0).sum())
    notes = [f"{empty} masks are empty."] if empty else []
    if np.median(agreement) < 0.5:
        notes.append(
            f"Masks and boxes of the same result disagree (median IoU {np.median(agreement):.2f}): "
            "are masks transposed, shifted, or in another order?"
        )
    return notes


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.1f} %"
