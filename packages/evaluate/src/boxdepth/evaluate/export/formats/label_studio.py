"""Label Studio: `tasks.json` to import and `label_config.xml`, the labelling interface for it.

Masks are brush labels in Label Studio's own run lengths, polygons are in percent of the image.
"""

import json
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from boxdepth.evaluate.export.job import Found, Job, Written, write_json, write_text
from boxdepth.evaluate.export.shapes import Part, rasterise
from boxdepth.evaluate.export.source import whole
from boxdepth.evaluate.results.arrays import Bool

NAME, CONFIG = "tasks.json", "label_config.xml"
_SIZES = (3, 4, 8, 16)  # bits that Label Studio's own encoder counts run lengths with


def write(job: Job) -> Written:
    """A task for each image: annotations, or predictions where objects carry scores."""
    tasks = []
    for image, rows in job.by_image():
        scores = [job.items.records[row].get("score") for row in rows]
        predicted = any(score is not None for score in scores)
        entry: dict[str, Any] = {"result": [_region(job, image, row) for row in rows]}
        if predicted:
            known = [float(score) for score in scores if score is not None]
            entry |= {"model_version": "boxdepth", "score": sum(known) / len(known)}
        name = job.items.image_names[image]
        data = {"image": job.image_url + quote(name), "file_name": name,
                "image_id": whole(job.items.images[image]["id"]),
                "split": job.items.splits[image]}  # fmt: skip
        entries = [entry] if rows else []
        tasks.append({"data": data, "predictions" if predicted else "annotations": entries})
    write_json(job.out / NAME, tasks)
    write_text(job.out / CONFIG, config(job))
    return dict.fromkeys(job.rows.tolist(), NAME)


def config(job: Job) -> str:
    """The labelling interface that knows the classes."""
    tag = "BrushLabels" if job.outlines is None else "PolygonLabels"
    labels = "".join(f"    <Label value={quoteattr(n)}/>\n" for n in job.items.category_names)
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <{tag} name="label" toName="image">\n{labels}  </{tag}>\n</View>\n'
    )


def read(job: Job) -> Found:
    """By the annotation id in each region's id."""
    regions = {}
    for task in json.loads((job.out / NAME).read_text("utf-8")):
        for entry in (*task.get("annotations", ()), *task.get("predictions", ())):
            regions.update({region["id"]: region for region in entry["result"]})
    for image, rows in job.by_image():
        height, width = job.size(image)
        for row in rows:
            value = regions[_name(job, row)]["value"]
            if "rle" in value:
                yield row, decode(value["rle"], height, width)
            else:
                points = np.array(value["points"]) * (width / 100, height / 100)
                yield row, rasterise([Part(outer=points.round(4))], (height, width))


def _name(job: Job, row: int) -> str:
    return f"annotation-{job.items.ids[row]}"


def _region(job: Job, image: int, row: int) -> dict[str, Any]:
    height, width = job.size(image)
    region: dict[str, Any] = {
        "id": _name(job, row),
        "from_name": "label",
        "to_name": "image",
        "image_rotation": 0,
        "original_width": width,
        "original_height": height,
    }
    score = job.items.records[row].get("score")
    if score is not None:
        region["score"] = float(score)
    if job.outlines is None:
        runs = encode(job.items.masks.pixels(row))
        coded: dict[str, Any] = {"format": "rle", "rle": runs, "brushlabels": [job.label(row)]}
        return {**region, "type": "brushlabels", "value": coded}
    ring = job.outline(row).parts[0].outer[:-1]
    points = (ring * (100 / width, 100 / height)).round(8).tolist()
    value: dict[str, Any] = {"points": points, "closed": True, "polygonlabels": [job.label(row)]}
    return {**region, "type": "polygonlabels", "value": value}


def encode(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """Label Studio's run lengths: four channels a pixel, row by row, 255 inside.

    A header (number of values in 32 bits, bits of a value - 1 in 5, four run sizes - 1 in 4 each)
    and for each run a 1, which of the sizes, the length - 1 in so many bits, the value in 8; all of
    it as bits in bytes.
    """
    flat = mask.reshape(-1)
    edges = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]))
    header = [f"{4 * flat.size:032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    bits = header
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        value = f"{255 if flat[begin] else 0:08b}"
        left = 4 * (end - begin)
        while left:
            length = min(left, 2**16)
            index = next(i for i, size in enumerate(_SIZES) if length <= 2**size)
            bits.append(f"1{index:02b}{length - 1:0{_SIZES[index]}b}{value}")
            left -= length
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode(runs: list[int], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """`encode` undone."""
    text = "".join(f"{byte:08b}" for byte in runs)
    at = 32 + 5 + 16
    pixels = np.zeros(4 * height * width, dtype=bool)
    place = 0
    while place < len(pixels):
        size = _SIZES[int(text[at + 1 : at + 3], 2)]
        length = int(text[at + 3 : at + 3 + size], 2) + 1
        at += 3 + size
        pixels[place : place + length] = text[at : at + 8] == "1" * 8
        place, at = place + length, at + 8
    return pixels[::4].reshape(height, width)
