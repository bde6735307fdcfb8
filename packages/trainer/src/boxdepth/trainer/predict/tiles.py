"""One set of instances out of those of overlapping tiles."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int64
from pycocotools import mask as coco_mask

from boxdepth.trainer.geometry.tiles import Window
from boxdepth.trainer.predict.results import Instances, Rle, encode_rle

EDGE = 2.0
"""Pixels; a box that comes as near to a tile's inner edge may go on beyond it."""
SAME = 0.5
"""Share of the smaller mask, where both tiles see, from which on two masks are one object's."""


def placed(instances: Instances, window: Window, *, size: tuple[int, int]) -> Instances:
    """Instances of a tile in the frame of the image of ``size`` (height, width)."""
    left, top = window[:2]
    shift: np.ndarray = np.array([left, top, left, top], dtype=np.float32)
    return replace(
        instances,
        boxes_xyxy=instances.boxes_xyxy + shift,
        masks=tuple(_moved(mask, left=left, top=top, size=size) for mask in instances.masks),
        size=size,
    )


def merged(parts: Sequence[tuple[Window, Instances]], *, size: tuple[int, int]) -> Instances:
    """One set of instances from those of overlapping windows, each object once, best first.

    Two masks of a class from two windows are one object's if they agree where both windows see:
    their intersection there is more than half of the smaller. Of an object that some window sees
    whole, the best whole mask stays; of one that all windows cut, the union of the parts.

    Args:
        parts: windows and their instances, in the frame of the image.
        size: (height, width) of the image.
    """
    found = together([instances for _, instances in parts], size=size)
    window = np.repeat(np.arange(len(parts)), [len(instances) for _, instances in parts])
    cut = np.array(
        [
            _is_cut(box, parts[tile][0], size=size)
            for box, tile in zip(found.boxes_xyxy, window.tolist(), strict=True)
        ],
        dtype=bool,
    )
    windows = [tile for tile, _ in parts]
    groups = _groups(found, window.astype(np.int64), windows)
    rows = sorted(
        (_representative(found, group, cut) for group in groups), key=lambda one: -one.scores[0]
    )
    return replace(together(rows, size=size), cut=found.cut)


def _representative(
    found: Instances, group: Int64[np.ndarray, " g"], cut: Bool[np.ndarray, " d"]
) -> Instances:
    whole = group[~cut[group]]
    if len(whole):
        return found.take(whole[[int(found.scores[whole].argmax())]])
    best = found.take(group[[int(found.scores[group].argmax())]])
    boxes = found.boxes_xyxy[group]
    union: np.ndarray = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    return replace(
        best,
        boxes_xyxy=union[None],
        masks=(_text(coco_mask.merge([found.masks[row] for row in group.tolist()])),),
    )


def _groups(
    found: Instances, window: Int64[np.ndarray, " d"], windows: Sequence[Window]
) -> list[Int64[np.ndarray, " g"]]:
    """Rows that are one object's, as connected by pairs."""
    parent = list(range(len(found)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for first, second in _candidates(found, window):
        shared = _intersection(windows[window[first]], windows[window[second]])
        if shared is None or root(first) == root(second):
            continue
        boxes = found.boxes_xyxy[[first, second]]
        if _boxes_meet(boxes, shared) and _agree(found, first, second, shared):
            parent[root(first)] = root(second)
    members: dict[int, list[int]] = {}
    for row in range(len(found)):
        members.setdefault(root(row), []).append(row)
    return [np.array(rows, dtype=np.int64) for rows in members.values()]


def _candidates(found: Instances, window: Int64[np.ndarray, " d"]) -> Iterator[tuple[int, int]]:
    """Pairs of two windows and one class whose boxes overlap."""
    boxes = found.boxes_xyxy
    for row in range(len(found)):
        later = slice(row + 1, None)
        low = np.maximum(boxes[row, :2], boxes[later, :2])
        high = np.minimum(boxes[row, 2:], boxes[later, 2:])
        fits = (
            (high > low).all(axis=1)
            & (found.labels[later] == found.labels[row])
            & (window[later] != window[row])
        )
        yield from ((row, row + 1 + int(other)) for other in np.flatnonzero(fits))


def _boxes_meet(boxes: Float[np.ndarray, "2 4"], shared: Window) -> bool:
    """Whether two boxes share enough, where both windows see, for their masks to agree."""
    left, top, right, bottom = shared
    inside: np.ndarray = np.clip(boxes, [left, top, left, top], [right, bottom, right, bottom])
    low, high = inside[:, :2].max(axis=0), inside[:, 2:].min(axis=0)
    areas = (inside[:, 2:] - inside[:, :2]).prod(axis=1)
    return bool((high > low).all() and (high - low).prod() > SAME / 2 * areas.min())


def _agree(found: Instances, first: int, second: int, shared: Window) -> bool:
    height, width = found.size
    rectangle = coco_mask.frPyObjects([_corners(shared)], height, width)[0]
    one, two = (
        coco_mask.merge([found.masks[row], rectangle], intersect=True) for row in (first, second)
    )
    smaller = min(int(coco_mask.area(one)), int(coco_mask.area(two)))
    both = int(coco_mask.area(coco_mask.merge([one, two], intersect=True)))
    return smaller > 0 and both > SAME * smaller


def _is_cut(box: Float[np.ndarray, "4"], window: Window, *, size: tuple[int, int]) -> bool:
    """Whether a box touches an edge of its window that is none of the image."""
    (x1, y1, x2, y2), (left, top, right, bottom), (height, width) = box.tolist(), window, size
    return bool(
        (left > 0 and x1 < left + EDGE)
        or (top > 0 and y1 < top + EDGE)
        or (right < width and x2 > right - EDGE)
        or (bottom < height and y2 > bottom - EDGE)
    )


def _intersection(a: Window, b: Window) -> Window | None:
    left, top = max(a[0], b[0]), max(a[1], b[1])
    right, bottom = min(a[2], b[2]), min(a[3], b[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _corners(window: Window) -> list[float]:
    left, top, right, bottom = map(float, window)
    return [left, top, right, top, right, bottom, left, bottom]


def _moved(mask: Rle, *, left: int, top: int, size: tuple[int, int]) -> Rle:
    """A tile's mask as one of the image; only its own box is unpacked."""
    x, y, width, height = (int(value) for value in coco_mask.toBbox(mask).tolist())
    part: np.ndarray = coco_mask.decode(mask)[y : y + height, x : x + width].astype(bool)
    return encode_rle(part, offset=(top + y, left + x), size=size)


def _text(rle: Rle) -> Rle:
    counts = rle["counts"]
    return {
        "size": [int(side) for side in rle["size"]],
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


def together(parts: Sequence[Instances], *, size: tuple[int, int]) -> Instances:
    """Instances one after the other, none of them left out."""
    cues = [part.cues for part in parts if part.cues is not None]
    return Instances(
        boxes_xyxy=np.concatenate([np.zeros((0, 4), np.float32), *(p.boxes_xyxy for p in parts)]),
        scores=np.concatenate([np.zeros(0, np.float32), *(p.scores for p in parts)]),
        labels=np.concatenate([np.zeros(0, np.int64), *(p.labels for p in parts)]),
        masks=tuple(mask for part in parts for mask in part.masks),
        size=size,
        cues=np.concatenate(cues) if cues and len(cues) == len(parts) else None,
        cut=any(part.cut for part in parts),
    )
