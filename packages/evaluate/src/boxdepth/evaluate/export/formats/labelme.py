"""LabelMe: a JSON file for each image; parts of one object share a `group_id`."""

import base64
import io
import json
import os
from typing import Any

import numpy as np
from PIL import Image

from boxdepth.evaluate.export.job import Found, Job, Written, side_names, write_json
from boxdepth.evaluate.export.shapes import Part, rasterise
from boxdepth.evaluate.results.pictures import safe_path


def write(job: Job) -> Written:
    """Polygons, or masks as embedded PNG."""
    written = {}
    files = side_names(job, ".json")
    for image, rows in job.by_image():
        height, width = job.size(image)
        shapes: list[dict[str, Any]] = []
        for row in rows:
            shapes += _masks(job, row) if job.outlines is None else _polygons(job, row)
            written[row] = files[image]
        write_json(
            job.out / files[image],
            {
                "version": "5.5.0",
                "flags": {},
                "shapes": shapes,
                "imagePath": _image_path(job, image, files[image]),
                "imageData": None,
                "imageHeight": height,
                "imageWidth": width,
            },
        )
    return written


def read(job: Job) -> Found:
    """By the annotation id in the description."""
    files = side_names(job, ".json")
    for image, rows in job.by_image():
        size = job.size(image)
        found: dict[str, list[dict[str, Any]]] = {}
        for shape in json.loads((job.out / files[image]).read_text("utf-8"))["shapes"]:
            found.setdefault(shape["description"], []).append(shape)
        for row in rows:
            pixels = np.zeros(size, dtype=bool)
            for shape in found.get(_description(job, row), []):
                pixels |= _pixels(shape, size)
            yield row, pixels


def _pixels(shape: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    if shape["shape_type"] == "polygon":
        return rasterise([Part(outer=np.array(shape["points"]))], size)
    (left, top), (right, bottom) = shape["points"]
    pixels = np.zeros(size, dtype=bool)
    with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as picture:
        pixels[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = np.asarray(picture) > 0
    return pixels


def _description(job: Job, row: int) -> str:
    return f"annotation {job.items.ids[row]}"


def _shape(job: Job, row: int, kind: str, points: list[list[float]]) -> dict[str, Any]:
    return {
        "label": job.label(row),
        "points": points,
        "group_id": None,
        "description": _description(job, row),
        "shape_type": kind,
        "flags": {"iscrowd": True} if job.items.crowd[row] else {},
        "mask": None,
    }


def _polygons(job: Job, row: int) -> list[dict[str, Any]]:
    parts = job.outline(row).parts
    shapes = [_shape(job, row, "polygon", part.outer[:-1].round(3).tolist()) for part in parts]
    if len(shapes) > 1:
        shapes = [{**shape, "group_id": int(job.items.ids[row])} for shape in shapes]
    return shapes


def _masks(job: Job, row: int) -> list[dict[str, Any]]:
    mask = job.items.masks.pixels(row)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = (int(v) for v in (rows[0], rows[-1], columns[0], columns[-1]))
    buffer = io.BytesIO()
    Image.fromarray(mask[top : bottom + 1, left : right + 1]).save(buffer, format="PNG")
    shape = _shape(job, row, "mask", [[float(left), float(top)], [float(right), float(bottom)]])
    return [{**shape, "mask": base64.b64encode(buffer.getvalue()).decode("ascii")}]


def _image_path(job: Job, image: int, file: str) -> str:
    name = job.items.image_names[image]
    if job.images is None:
        return name
    folder = (job.out / file).parent.resolve()
    return os.path.relpath(safe_path(job.images, name).resolve(), folder)
