"""Cityscapes annotations as one COCO file: visible pixels, eight classes, groups as crowd."""

from pathlib import Path
from typing import Any

import numpy as np

from boxdepth.evaluate.cityscapes_ap.frames import Frame, find_frames, read_frame
from boxdepth.evaluate.cityscapes_ap.labels import CLASSES, FIRST_INSTANCE
from boxdepth.evaluate.results import rle


def cityscapes_to_coco(gt_fine: Path) -> dict[str, Any]:
    """COCO annotations of one split folder of gtFine.

    Images are numbered from 1 in the order of their names; category ids are Cityscapes label ids.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, path) in enumerate(find_frames(gt_fine).items(), start=1):
        frame = read_frame(name, path)
        height, width = frame.shape
        file_name = f"{path.parent.name}/{name}_leftImg8bit.png"
        images.append({"id": number, "file_name": file_name, "height": height, "width": width})
        for place in range(len(frame.values)):
            record = {"id": len(annotations) + 1, "image_id": number, **_object(frame, place)}
            annotations.append(record)
    categories = [{"id": label, "name": name} for label, name in CLASSES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _object(frame: Frame, place: int) -> dict[str, Any]:
    height, width = frame.shape
    mask = (frame.instance_of_pixel == place).reshape(width, height).T
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "category_id": int(frame.labels[place]),
        "iscrowd": int(frame.values[place] < FIRST_INSTANCE),
        "area": int(frame.sizes[place]),
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "segmentation": {
            "size": [height, width],
            "counts": rle.encode(rle.from_mask(mask)).decode("ascii"),
        },
    }
