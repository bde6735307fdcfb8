"""Predicting on the val store during a run, and scoring it where boxdepth.evaluate is installed."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from boxdepth.depthgen.store import Category, DataError
from boxdepth.trainer.data.annotation_file import read_annotated
from boxdepth.trainer.data.categories import differences, ids_by_name, listed, shown
from boxdepth.trainer.data.validation_set import ValidationSet
from boxdepth.trainer.engine.checkpoint import write_atomically
from boxdepth.trainer.engine.evaluations import PREDICTIONS, REPORT
from boxdepth.trainer.inference import InferenceSpec, Picture, predict_pictures
from boxdepth.trainer.predict import to_coco_results

Score = Callable[[list[dict[str, Any]]], dict[str, Any]]
"""COCO results -> {"segm": {"ap": ...}, "bbox": {...}}."""


def predict_store(
    model: nn.Module,
    images: ValidationSet,
    spec: InferenceSpec,
    *,
    category_ids: Sequence[int | None],
    on_image: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """COCO results for every image of a store, in its order.

    Args:
        category_ids: id of each class of the network; None: it is left out.
    """

    def pictures() -> Iterator[Picture]:
        for row in range(len(images)):
            yield Picture(rgb=images.rgb(row))

    results = []
    for row, instances in enumerate(predict_pictures(model, pictures(), spec)):
        results += to_coco_results(
            instances, image_id=images.image_id(row), category_ids=category_ids
        )
        on_image(row + 1)
    return results


def scorer(images: ValidationSet, annotations: Path | None) -> Score | None:
    """How to score results on these images: against a file, else against the store's own.

    None where there is no boxdepth.evaluate.
    """
    try:
        from boxdepth.evaluate import evaluate_coco
    except ImportError:
        return None
    truth: Path | dict[str, Any] = annotations or images.ground_truth()
    return lambda results: evaluate_coco(results, truth).to_json()


def evaluator(
    images: ValidationSet | None,
    spec: InferenceSpec,
    score: Score | None,
    folder: Path,
    *,
    category_ids: Sequence[int | None],
) -> Callable[[nn.Module], dict[str, Any] | None]:
    """Predicts, writes `predictions.json`, scores, writes `report.json`."""

    def evaluate(model: nn.Module) -> dict[str, Any] | None:
        if images is None:
            return None
        results = predict_store(model, images, spec, category_ids=category_ids)
        write_atomically(folder / PREDICTIONS, json.dumps(results).encode())
        if score is None:
            (folder / REPORT).unlink(missing_ok=True)
            return None
        report = score(results)
        write_atomically(folder / REPORT, (json.dumps(report, indent=1) + "\n").encode())
        return {kind: report[kind] for kind in ("segm", "bbox") if report.get(kind)}

    return evaluate


def truth_classes(
    images: ValidationSet, annotations: Path | None
) -> tuple[tuple[Category, ...], list[str]]:
    """The classes that predictions on a val store are scored in, and what is odd about them.

    Raises:
        DataError: the annotation file can't be read, or is not of these images.
    """
    if annotations is None:
        if images.has_masks:
            return images.categories, []
        return images.categories, [
            f"{images.store.path} has no masks: box AP only, mask AP stays empty (null); give "
            "masks with --val-annotations, or make the store with `depthgen run --with-masks`"
        ]
    annotated = read_annotated(annotations)
    missing = sorted({images.image_id(row) for row in range(len(images))} - annotated.image_ids)
    if missing:
        raise DataError(
            f"{annotations}: {len(missing)} images of {images.store.path} are not in it (ids "
            f"{listed([str(number) for number in missing])}); give the annotation file of these "
            "images"
        )
    return annotated.categories, []


def category_ids_for(
    learnt: Sequence[Category], there: Sequence[Category], *, where: str
) -> tuple[tuple[int | None, ...], list[str]]:
    """Ids by name for what is predicted on a data set, and what a person should know of it.

    Raises:
        DataError: no class of it is learnt.
    """
    ids = ids_by_name(learnt, there)
    if not any(number is not None for number in ids):
        raise DataError(
            f"{where}: none of its classes ({_names(there)}) is learnt ({_names(learnt)}); classes "
            "go by name: rename them in the annotations, or take another data set"
        )
    return ids, differences(learnt, there, where=where)


def digest(images: ValidationSet | None, spec: InferenceSpec, annotations: Path | None) -> str:
    """Of what is evaluated on and how: scores of another digest can't be compared with it."""
    if images is None:
        return ""
    truth = hashlib.sha256(annotations.read_bytes()).hexdigest() if annotations else ""
    return hashlib.sha256(f"{images.store.fingerprint} {truth} {spec}".encode()).hexdigest()


def _names(classes: Sequence[Category]) -> str:
    return listed([shown(category.name) for category in classes])
