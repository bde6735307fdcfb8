"""Says in words why an AP is low or zero, and what it would be after each likely cure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np

from boxdepth.evaluate.check.case import Case, average_precisions, load
from boxdepth.evaluate.check.catalogue import ANNOTATION_CURES, RESULT_CURES, Cure
from boxdepth.evaluate.check.mask_cures import are_cut
from boxdepth.evaluate.check.report import CheckReport, Finding
from boxdepth.evaluate.coco_ap.protocol import MAX_DETECTIONS
from boxdepth.evaluate.results import DataError, GroundTruth, Predictions
from boxdepth.evaluate.results.inputs import AnnotationsInput, PredictionsInput, as_input
from boxdepth.evaluate.results.masks import box_ious

# A cure must raise AP by this much to be believed; four of them in a row are tried.
_GAIN, _ROUNDS = 0.01, 4


def check(predictions: PredictionsInput, annotations: AnnotationsInput) -> CheckReport:
    """Look for the usual mistakes in results and annotations.

    Args:
        predictions: as for `evaluate_coco`, or a whole COCO document.
        annotations: a COCO annotation file, or its document; neither is changed.

    Raises:
        DataError: the annotations are faulty and no cure is known, or the results are no list.
    """
    given = Case.of(*load(as_input(predictions), as_input(annotations)))
    findings, cured = _cure(given)
    if cured.truth is None:
        raise DataError(cured.error)
    truth, table = cured.truth, cured.table
    notes = () if table is None else (*truth.notes, *table.notes, *_notes(truth, table))
    notes = (*notes, *_cut_notes(cured))
    return CheckReport(
        error=given.error,
        ap=given.aps,
        findings=(*findings, *_mended(notes, cured.aps)),
        class_agnostic_ap=None if table is None else _class_agnostic(truth, table),
        notes=notes,
        images=len(truth.image_ids),
        version=version("boxdepth-evaluate"),
    )


def _cure(case: Case) -> tuple[list[Finding], Case]:
    """Apply the best cure, and again, as long as one raises an AP or lets a file be read."""
    findings: list[Finding] = []
    for _ in range(_ROUNDS):
        trials = [(cure, cured) for cure, cured in _trials(case)]
        if not trials:
            break
        cure, cured = max(trials, key=lambda trial: _progress(case, trial[1]))
        if _progress(case, cured) < _GAIN:
            break
        findings.append(
            Finding(problem=cure.problem, advice=cure.advice, ap_after=cured.aps, is_mended=False)
        )
        case = cured
    return findings, case


def _trials(case: Case) -> Iterator[tuple[Cure, Case]]:
    frame = case.frame
    for cure in RESULT_CURES:
        records = cure.apply(case.records, frame)
        if records is not None:
            yield cure, Case.of(records, case.document, case.truth)
    plain = [record for record in case.document["annotations"] if isinstance(record, dict)]
    for cure in ANNOTATION_CURES:
        annotations = cure.apply(plain, frame)
        if annotations is not None:
            yield cure, Case.of(case.records, {**case.document, "annotations": annotations})
    document = _sizes_exchanged(case)
    if document is not None:
        yield _EXCHANGED, Case.of(case.records, document)


_EXCHANGED = Cure(
    problem="annotations: height and width of images are exchanged (EXIF, or [width, height])",
    advice="write the height and width of the picture as annotated; apply EXIF tags everywhere",
    apply=lambda records, truth: None,
)


def _sizes_exchanged(case: Case) -> dict[str, Any] | None:
    """Images whose masks, in both files, have width and height the other way round."""
    stated: dict[object, set[tuple[int, int]]] = {}
    for record in (*case.document["annotations"], *case.records):
        mask = record.get("segmentation") if isinstance(record, dict) else None
        size = mask.get("size") if isinstance(mask, dict) else None
        if isinstance(size, list) and len(size) == 2 and {type(side) for side in size} == {int}:
            stated.setdefault(repr(record.get("image_id")), set()).add((size[0], size[1]))
    images, changed = [], False
    for image in case.document["images"]:
        height, width = image.get("height"), image.get("width")
        if height != width and stated.get(repr(image.get("id"))) == {(width, height)}:
            image, changed = {**image, "height": width, "width": height}, True
        images.append(image)
    return {**case.document, "images": images} if changed else None


def _progress(before: Case, after: Case) -> float:
    """AP won; a little for a file that can be read, or whose next fault is another one."""
    if after.aps or before.aps:
        return after.worth - before.worth
    if before.truth is None and after.truth is not None:
        return 0.5
    return 0.25 if before.error is not None and after.error != before.error else 0.0


def _mended(notes: tuple[str, ...], aps: Mapping[str, float]) -> Iterator[Finding]:
    """What our readers mend by themselves and others may not."""
    for note in notes:
        if "written as text" in note:
            yield Finding(
                problem=f"numbers are text ({note.rstrip('.')}), which is read as the number here",
                advice='write "image_id": 42, not "42": other tools look for the text',
                ap_after=aps,
                is_mended=True,
            )


def _class_agnostic(truth: GroundTruth, table: Predictions) -> float | None:
    one = replace(
        truth,
        category_ids=np.zeros(1, dtype=np.int64),
        category_names=("anything",),
        category_index=np.zeros_like(truth.category_index),
    )
    single = replace(table, category_index=np.zeros_like(table.category_index))
    return average_precisions(one, single, ("bbox",)).get("bbox")


def _notes(truth: GroundTruth, table: Predictions) -> Iterator[str]:
    covered = np.unique(table.image_index)
    if 0 < len(covered) < len(truth.image_ids):
        part = truth.only_images(covered)
        place = np.searchsorted(covered, table.image_index)
        ap = average_precisions(part, replace(table, image_index=place), ("bbox",)).get("bbox", 0.0)
        yield f"Box AP over the {len(covered)} images that have results: {ap:.1%}."
    if len(table) > 1 and len(np.unique(table.scores)) == 1:
        yield "All scores are equal: AP then depends on an order that means nothing."
    crowded = Counter(
        zip(table.image_index.tolist(), table.category_index.tolist(), strict=True)
    ).most_common(1)
    if crowded and crowded[0][1] > MAX_DETECTIONS[-1]:
        yield (
            f"Up to {crowded[0][1]} detections of a class in an image: COCO counts the best 100. "
            "For dense scenes pass --max-detections 1,10,100,1000."
        )
    yield from _mask_notes(table)


def _cut_notes(case: Case) -> Iterator[str]:
    annotations = [a for a in case.document["annotations"] if isinstance(a, dict)]
    for name, records in (("results", case.records), ("annotations", annotations)):
        if are_cut(records):
            yield (
                f"All polygons of the {name} are whole numbers. If they were cut, write them as "
                "floats: half a pixel costs small objects much of their AP."
            )


def _mask_notes(table: Predictions) -> Iterator[str]:
    both = np.flatnonzero(table.has_box & table.masks.present)
    if not len(both):
        return
    tight, given = table.masks.boxes_xywh()[both], table.boxes_xywh[both]
    no_crowd = np.zeros(1, dtype=bool)
    agreement = np.array(
        [box_ious(a[None], b[None], no_crowd)[0, 0] for a, b in zip(tight, given, strict=True)]
    )
    empty = int((table.masks.areas[both] == 0).sum())
    if empty:
        yield f"{empty} masks are empty."
    if np.median(agreement) < 0.5:
        yield (
            f"Masks and boxes of the same result disagree (median IoU {np.median(agreement):.2f}): "
            "are masks transposed, shifted, or in another order?"
        )
