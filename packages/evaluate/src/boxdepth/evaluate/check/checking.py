"""Says in words why an AP is low or zero, and what it would be after each likely cure."""

from collections import Counter
from collections.abc import Mapping, Sequence
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
        ap_after: AP by shape ("segm", "bbox") once it and the findings before it are mended.
    """

    problem: str
    advice: str
    ap_after: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {"problem": self.problem, "advice": self.advice, "ap_after": dict(self.ap_after)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What `evaluate check` found.

    Attributes:
        error: why the file cannot be scored as it is, or None.
        ap: AP of the file as it is, by shape ("segm", "bbox"); empty if it cannot be scored.
        findings: mistakes and cures, to be applied in this order.
        class_agnostic_ap: box AP if all classes were one, after the cures: high beside a low AP
            means that places are right and classes wrong.
        notes: everything else worth knowing, in sentences.
        images: how many images the APs are about.
    """

    error: str | None
    ap: Mapping[str, float]
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
            "ap": dict(self.ap),
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
    truth, records = _sampled(truth, _load(predictions))
    error, table = _try(records, truth)
    shapes = _shapes(truth, records)
    aps = _aps(truth, table, shapes)
    findings, records = _cure(records, truth, shapes, aps)
    _, mended = _try(records, truth)
    return CheckReport(
        error=error,
        ap=aps,
        findings=tuple(findings),
        class_agnostic_ap=None if mended is None else _class_agnostic(truth, mended),
        notes=() if mended is None else (*truth.notes, *mended.notes, *_notes(truth, mended)),
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


def _shapes(truth: GroundTruth, records: list[Record]) -> tuple[IouType, ...]:
    masked = bool(records) and all(record.get("segmentation") for record in records)
    masked = masked and len(truth) > 0 and bool(truth.masks.present.all())
    boxed = any(record.get("bbox") for record in records)
    return (*(("segm",) if masked else ()), *(("bbox",) if boxed or not masked else ()))


def _aps(
    truth: GroundTruth, table: Predictions | None, shapes: Sequence[IouType]
) -> dict[str, float]:
    if table is None or any(cannot_compare(truth, table, shape) for shape in shapes):
        return {}
    report = evaluate_tables(truth, table, iou_types=shapes)
    summaries = {"segm": report.segm, "bbox": report.bbox}
    return {name: s.ap for name, s in summaries.items() if s is not None and s.ap is not None}


def _cure(
    records: list[Record], truth: GroundTruth, shapes: Sequence[IouType], aps: dict[str, float]
) -> tuple[list[Finding], list[Record]]:
    """Apply the best cure, and again, as long as one raises an AP."""
    findings: list[Finding] = []
    best = sum(aps.values()) if aps else -1.0
    for _ in range(_ROUNDS):
        error, _table = _try(records, truth)
        trials = [_trial(cure, records, truth, shapes, error) for cure in CURES]
        trial = max(trials, key=lambda trial: trial.worth)
        if trial.records is None or trial.worth < best + _GAIN:
            break
        findings.append(
            Finding(problem=trial.cure.problem, advice=trial.cure.advice, ap_after=trial.aps)
        )
        records, best = trial.records, trial.worth
    return findings, records


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """What a cure led to; `worth` is the sum of APs, below 0 where there is none yet."""

    cure: Cure
    records: list[Record] | None
    aps: dict[str, float]
    worth: float


def _trial(
    cure: Cure,
    records: list[Record],
    truth: GroundTruth,
    shapes: Sequence[IouType],
    error_before: str | None,
) -> _Trial:
    mended = cure.apply(records, truth)
    if mended is None:
        return _Trial(cure=cure, records=None, aps={}, worth=-1.0)
    error, table = _try(mended, truth)
    aps = _aps(truth, table, shapes)
    if aps:
        return _Trial(cure=cure, records=mended, aps=aps, worth=sum(aps.values()))
    helps = error_before is not None and error != error_before
    return _Trial(cure=cure, records=mended, aps={}, worth=-0.5 if helps else -1.0)


def _class_agnostic(truth: GroundTruth, table: Predictions) -> float | None:
    one = replace(
        truth,
        category_ids=np.zeros(1, dtype=np.int64),
        category_names=("anything",),
        category_index=np.zeros_like(truth.category_index),
    )
    single = replace(table, category_index=np.zeros_like(table.category_index))
    return _aps(one, single, ("bbox",)).get("bbox")


def _notes(truth: GroundTruth, table: Predictions) -> list[str]:
    notes = []
    covered = np.unique(table.image_index)
    if 0 < len(covered) < len(truth.image_ids):
        part = truth.only_images(covered)
        place = np.searchsorted(covered, table.image_index)
        ap = _aps(part, replace(table, image_index=place), ("bbox",)).get("bbox", 0.0)
        notes.append(f"Box AP over the {len(covered)} images that have results: {ap:.1%}.")
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
