"""Fit the quality figure of masks to their true IoU, and measure how well it finds bad ones.

    python pipelines/calibrate_quality.py RUN --store val.zarr --annotations instances_val.json
    python pipelines/calibrate_quality.py RUN --store photos.zarr --annotations truth.json --measure

The first fits the logistic function on the even images and measures on the odd ones, then prints
the numbers for `boxdepth.trainer.predict.quality`; `--measure` says how well those that are in
use do. A mask of a true box is compared with that box's mask; a detection with the mask that it
overlaps most, so that a found nothing has IoU 0.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from rich.console import Console
from scipy.optimize import minimize
from scipy.stats import rankdata

from boxdepth.trainer.data.validation_set import ValidationSet, open_validation_set
from boxdepth.trainer.predict.inference import Picture, inference_spec, predict_pictures
from boxdepth.trainer.predict.model import load_model
from boxdepth.trainer.predict.quality import CUES, expected_quality

BAD, LEAST_SCORE = 0.5, 0.3
RIDGE = 1e-3
console = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """Cues and true IoU of masks."""

    cues: np.ndarray
    iou: np.ndarray
    image: np.ndarray
    """Number of the image of each."""
    found: np.ndarray
    """True: a detection; False: the mask of a true box."""

    def of(self, rows: np.ndarray) -> "Masks":
        return Masks(
            cues=self.cues[rows], iou=self.iou[rows], image=self.image[rows], found=self.found[rows]
        )


def collect(run: Path, images: ValidationSet, truth: COCO) -> Masks:
    """Predict in the true boxes, and freely; compare both with the true masks."""
    model = load_model(run, torch.device("cpu"))
    spec = replace(inference_spec(model.config), quality=True)
    parts: list[tuple[np.ndarray, np.ndarray, int, bool]] = []
    for row in range(len(images)):
        rows = truth.loadAnns(truth.getAnnIds([images.image_id(row)], iscrowd=False))
        if not rows:
            continue
        true = [truth.annToRLE(annotation) for annotation in rows]
        xywh = np.array([annotation["bbox"] for annotation in rows], dtype=np.float32)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        rgb = images.rgb(row)
        for given in (boxes, None):
            picture = Picture(rgb=rgb, boxes_xyxy=given)
            (instances,) = predict_pictures(model.network, [picture], spec)
            kept = np.flatnonzero(instances.scores >= (LEAST_SCORE if given is None else 0))
            if not len(kept) or instances.cues is None:
                continue
            iou = np.asarray(coco_mask.iou(list(instances.masks), true, [0] * len(true)))
            own = iou.max(axis=1) if given is None else iou.diagonal()
            parts.append((instances.cues[kept], own[kept], row, given is None))
    counts = [len(part[1]) for part in parts]
    return Masks(
        cues=np.concatenate([part[0] for part in parts]),
        iou=np.concatenate([part[1] for part in parts]),
        image=np.repeat([part[2] for part in parts], counts),
        found=np.repeat([part[3] for part in parts], counts),
    )


def fit(masks: Masks) -> tuple[np.ndarray, float]:
    """Weights and bias of the logistic function closest to the IoU (cross entropy, ridge).

    Masks of true boxes and detections count the same in sum.
    """
    mean, std = masks.cues.mean(axis=0), masks.cues.std(axis=0) + 1e-6
    z = np.column_stack([(masks.cues - mean) / std, np.ones(len(masks.iou))])
    share = np.where(masks.found, masks.found.mean(), 1 - masks.found.mean())
    weights = 1 / np.maximum(share, 1e-9)
    weights /= weights.sum()

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        logits = z @ w
        value = weights @ (np.logaddexp(0, logits) - masks.iou * logits)
        slope = z.T @ (weights * (1 / (1 + np.exp(-logits)) - masks.iou))
        penalty = RIDGE * np.r_[w[:-1], 0]
        return float(value + RIDGE * (w[:-1] ** 2).sum()), slope + 2 * penalty

    best = minimize(loss, np.zeros(z.shape[1]), jac=True, method="L-BFGS-B").x
    w = best[:-1] / std
    return w, float(best[-1] - w @ mean)


def auroc(quality: np.ndarray, bad: np.ndarray) -> float | None:
    """Chance that a bad mask has less quality than a good one; None where all are alike."""
    n, m = int(bad.sum()), int((~bad).sum())
    if not n or not m:
        return None
    ranks = rankdata(-quality)[bad].sum()
    return round(float((ranks - n * (n + 1) / 2) / (n * m)), 4)


def measured(masks: Masks, quality: np.ndarray) -> dict[str, Any]:
    """AUROC against IoU < 0.5 and the mean distance to the true IoU, by kind."""
    kinds = {"of true boxes": ~masks.found, "detections": masks.found}
    return {
        name: {
            "masks": int(rows.sum()),
            "bad": round(float((masks.iou[rows] < BAD).mean()), 3),
            "auroc": auroc(quality[rows], masks.iou[rows] < BAD),
            "mean_distance": round(float(np.abs(quality - masks.iou)[rows].mean()), 3),
        }
        for name, rows in kinds.items()
        if rows.any()
    }


def main(
    run: Annotated[Path, typer.Argument(help="A run folder or a checkpoint.")],
    store: Annotated[Path, typer.Option(help="Store of images.")],
    annotations: Annotated[Path, typer.Option(help="COCO file with their true masks.")],
    measure: Annotated[bool, typer.Option("--measure", help="Fit nothing.")] = False,
) -> None:
    """Fit the quality figure, or measure the one in use."""
    masks = collect(run, open_validation_set(store), COCO(str(annotations)))
    result: dict[str, Any] = {"in_use": measured(masks, expected_quality(masks.cues))}
    if not measure:
        even = masks.image % 2 == 0
        weights, bias = fit(masks.of(even))
        other = masks.of(~even)
        quality = 1 / (1 + np.exp(-(other.cues @ weights + bias)))
        weights, bias = fit(masks)
        result |= {
            "fitted_on_even_measured_on_odd": measured(other, quality),
            "weights": dict(zip(CUES, weights.round(3).tolist(), strict=True)),
            "bias": round(bias, 3),
        }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
