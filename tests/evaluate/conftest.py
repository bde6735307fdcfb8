"""Random COCO sets, made by pycocotools' own encoder and independent of the code under test."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_api

Document = dict[str, Any]
CocoSet = tuple[Document, list[Document]]


def encoded(mask: np.ndarray) -> Document:
    """COCO's compressed run lengths of a mask."""
    rle = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def random_mask(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """An ellipse, a rectangle or noise somewhere in the image, never empty."""
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    h, w = (
        np.exp(rng.uniform(np.log(2), np.log(height))),
        np.exp(rng.uniform(np.log(2), np.log(width))),
    )
    rows, columns = np.mgrid[:height, :width]
    if rng.random() < 0.5:
        mask = ((rows - y) / h) ** 2 + ((columns - x) / w) ** 2 < 0.25
    else:
        mask = (abs(rows - y) < h / 2) & (abs(columns - x) < w / 2)
    mask = mask & (rng.random(mask.shape) < rng.choice([1.0, 0.8]))
    mask[min(int(y), height - 1), min(int(x), width - 1)] = True
    return mask


def polygon_of(rng: np.random.Generator, height: int, width: int) -> list[float]:
    """Some triangle to hexagon, possibly self-crossing."""
    corners = int(rng.integers(3, 7))
    points = rng.uniform(0, 1, (corners, 2)) * (width, height)
    return points.round(2).reshape(-1).tolist()


def random_set(seed: int, *, images: int = 6, classes: int = 4) -> CocoSet:
    """Annotations (polygons, RLE, crowds) and results: near misses, duplicates, ties and noise."""
    rng = np.random.default_rng(seed)
    truth: Document = {"images": [], "annotations": [], "categories": []}
    truth["categories"] = [{"id": 7 * k + 3, "name": f"class {k}"} for k in range(classes)]
    ids = [category["id"] for category in truth["categories"]]
    results: list[Document] = []
    for number in range(images):
        height, width = (int(side) for side in rng.integers(40, 160, 2))
        image_id = 11 * number + 5
        truth["images"].append(
            {"id": image_id, "height": height, "width": width, "file_name": f"{image_id}.jpg"}
        )
        for _ in range(int(rng.integers(0, 6))):
            mask = random_mask(rng, height, width)
            segmentation: Any = encoded(mask)
            crowd = int(rng.random() < 0.15)
            if not crowd and rng.random() < 0.4:
                segmentation = [
                    polygon_of(rng, height, width) for _ in range(int(rng.integers(1, 3)))
                ]
                pieces = mask_api.frPyObjects(segmentation, height, width)
                mask = mask_api.decode(mask_api.merge(pieces)).astype(bool)
            rle = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
            category = int(rng.choice(ids))
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "image_id": image_id, "category_id": category,
                "bbox": mask_api.toBbox(rle).tolist(), "area": float(mask_api.area(rle)),
                "iscrowd": crowd, "segmentation": segmentation,
            })  # fmt: skip
            for _ in range(int(rng.integers(0, 4))):
                moved = np.roll(mask, tuple(rng.integers(-3, 4, 2)), axis=(0, 1))
                chosen = category if rng.random() < 0.85 else int(rng.choice(ids))
                results.append(detection(rng, image_id, chosen, moved))
        for _ in range(int(rng.integers(0, 4))):
            noise = random_mask(rng, height, width)
            results.append(detection(rng, image_id, int(rng.choice(ids)), noise))
    return truth, results


def detection(rng: np.random.Generator, image_id: int, category: int, mask: np.ndarray) -> Document:
    """One result; scores have one decimal, so that many tie."""
    rle = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "image_id": image_id, "category_id": category, "score": round(float(rng.random()), 1),
        "bbox": mask_api.toBbox(rle).tolist(), "segmentation": encoded(mask),
    }  # fmt: skip


@pytest.fixture(scope="session")
def make_set() -> Callable[..., CocoSet]:
    """`random_set(seed, images=6, classes=4)`."""
    return random_set


@pytest.fixture
def small_set() -> CocoSet:
    """A set with annotations and results in every image."""
    return random_set(3)
