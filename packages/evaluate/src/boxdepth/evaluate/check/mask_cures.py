"""What people get wrong in masks, each as a function that mends it on a copy (see `cures`)."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from boxdepth.evaluate.check.cures import Apply, Record, changed
from boxdepth.evaluate.results import GroundTruth, rle
from boxdepth.evaluate.results.arrays import Bool
from boxdepth.evaluate.results.masks import box_ious

# Records that tell whether masks and boxes of the same object agree.
_SAMPLE = 100
_AGREE = 0.5


def counts_from_literal(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Run lengths written as the text of a bytes literal (`b'...'`) become the text in it."""

    def fields(record: Record) -> Record:
        mask = record.get("segmentation")
        text = mask.get("counts") if isinstance(mask, dict) else None
        found = re.fullmatch(r"b'(.*)'|b\"(.*)\"", text) if isinstance(text, str) else None
        if mask is None or found is None:
            return {}
        inner = found[1] if found[1] is not None else found[2]
        plain = re.sub(r"\\(.)", r"\1", inner)  # a bytes literal escapes backslash and quote alone
        return {"segmentation": {**mask, "counts": plain}}

    return changed(records, fields)


def masks_by_rows(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Run lengths that go along rows are read so, and written along columns as COCO's do."""
    if _masks_agree_with_boxes(records):
        return None
    return _each_mask(records, lambda runs, h, w: rle.to_mask(runs, w, h).T)


def masks_transposed(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Masks of [width, height] in place of [height, width] are turned over their diagonal."""
    sizes = _sizes(truth)
    chosen = [_size(r) != sizes.get(r.get("image_id")) == _size(r)[::-1] for r in records]
    return _each_mask(records, lambda runs, h, w: rle.to_mask(runs, h, w).T, chosen)


def masks_resized(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Masks of another size are stretched over the image (nearest pixel)."""
    sizes = _sizes(truth)

    def fields(record: Record) -> Record:
        mask, size = record.get("segmentation"), sizes.get(_id(record))
        runs = _runs(mask)
        if runs is None or size is None or _size(record) == size:
            return {}
        pixels = rle.to_mask(runs, *_size(record))
        rows = np.arange(size[0]) * pixels.shape[0] // size[0]
        columns = np.arange(size[1]) * pixels.shape[1] // size[1]
        return {"segmentation": _encoded(pixels[np.ix_(rows, columns)])}

    return changed(records, fields)


def turned(quarters: int) -> Apply:
    """Masks, polygons and boxes of a picture that was turned by its EXIF tag are turned back.

    Args:
        quarters: counterclockwise, 1 or 3.
    """

    def apply(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
        sizes = _sizes(truth)

        def fields(record: Record) -> Record:
            size = sizes.get(_id(record))
            if size is None or size[0] == size[1] or _size(record, size[::-1]) != size[::-1]:
                return {}
            return _turned_record(record, size, quarters)

        return changed(records, fields)

    return apply


def polygons_from_fractions(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Polygons in fractions of the image become pixels."""
    sizes = _sizes(truth)
    polygons = [polygon for record in records for polygon in _polygons(record)]
    if not polygons or max(max(map(abs, polygon), default=0) for polygon in polygons) > 2:
        return None
    return _each_polygon(
        records,
        lambda points, record: points * np.array(sizes.get(_id(record), [1, 1])[::-1]),
    )


def polygons_fitted_to_boxes(records: Sequence[Record], truth: GroundTruth) -> list[Record] | None:
    """Polygons that were cut to whole numbers are stretched over their boxes, which were not."""
    if not are_cut(records):
        return None

    def fitted(points: np.ndarray, record: Record) -> np.ndarray:
        box, low, high = record.get("bbox"), points.min(axis=0), points.max(axis=0)
        if not isinstance(box, list) or len(_polygons(record)) != 1 or (low == high).any():
            return points
        x, y, w, h = box
        return np.asarray([x, y] + (points - low) / (high - low) * [w, h])

    boxes = [record.get("bbox") for record in records]
    given = [box for box in boxes if isinstance(box, list) and len(box) == 4]
    if not given or not all(set(map(type, box)) <= {int, float} for box in given):
        return None
    return _each_polygon(records, fitted)


def are_cut(records: Sequence[Record]) -> bool:
    """Whether there are polygons and every number in them is whole."""
    polygons = [polygon for record in records for polygon in _polygons(record)]
    return bool(polygons) and all(v == int(v) for polygon in polygons for v in polygon)


def _turned_record(record: Record, size: list[int], quarters: int) -> Record:
    height, width = size
    new: Record = {}

    def point(x: Any, y: Any) -> tuple[Any, Any]:
        return (y, height - x) if quarters == 1 else (width - y, x)

    box = record.get("bbox")
    if isinstance(box, list) and len(box) == 4:
        x, y, w, h = box
        left, top = point(x + w, y) if quarters == 1 else point(x, y + h)
        new["bbox"] = [left, top, h, w]
    runs = _runs(record.get("segmentation"))
    if runs is not None:
        pixels = rle.to_mask(runs, *_size(record))
        new["segmentation"] = _encoded(np.rot90(pixels, quarters))
    polygons = _polygons(record)
    if polygons:
        points = (np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons)
        new["segmentation"] = [
            np.stack(point(xy[:, 0], xy[:, 1]), axis=1).reshape(-1).tolist() for xy in points
        ]
    return new


def _each_mask(
    records: Sequence[Record],
    pixels_of: Callable[[list[int], int, int], Bool[np.ndarray, "h w"]],
    chosen: Sequence[bool] | None = None,
) -> list[Record] | None:
    wanted = [True] * len(records) if chosen is None else chosen
    mended = []
    for record, is_wanted in zip(records, wanted, strict=True):
        runs = _runs(record.get("segmentation")) if is_wanted else None
        if runs is None:
            mended.append(record)
        else:
            mask = _encoded(pixels_of(runs, *_size(record)))
            mended.append({**record, "segmentation": mask})
    return None if all(a is b for a, b in zip(records, mended, strict=True)) else mended


def _each_polygon(
    records: Sequence[Record], moved: Callable[[np.ndarray, Record], np.ndarray]
) -> list[Record] | None:
    def fields(record: Record) -> Record:
        polygons = _polygons(record)
        if not polygons:
            return {}
        points = (np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons)
        return {"segmentation": [moved(xy, record).reshape(-1).tolist() for xy in points]}

    return changed(records, fields)


def _masks_agree_with_boxes(records: Sequence[Record]) -> bool:
    """Whether tight boxes of masks are the records' boxes; True where nothing tells."""
    overlaps = []
    for record in records:
        runs, box = _runs(record.get("segmentation")), record.get("bbox")
        if runs is None or not isinstance(box, list) or len(box) != 4 or sum(runs[1::2]) == 0:
            continue
        tight = mask_api.toBbox({"size": _size(record), "counts": rle.encode(runs)})
        given = np.array([box], dtype=np.float64)
        overlaps.append(box_ious(tight[None], given, np.zeros(1, dtype=bool))[0, 0])
        if len(overlaps) == _SAMPLE:
            break
    return bool(not overlaps or np.median(overlaps) >= _AGREE)


def _polygons(record: Record) -> list[list[float]]:
    """The record's polygons, none if any of them is not as it should be."""
    given = record.get("segmentation")
    polygons = given if isinstance(given, list) else []
    good = all(
        isinstance(p, list)
        and len(p) >= 6
        and len(p) % 2 == 0
        and set(map(type, p)) <= {int, float}
        for p in polygons
    )
    return polygons if good and np.isfinite(np.concatenate(polygons or [[0.0]])).all() else []


def _runs(mask: object) -> list[int] | None:
    """Run lengths of a compressed or plain mask that fills its own size."""
    if not isinstance(mask, dict):
        return None
    size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(size, list) or len(size) != 2 or {type(side) for side in size} != {int}:
        return None
    runs: list[int] | None = None
    if isinstance(counts, str) and counts.isascii():
        runs = rle.decode(counts.encode("ascii"))
    elif isinstance(counts, list) and {type(run) for run in counts} == {int}:
        runs = counts
    filled = runs is not None and min(runs) >= 0 and sum(runs) == size[0] * size[1]
    return runs if filled and 0 < size[0] * size[1] <= rle.MAX_PIXELS else None


def _encoded(pixels: Bool[np.ndarray, "h w"]) -> Record:
    coded = mask_api.encode(np.asfortranarray(pixels, dtype=np.uint8))
    return {"size": list(coded["size"]), "counts": coded["counts"].decode("ascii")}


def _sizes(truth: GroundTruth) -> dict[object, list[int]]:
    return dict(zip(truth.image_ids.tolist(), truth.image_sizes.tolist(), strict=True))


def _id(record: Record) -> object:
    value = record.get("image_id")
    return value if isinstance(value, int | str) else None


def _size(record: Record, default: Sequence[int] = ()) -> list[int]:
    """(height, width) that the record's run lengths state."""
    mask = record.get("segmentation")
    size = mask.get("size") if isinstance(mask, dict) else None
    return list(size) if isinstance(size, list) else list(default)
