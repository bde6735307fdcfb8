"""Masks as they arrive (run lengths or polygons), made into one checked table.

The only module that hands untrusted shapes to compiled code (polygons, once they are checked);
everybody else receives canonical run-length strings of known size.
"""

import io
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from operator import attrgetter
from typing import Any

import numpy as np
from msgspec import UNSET, UnsetType
from pycocotools import mask as mask_api

from boxdepth.evaluate.results import rle
from boxdepth.evaluate.results.arrays import Bool, Float64, Int64
from boxdepth.evaluate.results.bulk import Growing, without_collector
from boxdepth.evaluate.results.columns import is_number
from boxdepth.evaluate.results.problems import Problems, quoted
from boxdepth.evaluate.results.schema import Rle

# A polygon may leave its image by this many image sizes, and be this many half-perimeters long:
# beyond it, rasterising costs seconds (1e8 pixels: more than 15 s) and means nothing.
_FAR, _LONG = 4.0, 100.0
# Masks decoded together: enough to fill NumPy's loops, few enough to stay in cache.
_ROWS_AT_ONCE = 2048
# More than the longest side of an image.
_SIDES = 2**17
_ABSENT: set[type] = {UnsetType, type(None)}
MAX_NUMBER = sys.float_info.max
_COLUMNS = ("sizes", "begins", "ends", "areas")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskTable:
    """One checked mask, or none, for each of `n` objects.

    Attributes:
        sizes: (height, width) of the image each mask belongs to, in pixels.
        data: canonical compressed run lengths of these masks, and maybe of others, joined.
        begins, ends: where each mask's lie in them; equal where there is no mask.
        areas: object pixels, 0 where there is no mask.
    """

    sizes: Int64[np.ndarray, "n 2"]
    data: bytes
    begins: Int64[np.ndarray, " n"]
    ends: Int64[np.ndarray, " n"]
    areas: Float64[np.ndarray, " n"]

    @property
    def present(self) -> Bool[np.ndarray, " n"]:
        """Which objects have a mask (an all-background mask is one)."""
        return self.ends > self.begins

    def text(self, index: int) -> str:
        """Mask `index` as compressed run lengths, empty where there is none."""
        return self.data[self.begins[index] : self.ends[index]].decode("ascii")

    def rle(self, index: int) -> dict[str, Any]:
        """Mask `index` as COCO's `{"size": [height, width], "counts": text}`."""
        return {"size": self.sizes[index].tolist(), "counts": self.text(index)}

    @without_collector
    def rles(self) -> list[dict[str, Any]]:
        """All masks as `rle` gives them (sizes are shared); all background where there is none."""
        found, places = np.unique(self.sizes @ [_SIDES, 1], return_inverse=True)
        sizes, data = [list(divmod(value, _SIDES)) for value in found.tolist()], self.data
        columns = (places, self.begins, self.ends)
        return [
            {
                "size": sizes[place],
                "counts": data[begin:end] if end > begin else rle.encode([math.prod(sizes[place])]),
            }
            for place, begin, end in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def pixels(self, index: int) -> Bool[np.ndarray, "h w"]:
        """Mask `index` as pixels, all background where there is none."""
        if self.ends[index] == self.begins[index]:
            return np.zeros(self.sizes[index], dtype=bool)
        return np.asarray(mask_api.decode(self.rle(index)), dtype=bool)

    def boxes_xywh(self) -> Float64[np.ndarray, "n 4"]:
        """Tight boxes in pixels; zeros where the mask is empty or absent."""
        boxes = np.zeros((len(self.areas), 4))
        full = np.flatnonzero(self.areas > 0)
        if len(full):
            boxes[full] = mask_api.toBbox(self.take(full).rles())
        return boxes

    def take(self, order: Int64[np.ndarray, " m"]) -> "MaskTable":
        """The masks of objects `order`, in that order; their run lengths stay where they are."""
        return MaskTable.of({name: rows[order] for name, rows in self.columns().items()}, self.data)

    def columns(self, before: int = 0) -> dict[str, np.ndarray]:
        """All but `data`, which stands `before` bytes into a longer one; sizes alone if empty."""
        columns = {name: getattr(self, name) for name in (_COLUMNS if self.data else ("sizes",))}
        if before and self.data:
            columns |= {name: columns[name] + before for name in ("begins", "ends")}
        return columns

    @staticmethod
    def of(columns: Mapping[str, np.ndarray], data: bytes) -> "MaskTable":
        """The table that has these `columns` (others are not looked at)."""
        if not data:
            return no_masks(columns["sizes"])
        return MaskTable(data=data, **{name: columns[name] for name in _COLUMNS})

    @staticmethod
    def joined(tables: Iterable["MaskTable"]) -> "MaskTable":
        """The masks of all tables, one table's after the other's."""
        growing, data = Growing(), io.BytesIO()
        for table in tables:
            growing.add(len(table.sizes), table.columns(data.tell()))
            data.write(table.data)
        return MaskTable.of(growing.columns(), data.getvalue())


def read_masks(
    segmentations: Sequence[object],
    sizes: Int64[np.ndarray, "n 2"],
    *,
    where: Callable[[int], str],
    problems: Problems,
) -> MaskTable:
    """Check a column of COCO segmentations; what is wrong goes to `problems`.

    Args:
        segmentations: per object `{"size", "counts"}` (compressed or plain run lengths), a list of
            polygons in pixels, or nothing: missing, None, `[]`, `[[]]`, `{}` or an empty text.
        sizes: (height, width) of each object's image.
        where: names object `i` in messages.
        problems: receives one line per broken mask; the mask is then absent from the table.
    """
    if set(map(type, segmentations)) <= _ABSENT:
        return no_masks(sizes)
    data, lengths, areas = io.BytesIO(), np.zeros(len(sizes), np.int64), np.zeros(len(sizes))
    # Batch by batch through all steps: hundreds of megabytes of text pass the cache once.
    for begin in range(0, len(sizes), _ROWS_AT_ONCE):
        rows = slice(begin, min(begin + _ROWS_AT_ONCE, len(sizes)))
        reader = _Reader(
            sizes=sizes[rows], where=partial(_shifted, where, begin), problems=problems
        )
        joined, lengths[rows], areas[rows] = reader.read(segmentations[rows])
        data.write(joined)
    ends = np.cumsum(lengths)
    return MaskTable(
        sizes=sizes, data=data.getvalue(), begins=ends - lengths, ends=ends, areas=areas
    )


def _shifted(where: Callable[[int], str], by: int, row: int) -> str:
    return where(row + by)


def no_masks(sizes: Int64[np.ndarray, "n 2"]) -> MaskTable:
    """A table of objects without masks."""
    nowhere = np.broadcast_to(np.int64(0), len(sizes))  # takes no memory
    areas = np.broadcast_to(np.float64(0), len(sizes))
    return MaskTable(sizes=sizes, data=b"", begins=nowhere, ends=nowhere, areas=areas)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Segmentations of any form as canonical compressed strings, empty where there is no mask."""

    sizes: np.ndarray
    where: Callable[[int], str]
    problems: Problems

    def read(
        self, segmentations: Sequence[Any]
    ) -> tuple[bytes, Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Joined strings, the length of each, and object pixels."""
        texts = self._typed_texts(segmentations)
        joined = "".join(texts or ())
        if texts is None or not joined.isascii() or not all(texts):
            texts = self._texts(segmentations)
            joined = "".join(texts)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        full, areas, pixels = np.flatnonzero(lengths), np.zeros(len(texts)), self.sizes.prod(axis=1)
        data = joined.encode("ascii")
        good, area = rle.measure(np.frombuffer(data, np.uint8), lengths[full], pixels[full])
        areas[full[good]] = area[good]
        if good.all():
            return data, lengths, areas
        for row in full[~good].tolist():
            runs, fault = _runs(texts[row], int(pixels[row]))
            if fault:
                self._fail(row, fault)
            texts[row] = rle.encode(runs).decode("ascii")
            lengths[row], areas[row] = len(texts[row]), sum(runs[1::2])
        return "".join(texts).encode("ascii"), lengths, areas

    def _typed_texts(self, segmentations: Sequence[Any]) -> list[str] | None:
        """The texts of a column that holds nothing else, at its images' sizes."""
        if set(map(type, segmentations)) != {Rle}:
            return None
        sides = chain.from_iterable(map(attrgetter("size"), segmentations))
        counts = list(map(attrgetter("counts"), segmentations))
        try:
            given = np.fromiter(sides, np.int64, self.sizes.size)
            same = bool((given == self.sizes.reshape(-1)).all())
            return counts if same and set(map(type, counts)) == {str} else None
        except OverflowError:  # a size beyond 2^63
            return None

    def _texts(self, segmentations: Sequence[Any]) -> list[str]:
        """One string for each, empty where there is no mask."""
        plain = [s.tolist() if isinstance(s, np.ndarray) else s for s in segmentations]
        there = [s is not UNSET and s not in (None, "", [], [[]], {}) for s in plain]
        drawn = [
            index for index, given in enumerate(there) if given and isinstance(plain[index], list)
        ]
        faults = polygon_faults([plain[index] for index in drawn], self.sizes[drawn])
        texts, by_size = [""] * len(plain), defaultdict(list)
        for index, fault in zip(drawn, faults, strict=True):
            there[index] = False
            if fault:
                self._fail(index, fault)
            else:
                by_size[tuple(self.sizes[index].tolist())].append(index)
        for size, rows in by_size.items():
            for index, text in zip(
                rows, _drawn([plain[index] for index in rows], size), strict=True
            ):
                texts[index] = text
        for index in np.flatnonzero(there).tolist():
            texts[index] = self._text(index, plain[index])
        return texts

    def _text(self, index: int, segmentation: Any) -> str:
        if isinstance(segmentation, Rle):
            return self._run_lengths(index, segmentation.size, segmentation.counts)
        if isinstance(segmentation, dict):
            return self._run_lengths(index, segmentation.get("size"), segmentation.get("counts"))
        expected = "expected run lengths or polygons"
        return self._fail(index, f"segmentation is {quoted(segmentation)}, {expected}")

    def _fail(self, index: int, what: str) -> str:
        self.problems.add(self.where(index), what)
        return ""

    def _run_lengths(self, index: int, size: Any, counts: Any) -> str:
        height, width = self.sizes[index].tolist()
        if not isinstance(size, list | tuple) or list(size) != [height, width]:
            seen = quoted(list(size) if isinstance(size, tuple) else size)
            return self._fail(
                index,
                f"mask size is {seen}, the image is [{height}, {width}] (height, width). "
                "Save masks at the original image size",
            )
        if isinstance(counts, str | bytes) and counts and counts.isascii():
            return counts if isinstance(counts, str) else counts.decode("ascii")
        if isinstance(counts, list) and counts and {type(run) for run in counts} == {int}:
            if min(counts) >= 0 and sum(counts) == height * width:
                return rle.encode(counts).decode("ascii")
            return self._fail(index, _misses(counts, height * width))
        expected = "expected a compressed string, or run lengths of at least 0"
        return self._fail(index, f"RLE counts are {quoted(counts)}, {expected}")


def _drawn(shapes: Sequence[Sequence[Any]], size: tuple[int, int]) -> Iterator[str]:
    """Compressed run lengths of the polygons of each object, in images of one size."""
    polygons = [np.fromiter(polygon, np.float64, len(polygon)) for p in shapes for polygon in p]
    pieces = iter(mask_api.frPyObjects(polygons, *size))
    for shape in shapes:
        own = list(islice(pieces, len(shape)))
        merged = mask_api.merge(own) if len(own) > 1 else own[0]
        yield merged["counts"].decode("ascii")


def _runs(text: str, pixels: int) -> tuple[list[int], str | None]:
    """Runs of a mask without its empty ones; what is wrong if it is none, beside an empty mask."""
    runs = rle.decode(text.encode("ascii"))
    if runs is None:
        return [pixels], f"RLE counts {quoted(text)} are not COCO's compressed form"
    if min(runs) < 0 or sum(runs) != pixels:
        return [pixels], _misses(runs, pixels)
    return rle.merge_empty(runs), None


def _misses(runs: list[int], pixels: int) -> str:
    return (
        f"RLE runs sum to {quoted(sum(runs))} (smallest {quoted(min(runs))}), "
        f"expected {pixels} = height x width, none negative"
    )


def polygon_faults(
    shapes: Sequence[Sequence[object]], sizes: Int64[np.ndarray, "n 2"]
) -> list[str | None]:
    """What is wrong with the polygons `[x, y, x, y, ...]` in pixels of each object, or None."""
    faults: list[str | None] = [None] * len(shapes)
    polygons: list[Any] = list(chain.from_iterable(shapes))
    numbers = _all_numbers(polygons)
    good = list(range(len(shapes)))
    if numbers is None:
        faults = [next(filter(None, map(_spelling_fault, group)), None) for group in shapes]
        good = [index for index, fault in enumerate(faults) if fault is None]
        polygons = [polygon for index in good for polygon in shapes[index]]
        numbers = np.array(list(chain.from_iterable(polygons)), dtype=np.float64)
    if not polygons:
        return faults
    owner = np.repeat(good, [len(shapes[index]) for index in good])
    height, width = sizes[owner].T
    lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
    begins = np.cumsum(lengths) - lengths
    reach = np.maximum.reduceat(np.abs(numbers), begins)
    after = np.roll(numbers, -2)  # the next point, and after a polygon's last one its first
    for side in (0, 1):
        after[begins + lengths - 2 + side] = numbers[begins + side]
    with np.errstate(over="ignore"):  # infinitely long is too long as well
        around = np.add.reduceat(np.abs(numbers - after), begins)
    far = reach > _FAR * np.maximum(height, width)
    for place in np.flatnonzero(far | (around > _LONG * (height + width))).tolist():
        image = f"{width[place]} x {height[place]}"
        faults[owner[place]] = (
            f"polygon reaches {reach[place]:g}, more than {_FAR:g} times the image of {image}"
            if far[place]
            else f"polygon is {around[place]:.3g} pixels long, more than any outline in {image}"
        )
    return faults


def _all_numbers(polygons: Sequence[Any]) -> Float64[np.ndarray, " m"] | None:
    """The numbers of all polygons in one row, or None if any is not as it should be."""
    if not set(map(type, polygons)) <= {list, tuple}:
        return None
    if any(length < 6 or length % 2 for length in set(map(len, polygons))):
        return None
    numbers = list(chain.from_iterable(polygons))
    if not set(map(type, numbers)) <= {int, float}:
        return None
    try:
        values = np.fromiter(numbers, np.float64, len(numbers))
    except OverflowError:
        return None
    return values if np.isfinite(values).all() else None


def _spelling_fault(polygon: object) -> str | None:
    if not isinstance(polygon, list | tuple) or not all(map(is_number, polygon)):
        return f"polygon is {quoted(polygon)}, expected a list of numbers x, y, x, y, ..."
    if len(polygon) < 6 or len(polygon) % 2:
        return f"polygon has {len(polygon)} numbers, expected x, y pairs of at least 3 points"
    finite = -MAX_NUMBER <= min(polygon) <= max(polygon) <= MAX_NUMBER
    if not finite or math.isnan(sum(polygon)):
        return "polygon holds a number that is not finite"
    return None


def mask_ious(
    detections: MaskTable, objects: MaskTable, crowd: Bool[np.ndarray, " g"]
) -> Float64[np.ndarray, "d g"]:
    """IoU of every detection with every object; with a crowd region, the share of the detection."""
    if not len(detections.areas) or not len(objects.areas):
        return np.zeros((len(detections.areas), len(objects.areas)))
    found = mask_api.iou(detections.rles(), objects.rles(), crowd.astype(int).tolist())
    return np.asarray(found, dtype=np.float64)


def box_ious(
    detections: Float64[np.ndarray, "d 4"],
    objects: Float64[np.ndarray, "g 4"],
    crowd: Bool[np.ndarray, " g"],
) -> Float64[np.ndarray, "d g"]:
    """The same for boxes xywh."""
    low = np.maximum(detections[:, None, :2], objects[None, :, :2])
    ends = (
        detections[:, None, :2] + detections[:, None, 2:],
        objects[None, :, :2] + objects[None, :, 2:],
    )
    shared = np.clip(np.minimum(*ends) - low, 0, None).prod(axis=2)
    own, other = detections[:, 2:].prod(axis=1)[:, None], objects[:, 2:].prod(axis=1)[None]
    union = np.where(crowd[None], own, own + other - shared)
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
