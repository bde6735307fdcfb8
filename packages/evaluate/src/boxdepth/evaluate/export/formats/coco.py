"""COCO files, one for each split, beside its images: `<split>/_annotations.coco.json`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from boxdepth.evaluate.export.job import Found, Job, Written, place_image, plain_name, write_json
from boxdepth.evaluate.export.shapes import Part, rasterise
from boxdepth.evaluate.export.source import whole

NAME = "_annotations.coco.json"


def write(job: Job) -> Written:
    """Every record as it was, with masks as run lengths or polygons."""
    written = {}
    named = zip(job.items.image_names, job.items.splits, strict=True)
    names = [str(plain_name(name, drop=split)) for name, split in named]
    for split in sorted(set(job.items.splits)):
        images = []
        alone = [row for row in job.boxes_alone.tolist()
                 if job.items.splits[job.items.image_index[row]] == split]  # fmt: skip
        annotations = [_record(job, row) for row in alone]
        for image, rows in job.by_image():
            if job.items.splits[image] != split:
                continue
            images.append({**job.items.images[image], "file_name": names[image]})
            place_image(job, image, job.out / split / names[image])
            for row in rows:
                annotations.append(_annotation(job, row))
                written[row] = f"{split}/{NAME}"
        document = {
            **job.items.head,
            "images": images,
            "annotations": annotations,
            "categories": list(job.items.categories),
        }
        write_json(job.out / split / NAME, document)
    return written


def read(job: Job) -> Found:
    """By annotation id."""
    row_of = {int(job.items.ids[row]): row for row in job.rows.tolist()}
    for split in sorted(set(job.items.splits)):
        document = json.loads((job.out / split / NAME).read_text("utf-8"))
        for annotation in document["annotations"]:
            row = row_of.get(annotation["id"])
            if row is None:  # a box alone
                continue
            size = job.size(int(job.items.image_index[row]))
            segmentation = annotation["segmentation"]
            if isinstance(segmentation, dict):
                yield row, mask_api.decode(segmentation).astype(bool)
            else:
                rings = [np.array(points).reshape(-1, 2) for points in segmentation]
                yield row, rasterise([Part(outer=ring) for ring in rings], size)


def _record(job: Job, row: int) -> dict[str, Any]:
    """An annotation with the user's own keys, and those that were checked."""
    items = job.items
    return {
        **items.records[row],
        "id": int(items.ids[row]),
        "image_id": items.image_id(row),
        "category_id": whole(items.categories[items.category_index[row]]["id"]),
        "bbox": [round(value, 4) for value in items.boxes_xywh[row].tolist()],
        "iscrowd": int(items.crowd[row]),
    }


def _annotation(job: Job, row: int) -> dict[str, Any]:
    items = job.items
    annotation = {**_record(job, row), "area": items.masks.areas[row].item()}
    if job.outlines is None:
        size = job.size(int(items.image_index[row]))
        counts = items.masks.text(row)
        annotation["segmentation"] = {"size": list(size), "counts": counts}
    else:
        annotation["segmentation"] = [
            part.outer[:-1].round(3).reshape(-1).tolist() for part in job.outline(row).parts
        ]
    return annotation


def commands(out: Path) -> list[str]:
    """What trains on it."""
    return [
        'python -c "from rfdetr import RFDETRSegMedium; '
        f"RFDETRSegMedium().train(dataset_dir='{out}')\""
    ]
