"""How good masks are once the box is known: a figure that detection does not blur.

Mask AP mixes finding objects with outlining them, and on small sets it wavers more with the seed
than what is asked about. The mean IoU of the masks of given boxes asks about the outlines alone.
"""

import json
from pathlib import Path
from typing import Any

from pycocotools import mask as rle

Counts = dict[str, Any]


def mean_mask_iou(predictions: Path, annotations: Path) -> dict[str, float]:
    """Mean IoU of the masks predicted for given boxes (`trainer predict --boxes annotations`).

    Args:
        predictions: COCO results, one for each annotation and with its id.
        annotations: COCO annotations with exact masks.

    Returns:
        `all`, and on drawn scenes `camouflaged` and `plain`; IoU in [0, 1].

    Raises:
        ValueError: an annotation without its mask among the predictions.
    """
    document = json.loads(annotations.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    found = {row["id"]: row["segmentation"] for row in json.loads(predictions.read_text())}
    shares: dict[str, list[float]] = {"all": []}
    for row in document["annotations"]:
        if row.get("iscrowd"):
            continue
        if row["id"] not in found:
            raise ValueError(f"{predictions}: no mask for annotation {row['id']}")
        exact = _encoded(row["segmentation"], sizes[row["image_id"]])
        overlap = float(rle.iou([found[row["id"]]], [exact], [0])[0, 0])
        shares["all"].append(overlap)
        if "camouflaged" in row:
            kind = "camouflaged" if row["camouflaged"] else "plain"
            shares.setdefault(kind, []).append(overlap)
    return {kind: sum(values) / max(len(values), 1) for kind, values in shares.items()}


def _encoded(segmentation: Any, size: tuple[int, int]) -> Counts:
    """Polygons and both kinds of RLE as compressed RLE."""
    if isinstance(segmentation, list):
        merged: Counts = rle.merge(rle.frPyObjects(segmentation, *size))
        return merged
    if isinstance(segmentation["counts"], list):
        packed: Counts = rle.frPyObjects(segmentation, *size)
        return packed
    encoded: Counts = segmentation
    return encoded
