"""What people get wrong in results files, each as a function that mends it on a copy.

A cure returns the mended records, or None where it makes no sense for them. Whether it was the
right one is for the AP to say.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from jaxtyping import Float64

from boxdepth.evaluate.results import GroundTruth, rle
from boxdepth.evaluate.results.records import Record

_NAME_KEYS = ("category_name", "class_name", "label", "class", "name", "category")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cure:
    """One likely mistake and its cure.

    Attributes:
        problem: what was got wrong, in words.
        advice: how to mend it for good.
        apply: mends a copy of the records, or gives None.
    """

    problem: str
    advice: str
    apply: Callable[[Sequence[Record], GroundTruth], list[Record] | None]


def ids_as_numbers(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Ids such as "42" and 42.0 become 42."""
    return _changed(
        records,
        lambda record: {
            key: number
            for key in ("image_id", "category_id")
            if (number := _as_number(record.get(key))) is not None
        },
    )


def images_by_name(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Image ids that are file names (or the numbers in them) become the annotations' ids."""
    by_name: dict[object, int] = {}
    for image_id, name in zip(truth.image_ids.tolist(), truth.image_names, strict=True):
        stem = PurePath(name).stem
        by_name.update({name: image_id, PurePath(name).name: image_id, stem: image_id})
        if stem.isdigit():
            by_name[int(stem)] = image_id
    return _changed(records, lambda r: _replaced(r, "image_id", by_name.get(_hashable(r))))


def images_by_order(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Image ids that count from 0 through the annotations' images, in the order of their ids."""
    values = [record.get("image_id") for record in records]
    if not all(type(v) is int and 0 <= v < len(truth.image_ids) for v in values):
        return None
    ids = truth.image_ids.tolist()
    return _changed(records, lambda r: _replaced(r, "image_id", ids[int(r["image_id"])]))


def shift_categories(step: int) -> Callable[[Sequence[Record], GroundTruth], list[Record] | None]:
    """Every category id moved by `step`."""

    def apply(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
        return _mapped_categories(records, truth, lambda value: value + step)

    return apply


def categories_by_order(
    first: int,
) -> Callable[[Sequence[Record], GroundTruth], list[Record] | None]:
    """Category ids that count from `first` through the annotations' categories, gaps left out."""

    def apply(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
        ids = dict(enumerate(truth.category_ids.tolist(), start=first))
        return _mapped_categories(records, truth, ids.get)

    return apply


def categories_by_name(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Categories by the name each result carries, or by a `category_id` that is a name."""
    by_name = dict(zip(map(_plain, truth.category_names), truth.category_ids.tolist(), strict=True))

    def fields(record: Record) -> Record:
        names = [record.get(key) for key in (*_NAME_KEYS, "category_id")]
        known = [by_name[_plain(n)] for n in names if isinstance(n, str) and _plain(n) in by_name]
        return _replaced(record, "category_id", known[0] if known else None)

    return _changed(records, fields)


def boxes_from_corners(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Boxes [x1, y1, x2, y2] become [x, y, width, height]."""
    boxes = _boxes(records)
    if boxes is None or (boxes[:, 2:] < boxes[:, :2]).any():
        return None
    return _with_boxes(records, np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1))


def boxes_from_centres(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Boxes [centre x, centre y, width, height] become [x, y, width, height]."""
    boxes = _boxes(records)
    if boxes is None or (boxes[:, 2:] < 0).any():
        return None
    return _with_boxes(
        records, np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]), axis=1)
    )


def boxes_from_fractions(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Boxes in fractions of the image become pixels."""
    boxes = _boxes(records)
    if boxes is None or not len(boxes) or np.abs(boxes).max() > 2:
        return None
    sizes = dict(zip(truth.image_ids.tolist(), truth.image_sizes.tolist(), strict=True))
    known = [sizes.get(record.get("image_id"), (1, 1)) for record in records]
    scale = np.array([[w, h, w, h] for h, w in known], dtype=np.float64)
    return _with_boxes(records, boxes * scale)


def boxes_from_yolo(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Boxes [centre x, centre y, width, height] in fractions of the image become pixels."""
    scaled = boxes_from_fractions(records, truth)
    return None if scaled is None else boxes_from_centres(scaled, truth)


def masks_resized(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Masks of another size are stretched over the image (nearest pixel)."""
    sizes = dict(zip(truth.image_ids.tolist(), truth.image_sizes.tolist(), strict=True))

    def fields(record: Record) -> Record:
        mask, size = record.get("segmentation"), sizes.get(record.get("image_id"))
        if not isinstance(mask, dict) or size is None or mask.get("size") == size:
            return {}
        pixels = _decoded(mask)
        if pixels is None:
            return {}
        rows = np.arange(size[0]) * pixels.shape[0] // size[0]
        columns = np.arange(size[1]) * pixels.shape[1] // size[1]
        counts = rle.encode(rle.from_mask(pixels[np.ix_(rows, columns)])).decode("ascii")
        return {"segmentation": {"size": size, "counts": counts}}

    return _changed(records, fields)


def once_each(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Records that stand several times are kept once."""
    seen, kept = set(), []
    for record in records:
        key = repr(sorted(record.items(), key=lambda item: item[0]))
        if key not in seen:
            seen.add(key)
            kept.append(record)
    return kept if len(kept) < len(records) else None


CURES = (
    Cure(
        problem="image or category ids are strings or fractions, not whole numbers",
        advice='write "image_id": 42, not "42"',
        apply=ids_as_numbers,
    ),
    Cure(
        problem="image ids are file names, not the annotations' ids",
        advice="write the `id` of the annotations' images[]",
        apply=images_by_name,
    ),
    Cure(
        problem="image ids count 0, 1, 2, ... through the images",
        advice="write the `id` of the annotations' images[], not the place in a list",
        apply=images_by_order,
    ),
    Cure(
        problem="category ids are one too small",
        advice="add 1: the model counts from 0, the annotations from 1",
        apply=shift_categories(1),
    ),
    Cure(
        problem="category ids are one too large",
        advice="subtract 1: is there a background class at 0?",
        apply=shift_categories(-1),
    ),
    Cure(
        problem="category ids count from 0 without gaps; the annotations' ids have gaps",
        advice="map class k to the k-th smallest id of categories[] (COCO: 80 classes, ids to 90)",
        apply=categories_by_order(0),
    ),
    Cure(
        problem="category ids count from 1 without gaps; the annotations' ids have gaps",
        advice="map class k to the k-th smallest id of categories[] (COCO: 80 classes, ids to 90)",
        apply=categories_by_order(1),
    ),
    Cure(
        problem="category ids mean other classes than in the annotations; the names agree",
        advice="map category ids by name",
        apply=categories_by_name,
    ),
    Cure(
        problem="boxes are corners [x1, y1, x2, y2]",
        advice="write [x, y, width, height]",
        apply=boxes_from_corners,
    ),
    Cure(
        problem="boxes are fractions of the image",
        advice="multiply by the image's width and height",
        apply=boxes_from_fractions,
    ),
    Cure(
        problem="boxes are YOLO's: centre and size, in fractions of the image",
        advice="multiply by the image's width and height, and write the upper left corner",
        apply=boxes_from_yolo,
    ),
    Cure(
        problem="boxes are centres and sizes [cx, cy, width, height]",
        advice="write the upper left corner: [cx - width / 2, cy - height / 2, width, height]",
        apply=boxes_from_centres,
    ),
    Cure(
        problem="masks are not of their image's size",
        advice="resize masks to the original image before encoding them",
        apply=masks_resized,
    ),
    Cure(
        problem="results stand several times in the file",
        advice="write each once (was a file appended to, or a padded last batch kept?)",
        apply=once_each,
    ),
)


def _changed(records: Sequence[Record], fields: Callable[[Record], Record]) -> list[Record] | None:
    changed = [fields(record) for record in records]
    pairs = zip(records, changed, strict=True)
    if not any(record.get(key) != new[key] for record, new in pairs for key in new):
        return None
    return [{**record, **new} for record, new in zip(records, changed, strict=True)]


def _replaced(record: Record, key: str, value: object) -> Record:
    return {} if value is None else {key: value}


def _mapped_categories(
    records: Sequence[Record], truth: GroundTruth, change: Callable[[int], int | None]
) -> list[Record] | None:
    column = [record.get("category_id") for record in records]
    values = {value for value in column if type(value) is int}
    target = {value: change(value) for value in values}
    known = set(truth.category_ids.tolist())
    if not values or not set(target.values()) <= known:
        return None
    return _changed(records, lambda r: _replaced(r, "category_id", target.get(r["category_id"])))


def _with_boxes(records: Sequence[Record], boxes: Float64[np.ndarray, "n 4"]) -> list[Record]:
    return [{**r, "bbox": box} for r, box in zip(records, boxes.tolist(), strict=True)]


def _boxes(records: Sequence[Record]) -> Float64[np.ndarray, "n 4"] | None:
    boxes = [record.get("bbox") for record in records]
    flat = [v for box in boxes if isinstance(box, list) and len(box) == 4 for v in box]
    if len(flat) != 4 * len(boxes) or not all(type(v) in (int, float) for v in flat):
        return None
    return np.array(flat, dtype=np.float64).reshape(-1, 4)


def _as_number(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,15}", value.strip()):
        return int(value)
    return None


def _hashable(record: Record) -> object:
    value = record.get("image_id")
    return value if isinstance(value, str | int) else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().lower())


def _decoded(mask: Record) -> np.ndarray | None:
    size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(s) is int for s in size):
        return None
    pixels = size[0] * size[1]
    if not isinstance(counts, str) or not counts.isascii() or not 0 < pixels <= rle.MAX_PIXELS:
        return None
    data = np.frombuffer(counts.encode("ascii"), dtype=np.uint8)
    lengths = np.array([len(data)])
    if not rle.well_formed(data, lengths)[0]:
        return None
    runs = rle.decode_strings(data, lengths)
    if not rle.fills(runs, np.array([pixels]))[0]:
        return None
    return rle.to_mask(runs.lengths(0), size[0], size[1])
