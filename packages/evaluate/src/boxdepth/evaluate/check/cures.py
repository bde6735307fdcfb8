"""What people get wrong in ids and boxes, each as a function that mends it on a copy.

A cure returns the mended records, or None where it makes no sense for them. Whether it was the
right one is for the AP to say. The list of all cures stands in `catalogue`.
"""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from boxdepth.evaluate.results import GroundTruth
from boxdepth.evaluate.results.arrays import Float64

Record = dict[str, Any]
Apply = Callable[[Sequence[Record], GroundTruth], list[Record] | None]
# COCO's 80 classes keep the ids of the 91 that were planned.
COCO_IDS = tuple(k for k in range(1, 91) if k not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))

_NAME_KEYS = ("category_name", "class_name", "label", "class", "name", "category")


def images_by_name(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Image ids that are file names (or the numbers in them) become the annotations' ids."""
    by_name: dict[object, int] = {}
    for image_id, name in zip(truth.image_ids.tolist(), truth.image_names, strict=True):
        stem = PurePath(name).stem
        by_name.update({name: image_id, PurePath(name).name: image_id, stem: image_id})
        if stem.isdigit():
            by_name[int(stem)] = image_id
    return changed(records, lambda r: _replaced(r, "image_id", by_name.get(_hashable(r))))


def images_by_order(first: int) -> Apply:
    """Image ids that count from `first` through the annotations' images, in the order of ids."""

    def apply(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
        known = truth.image_ids.tolist()
        ids = dict(enumerate(known, start=first))
        return _mapped(records, "image_id", known, ids.get)

    return apply


def shift_images(step: int) -> Apply:
    """Every image id moved by `step`."""

    def apply(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
        known = set(truth.image_ids.tolist())
        return _mapped(records, "image_id", known, lambda value: value + step)

    return apply


def shift_categories(step: int) -> Apply:
    """Every category id moved by `step`."""

    def apply(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
        known = set(truth.category_ids.tolist())
        return _mapped(records, "category_id", known, lambda value: value + step)

    return apply


def categories_by_order(first: int, *, annotated: bool = False) -> Apply:
    """Category ids that count from `first` through the annotations' categories, gaps left out.

    With `annotated`, categories without an annotation are left out too (a root class).
    """

    def apply(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
        known = truth.category_ids
        if annotated:
            used = known[np.unique(truth.category_index)]
            if len(used) == len(known):
                return None
            known = used
        ids = dict(enumerate(known.tolist(), start=first))
        return _mapped(records, "category_id", set(known.tolist()), ids.get)

    return apply


def categories_from_coco(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Ids of COCO's list with gaps (to 90) where the annotations number the 80 without."""
    known = truth.category_ids.tolist()
    if len(known) != len(COCO_IDS) or known == list(COCO_IDS):
        return None
    return _mapped(records, "category_id", set(known), dict(zip(COCO_IDS, known, strict=True)).get)


def categories_by_name(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Categories by the name each result carries, or by a `category_id` that is a name."""
    by_name = dict(zip(map(_plain, truth.category_names), truth.category_ids.tolist(), strict=True))

    def fields(record: Record) -> Record:
        names = [record.get(key) for key in (*_NAME_KEYS, "category_id")]
        known = [by_name[_plain(n)] for n in names if isinstance(n, str) and _plain(n) in by_name]
        return _replaced(record, "category_id", known[0] if known else None)

    return changed(records, fields)


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


def once_each(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Records that stand several times are kept once."""
    seen, kept = set(), []
    for record in records:
        key = repr(sorted(record.items(), key=lambda item: item[0]))
        if key not in seen:
            seen.add(key)
            kept.append(record)
    return kept if len(kept) < len(records) else None


def no_crowds(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Annotations that are crowd regions, every one of them, become single objects."""
    if not all(record.get("iscrowd") in (1, "1", True, "true") for record in records):
        return None
    return changed(records, lambda record: {"iscrowd": 0})


def numbered_anew(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Annotations get the ids 1, 2, 3, ... where some stood twice."""
    ids = [repr(record.get("id")) for record in records]
    if len(set(ids)) == len(ids):
        return None
    return [{**record, "id": number} for number, record in enumerate(records, start=1)]


def changed(records: Sequence[Record], fields: Callable[[Record], Record]) -> list[Record] | None:
    """The records with new values, or None if none differs."""
    news = [fields(record) for record in records]
    pairs = zip(records, news, strict=True)
    if not any(record.get(key) != new[key] for record, new in pairs for key in new):
        return None
    return [{**record, **new} for record, new in zip(records, news, strict=True)]


def _replaced(record: Record, key: str, value: object) -> Record:
    return {} if value is None else {key: value}


def _mapped(
    records: Sequence[Record],
    key: str,
    known: Collection[int],
    change: Callable[[int], int | None],
) -> list[Record] | None:
    """Ids changed, if every one of them then is a known one."""
    values = {value for record in records if type(value := record.get(key)) is int}
    target = {value: change(value) for value in values}
    if not values or not set(target.values()) <= set(known):
        return None
    return changed(records, lambda r: _replaced(r, key, target.get(r[key]) if key in r else None))


def _with_boxes(records: Sequence[Record], boxes: Float64[np.ndarray, "n 4"]) -> list[Record]:
    return [{**r, "bbox": box} for r, box in zip(records, boxes.tolist(), strict=True)]


def _boxes(records: Sequence[Record]) -> Float64[np.ndarray, "n 4"] | None:
    boxes = [record.get("bbox") for record in records]
    flat = [v for box in boxes if isinstance(box, list) and len(box) == 4 for v in box]
    if len(flat) != 4 * len(boxes) or not all(type(v) in (int, float) for v in flat):
        return None
    return np.array(flat, dtype=np.float64).reshape(-1, 4)


def _hashable(record: Record) -> object:
    value = record.get("image_id")
    return value if isinstance(value, str | int) else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().lower())
