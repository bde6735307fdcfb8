"""Predicting on the val store during a run, and scoring it where boxdepth.evaluate is installed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from boxdepth.trainer.data.validation_set import ValidationSet
from boxdepth.trainer.engine.checkpoint import write_atomically
from boxdepth.trainer.engine.loop import PREDICTIONS
from boxdepth.trainer.inference import InferenceSpec, Picture, predict_pictures
from boxdepth.trainer.predict import to_coco_results

Score = Callable[[list[dict[str, Any]]], dict[str, Any]]
"""COCO results -> {"segm": {"ap": ...}, "bbox": {...}}."""


def predict_store(
    model: nn.Module,
    images: ValidationSet,
    spec: InferenceSpec,
    *,
    on_image: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """COCO results for every image of a store, in its order."""

    def pictures() -> Iterator[Picture]:
        for row in range(len(images)):
            yield Picture(rgb=images.rgb(row))

    results = []
    for row, instances in enumerate(predict_pictures(model, pictures(), spec)):
        results += to_coco_results(
            instances, image_id=images.image_id(row), category_ids=images.category_ids
        )
        on_image(row + 1)
    return results


def scorer(images: ValidationSet, annotations: Path | None) -> Score | None:
    """How to score results on these images: against a file, else against the store's own masks.

    None where there is no ground truth, or no boxdepth.evaluate.
    """
    try:
        from boxdepth.evaluate import evaluate_coco
    except ImportError:
        return None
    truth: Path | dict[str, Any] | None = annotations or images.ground_truth()
    if truth is None:
        return None
    return lambda results: evaluate_coco(results, truth).to_json()


def evaluator(
    images: ValidationSet | None, spec: InferenceSpec, score: Score | None, folder: Path
) -> Callable[[nn.Module], dict[str, Any] | None]:
    """Predicts, writes `predictions.json`, scores, writes `report.json`."""

    def evaluate(model: nn.Module) -> dict[str, Any] | None:
        if images is None:
            return None
        results = predict_store(model, images, spec)
        write_atomically(folder / PREDICTIONS, json.dumps(results).encode())
        if score is None:
            return None
        report = score(results)
        write_atomically(folder / "report.json", (json.dumps(report, indent=1) + "\n").encode())
        return {kind: report[kind] for kind in ("segm", "bbox") if report.get(kind)}

    return evaluate
