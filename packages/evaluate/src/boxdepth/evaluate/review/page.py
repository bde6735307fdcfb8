"""The review page: pictures, outlines and the annotations themselves in one HTML file."""

import base64
import io
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from PIL import Image

from boxdepth.evaluate.export import ExportSet, Policy
from boxdepth.evaluate.export.shapes import outline
from boxdepth.evaluate.export.source import whole
from boxdepth.evaluate.results import DataError
from boxdepth.evaluate.results.arrays import UInt8
from boxdepth.evaluate.results.pictures import read_image
from boxdepth.evaluate.review.queue import review_order, worth

_SIDE = 720  # pixels of the longer side of a picture: what a laptop's window shows
_MARGIN = 0.4
_TOLERANCE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A page and what it holds.

    Attributes:
        html: the whole file.
        shown: objects on it.
        objects: objects with a mask.
        notes: what could not be shown, in sentences.
    """

    html: str
    shown: int
    objects: int
    notes: tuple[str, ...]


def review_page(items: ExportSet, images: Path, *, top: int, title: str) -> Review:
    """Draw the `top` masks of lowest quality.

    Args:
        items: annotations or results with masks (`export.read_source`).
        images: folder of the images.
        top: how many.
        title: headline; also under which the browser remembers decisions.

    Raises:
        DataError: no object has a mask, or none of the images can be read.
    """
    rows = np.flatnonzero(items.masks.present & (items.masks.areas > 0) & ~items.crowd).tolist()
    if not rows:
        raise DataError("no object has a mask to be looked at")
    chosen = review_order(items.records, rows)[:top]
    cards, faults = _cards(items, images, chosen)
    if faults and not cards:
        raise DataError(next(iter(faults.values())))
    notes = [f"Not shown: {fault}" for fault in faults.values()]
    if all(worth(items.records[row]) is None for row in chosen):
        notes.append("No mask has a quality or a score: they come in the order of the file.")
    environment = Environment(
        loader=PackageLoader("boxdepth.evaluate.review", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("review.html.j2").render(
        title=title,
        version=version("boxdepth-evaluate"),
        cards=embedded(cards),
        document=embedded(document(items)),
    )
    return Review(html=html, shown=len(cards), objects=len(rows), notes=(*items.notes, *notes))


def document(items: ExportSet) -> dict[str, Any]:
    """All objects as a COCO annotation file, with masks as run lengths."""
    annotations = []
    for row in range(len(items)):
        category = items.categories[int(items.category_index[row])]
        record: dict[str, Any] = {
            **items.records[row],
            "id": int(items.ids[row]),
            "image_id": items.image_id(row),
            "category_id": whole(category["id"]),
            "bbox": items.boxes_xywh[row].round(4).tolist(),
            "iscrowd": int(items.crowd[row]),
        }
        if items.masks.present[row]:
            size = items.masks.sizes[row].tolist()
            counts = items.masks.text(row)
            record |= {"segmentation": {"size": size, "counts": counts},
                       "area": items.masks.areas[row].item()}  # fmt: skip
        annotations.append(record)
    return {
        **items.head,
        "images": list(items.images),
        "annotations": annotations,
        "categories": list(items.categories),
    }


def embedded(value: object) -> Markup:
    """JSON that no `</script>` in a name can end."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _cards(
    items: ExportSet, images: Path, rows: list[int]
) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """A card for each object whose image can be read, and the faults by image."""
    cards: list[tuple[int, dict[str, Any]]] = []
    faults: dict[int, str] = {}
    order = {row: place for place, row in enumerate(rows)}
    for image in sorted({int(items.image_index[row]) for row in rows}):
        height, width = items.image_sizes[image].tolist()
        try:
            pixels = read_image(images, items.image_names[image], (height, width))
        except DataError as fault:
            faults[image] = str(fault)
            continue
        mine = [row for row in rows if items.image_index[row] == image]
        cards += [(order[row], _card(items, row, pixels)) for row in mine]
    return [card for _, card in sorted(cards, key=lambda pair: pair[0])], faults


def _card(items: ExportSet, row: int, pixels: UInt8[np.ndarray, "h w 3"]) -> dict[str, Any]:
    left, top, right, bottom = _window(items, row, pixels.shape[:2])
    scale = _SIDE / max(right - left, bottom - top)
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    picture = Image.fromarray(pixels[top:bottom, left:right])
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(buffer, format="JPEG", quality=82)
    mask = items.masks.pixels(row)
    drawn = outline(mask, policy=Policy.keep, tolerance=_TOLERANCE, with_holes=True)
    rings = [ring for part in drawn.parts for ring in (part.outer, *part.holes)]
    shift, factor = np.array([left, top]), np.array(size) / (right - left, bottom - top)
    paths = ("L".join(f"{x:.1f},{y:.1f}" for x, y in ((ring[:-1] - shift) * factor).tolist())
             for ring in rings)  # fmt: skip
    box = (items.boxes_xywh[row].reshape(2, 2) - [shift, [0, 0]]) * factor
    record = items.records[row]
    said = {key: worth({key: record.get(key)}) for key in ("quality", "score")}
    return {
        "id": int(items.ids[row]),
        "label": items.category_names[int(items.category_index[row])],
        "file": items.image_names[int(items.image_index[row])],
        "width": size[0],
        "height": size[1],
        "picture": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"),
        "path": "".join(f"M{path}Z" for path in paths),
        "box": box.round(1).reshape(-1).tolist(),
        "said": {key: value for key, value in said.items() if value is not None},
    }


def _window(items: ExportSet, row: int, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the picture: mask and box with a margin, inside the image."""
    tight = items.masks.take(np.array([row])).boxes_xywh()[0]
    corners = np.stack((tight, items.boxes_xywh[row]))
    low = corners[:, :2].min(axis=0)
    high = (corners[:, :2] + corners[:, 2:]).max(axis=0)
    margin = max(8.0, _MARGIN * float((high - low).max()))
    limit = np.array([size[1], size[0]])
    start = np.clip(np.floor(low - margin), 0, limit - 1).astype(int)
    stop = np.clip(np.ceil(high + margin), start + 1, limit).astype(int)
    return int(start[0]), int(start[1]), int(stop[0]), int(stop[1])
