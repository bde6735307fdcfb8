"""CVAT for images 1.1: one XML file; parts of one object share a `group_id`.

Masks are CVAT's: run lengths over the rows of the mask's own box, background first.
"""

from xml.etree import ElementTree

import numpy as np

from boxdepth.evaluate.export.job import Found, Job, Written
from boxdepth.evaluate.export.shapes import Part, rasterise

NAME = "annotations.xml"
# XML 1.0 has no place for these, not even escaped.
_UNWRITABLE = {code: " " for code in range(32) if code not in (9, 10, 13)}


def write(job: Job) -> Written:
    """All images, with the split as CVAT's subset where there is more than one.

    Datumaro skips images of any subset that the file is not named after.
    """
    split = len(set(job.items.splits)) > 1
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(
        ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels"
    )
    for name in job.items.category_names:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name.translate(_UNWRITABLE)
        ElementTree.SubElement(label, "type").text = "any"
        ElementTree.SubElement(label, "attributes")
    for image, rows in job.by_image():
        height, width = job.size(image)
        name = job.items.image_names[image].translate(_UNWRITABLE)
        about = {"id": str(image), "name": name, "width": str(width), "height": str(height)}
        if split:
            about["subset"] = job.items.splits[image]
        element = ElementTree.SubElement(root, "image", about)
        for row in rows:
            _add(job, element, row)
    job.out.mkdir(parents=True, exist_ok=True)
    ElementTree.indent(root)
    tree = ElementTree.ElementTree(root)
    tree.write(job.out / NAME, encoding="utf-8", xml_declaration=True)
    return dict.fromkeys(job.rows.tolist(), NAME)


def read(job: Job) -> Found:
    """In the order of the file, as many elements for each object as it has parts."""
    root = ElementTree.parse(job.out / NAME).getroot()
    elements = {int(element.get("id", "-1")): iter(element) for element in root.iter("image")}
    for image, rows in job.by_image():
        size = job.size(image)
        for row in rows:
            if job.outlines is None:
                yield row, _mask(next(elements[image]), size)
            else:
                count = len(job.outline(row).parts)
                parts = [_part(next(elements[image])) for _ in range(count)]
                yield row, rasterise(parts, size)


def _add(job: Job, element: ElementTree.Element, row: int) -> None:
    about = {"label": job.label(row).translate(_UNWRITABLE), "source": "file", "occluded": "0",
             "z_order": "0"}  # fmt: skip
    if job.outlines is None:
        left, top, width, height = (
            int(v) for v in job.items.masks.take(np.array([row])).boxes_xywh()[0]
        )
        window = job.items.masks.pixels(row)[top : top + height, left : left + width]
        runs = ", ".join(str(run) for run in row_runs(window))
        place = {"left": left, "top": top, "width": width, "height": height}
        ElementTree.SubElement(
            element, "mask", {**about, "rle": runs, **{k: str(v) for k, v in place.items()}}
        )
        return
    parts = job.outline(row).parts
    if len(parts) > 1:
        about["group_id"] = str(int(job.items.ids[row]))
    for part in parts:
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in part.outer[:-1].tolist())
        ElementTree.SubElement(element, "polygon", {**about, "points": points})


def row_runs(mask: np.ndarray) -> list[int]:
    """Lengths of runs along the rows, background first."""
    flat = np.concatenate(([False], mask.reshape(-1)))
    edges = np.concatenate(([0], np.flatnonzero(np.diff(flat)), [mask.size]))
    return [int(run) for run in np.diff(edges)]


def _mask(element: ElementTree.Element, size: tuple[int, int]) -> np.ndarray:
    left, top, width, height = (
        int(element.get(key, "0")) for key in ("left", "top", "width", "height")
    )
    runs = [int(run) for run in element.get("rle", "").split(",")]
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    pixels = np.zeros(size, dtype=bool)
    pixels[top : top + height, left : left + width] = values.reshape(height, width)
    return pixels


def _part(element: ElementTree.Element) -> Part:
    pairs = [pair.split(",") for pair in element.get("points", "").split(";")]
    return Part(outer=np.array(pairs, dtype=np.float64))
