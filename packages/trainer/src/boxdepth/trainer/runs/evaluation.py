"""The evaluation of a run while it runs: predicted on the val store, scored where that can be."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from boxdepth.depthgen.store import Category, DataError
from boxdepth.trainer.data.annotation_file import read_annotated
from boxdepth.trainer.data.categories import listed
from boxdepth.trainer.data.validation_set import ValidationSet
from boxdepth.trainer.engine.checkpoint import write_atomically
from boxdepth.trainer.engine.evaluations import PREDICTIONS, REPORT
from boxdepth.trainer.predict.inference import InferenceSpec
from boxdepth.trainer.predict.store import predict_store

COCO_DETECTIONS = 100
"""Of a class in an image, that COCO's AP counts."""
Score = Callable[[list[dict[str, Any]]], dict[str, Any]]
"""COCO results -> {"segm": {"ap": ...}, "bbox": {...}}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Predicts, writes ``predictions.json``, scores, writes ``report.json``."""

    images: ValidationSet | None
    """None: there is nothing to evaluate on."""
    annotations: Path | None
    """COCO file to score against; None: the store's own annotations."""
    category_ids: tuple[int | None, ...]
    spec: InferenceSpec
    folder: Path

    def __call__(self, model: nn.Module) -> dict[str, Any] | None:
        """The scores of a network; None where there is nothing to predict on or to score with."""
        if self.images is None:
            return None
        results = predict_store(model, self.images, self.spec, category_ids=self.category_ids)
        write_atomically(self.folder / PREDICTIONS, json.dumps(results).encode())
        score = scorer(
            self.images, self.annotations, max_detections=self.spec.settings.max_detections
        )
        if score is None:
            (self.folder / REPORT).unlink(missing_ok=True)
            return None
        report = score(results)
        write_atomically(self.folder / REPORT, (json.dumps(report, indent=1) + "\n").encode())
        return {kind: report[kind] for kind in ("segm", "bbox") if report.get(kind)}

    @property
    def digest(self) -> str:
        """Of what is evaluated on and how: scores of another digest can't be compared with it."""
        if self.images is None:
            return ""
        truth = _file_digest(self.annotations) if self.annotations else ""
        text = f"{self.images.store.fingerprint} {truth} {self.spec}"
        return hashlib.sha256(text.encode()).hexdigest()


def scorer(
    images: ValidationSet, annotations: Path | None, *, max_detections: int = COCO_DETECTIONS
) -> Score | None:
    """How to score results on these images: against a file, else against the store's own.

    AP counts COCO's best 100 of a class in an image, and more where more may be found.

    None where there is no boxdepth.evaluate.
    """
    try:
        from boxdepth.evaluate import evaluate_coco
    except ImportError:
        return None
    truth: Path | dict[str, Any] = annotations or images.ground_truth()
    limits = sorted({1, 10, COCO_DETECTIONS, max(max_detections, COCO_DETECTIONS)})
    return lambda results: evaluate_coco(results, truth, max_detections=limits).to_json()


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


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
