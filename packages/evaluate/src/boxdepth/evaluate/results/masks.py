"""Masks as they arrive (run lengths or polygons), made into one checked table.

The only module that hands untrusted shapes to compiled code (polygons, once they are checked);
everybody else receives canonical run-length strings of known size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as mask_api
from jaxtyping import Bool, Float64, Int64

from boxdepth.evaluate.results import records, rle
from boxdepth.evaluate.results.problems import Problems, quoted

# A polygon may leave its image by this many image sizes, and be this many half-perimeters long:
# beyond it, rasterising costs seconds (1e8 pixels: more than 15 s) and means nothing.
_FAR, _LONG = 4.0, 100.0
# Masks decoded together: enough to fill NumPy's loops, few enough to stay in cache.
_ROWS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskTable:
    """One checked mask, or none, for each of `n` objects.

    Attributes:
        sizes: (height, width) of the image each mask belongs to, in pixels.
        strings: canonical compressed run lengths of all masks, joined.
        offsets: where each mask's string begins and ends; equal where there is no mask.
        areas: object pixels, 0 where there is no mask.
    """

    sizes: Int64[np.ndarray, "n 2"]
    strings: bytes
    offsets: Int64[np.ndarray, " n+1"]
    areas: Float64[np.ndarray, " n"]

    @property
    def present(self) -> Bool[np.ndarray, " n"]:
        """Which objects have a mask (an all-background mask is one)."""
        return np.diff(self.offsets) > 0

    def string(self, index: int) -> bytes:
        """Mask `index` as compressed run lengths."""
        return self.strings[self.offsets[index] : self.offsets[index + 1]]

    def rle(self, index: int) -> dict[str, object]:
        """Mask `index` as COCO's `{"size": [height, width], "counts": bytes}`."""
        return {"size": self.sizes[index].tolist(), "counts": self.string(index)}

    def rles(self) -> list[dict[str, object]]:
        """All masks as `rle` gives them; an all-background one where there is none."""
        cuts = self.offsets.tolist()
        blank = {
            size: rle.encode([size[0] * size[1]]) for size in set(map(tuple, self.sizes.tolist()))
        }
        return [
            {"size": size, "counts": self.strings[begin:end] or blank[tuple(size)]}
            for size, begin, end in zip(self.sizes.tolist(), cuts, cuts[1:], strict=False)
        ]

    def pixels(self, index: int) -> Bool[np.ndarray, "h w"]:
        """Mask `index` as pixels."""
        data = np.frombuffer(self.string(index), dtype=np.uint8)
        runs = rle.decode_strings(data, np.array([len(data)]))
        height, width = self.sizes[index].tolist()
        return rle.to_mask(runs.lengths(0), height, width)

    def boxes_xywh(self) -> Float64[np.ndarray, "n 4"]:
        """Tight boxes in pixels; zeros where the mask is empty or absent."""
        boxes = np.zeros((len(self.areas), 4))
        there = np.flatnonzero(self.present)
        for begin in range(0, len(there), _ROWS_AT_ONCE):
            rows = there[begin : begin + _ROWS_AT_ONCE]
            part = self.take(rows)
            data = np.frombuffer(part.strings, dtype=np.uint8)
            runs = rle.decode_strings(data, np.diff(part.offsets))
            boxes[rows] = rle.bounding_boxes(runs, part.sizes[:, 0])
        return boxes

    def only(self, kept: Bool[np.ndarray, " n"]) -> "MaskTable":
        """The same table, areas included, without the strings of the other masks."""
        lengths = np.where(kept, np.diff(self.offsets), 0)
        strings = self.take(np.flatnonzero(kept)).strings
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        return replace(self, strings=strings, offsets=offsets)

    def take(self, order: Int64[np.ndarray, " m"]) -> "MaskTable":
        """The masks of objects `order`, in that order."""
        lengths = np.diff(self.offsets)[order]
        begin, end = self.offsets[order].tolist(), self.offsets[order + 1].tolist()
        pieces = [self.strings[a:b] for a, b in zip(begin, end, strict=True)]
        return MaskTable(
            sizes=self.sizes[order],
            strings=b"".join(pieces),
            offsets=np.concatenate(([0], np.cumsum(lengths))),
            areas=self.areas[order],
        )


def concatenate(tables: Sequence[MaskTable]) -> MaskTable:
    """The masks of several tables, one after the other."""
    lengths = np.concatenate([np.diff(table.offsets) for table in tables])
    return MaskTable(
        sizes=np.concatenate([table.sizes for table in tables]),
        strings=b"".join(table.strings for table in tables),
        offsets=np.concatenate(([0], np.cumsum(lengths))),
        areas=np.concatenate([table.areas for table in tables]),
    )


def read_masks(
    segmentations: Sequence[object],
    sizes: Int64[np.ndarray, "n 2"],
    *,
    name: Callable[[int], str],
    problems: Problems,
) -> MaskTable:
    """Check a column of COCO segmentations; what is wrong goes to `problems`.

    Args:
        segmentations: per object `{"size", "counts"}` (compressed or plain run lengths), a list of
            polygons in pixels, or None / an empty list for no mask.
        sizes: (height, width) of each object's image.
        name: words for object `i` in messages.
        problems: receives one line per broken mask; the mask is then absent from the table.
    """
    reader = _Reader(sizes=sizes, name=name, problems=problems)
    for index, segmentation in enumerate(segmentations):
        if isinstance(segmentation, dict):
            reader.run_lengths(index, segmentation)
        elif isinstance(segmentation, list) and segmentation:
            reader.polygons(index, segmentation)
        elif segmentation is not None and segmentation != []:
            reader.fail(index, f"segmentation is {quoted(segmentation)}, expected RLE or polygons")
    return reader.finish()


class _Reader:
    """Collects the strings of one column, then checks them all at once."""

    def __init__(
        self, *, sizes: np.ndarray, name: Callable[[int], str], problems: Problems
    ) -> None:
        self.sizes, self.name, self.problems = sizes, name, problems
        self.size_pairs: list[list[int]] = sizes.tolist()
        self.strings: list[bytes] = []
        self.owners: list[int] = []

    def fail(self, index: int, what: str) -> None:
        self.problems.add(self.name(index), what)

    def keep(self, index: int, string: bytes) -> None:
        self.strings.append(string)
        self.owners.append(index)

    def run_lengths(self, index: int, segmentation: dict[Any, Any]) -> None:
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if size != self.size_pairs[index]:
            height, width = self.size_pairs[index]
            self.fail(
                index,
                f"mask size is {quoted(size)}, the image is [{height}, {width}] (height, width). "
                "Save masks at the original image size",
            )
        elif isinstance(counts, str) and counts.isascii():
            self.keep(index, counts.encode("ascii"))
        elif isinstance(counts, bytes):
            self.keep(index, counts)
        elif isinstance(counts, list) and all(type(run) is int for run in counts):
            self.plain(index, counts)
        else:
            self.fail(index, f"RLE counts are {quoted(counts)}, expected a string or whole numbers")

    def plain(self, index: int, counts: list[int]) -> None:
        if counts and min(counts) >= 0 and max(counts) <= rle.MAX_PIXELS:
            self.keep(index, rle.encode(counts))
        else:
            self.fail(index, f"RLE counts are {quoted(counts)}, expected run lengths of at least 0")

    def polygons(self, index: int, polygons: list[object]) -> None:
        height, width = self.size_pairs[index]
        wrong = next(filter(None, (polygon_fault(p, height, width) for p in polygons)), None)
        if wrong:
            self.fail(index, wrong)
            return
        merged = mask_api.merge(mask_api.frPyObjects(polygons, height, width))
        self.keep(index, bytes(merged["counts"]))

    def finish(self) -> MaskTable:
        areas = np.zeros(len(self.sizes))
        lengths = np.zeros(len(self.sizes), dtype=np.int64)
        strings: list[bytes] = []
        for begin in range(0, len(self.strings), _ROWS_AT_ONCE):
            stop = begin + _ROWS_AT_ONCE
            owners = np.array(self.owners[begin:stop], dtype=np.int64)
            checked, kept, area = self._check(self.strings[begin:stop], owners)
            areas[kept] = area
            lengths[kept] = [len(string) for string in checked]
            strings.extend(checked)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        return MaskTable(sizes=self.sizes, strings=b"".join(strings), offsets=offsets, areas=areas)

    def _check(
        self, strings: list[bytes], owners: np.ndarray
    ) -> tuple[list[bytes], np.ndarray, np.ndarray]:
        lengths = np.array([len(string) for string in strings], dtype=np.int64)
        data = np.frombuffer(b"".join(strings), dtype=np.uint8)
        good = rle.well_formed(data, lengths)
        for row in np.flatnonzero(~good).tolist():
            shown = quoted(strings[row])
            self.fail(int(owners[row]), f"RLE counts {shown} are not COCO's compressed form")
        if not good.all():
            strings = [string for string, is_good in zip(strings, good, strict=True) if is_good]
            data, lengths, owners = data[np.repeat(good, lengths)], lengths[good], owners[good]
        runs = rle.decode_strings(data, lengths)
        pixels = self.sizes[owners].prod(axis=1)
        good = rle.fills(runs, pixels)
        for row in np.flatnonzero(~good).tolist():
            self.fail(int(owners[row]), _misses(runs.lengths(row), int(pixels[row])))
        for row in rle.not_canonical(runs).tolist():
            strings[row] = rle.encode(rle.merge_empty(runs.lengths(row).tolist()))
        kept = [string for string, is_good in zip(strings, good, strict=True) if is_good]
        return kept, owners[good], rle.areas(runs)[good].astype(np.float64)


def polygon_fault(polygon: object, height: int, width: int) -> str | None:
    """What is wrong with one polygon `[x, y, x, y, ...]` in pixels, or None."""
    if not isinstance(polygon, list) or not all(type(v) in (int, float) for v in polygon):
        return f"polygon is {quoted(polygon)}, expected a list of numbers x, y, x, y, ..."
    if len(polygon) < 6 or len(polygon) % 2:
        return f"polygon has {len(polygon)} numbers, expected x, y pairs of at least 3 points"
    if not all(map(records.is_finite, polygon)):
        return "polygon holds a number that is not finite"
    reach = _FAR * max(height, width)
    if max(polygon) > reach or min(polygon) < -reach:
        far = max(polygon, key=abs)
        return f"polygon reaches {far:g}, more than {_FAR:g} times the image of {width} x {height}"
    points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    around = float(np.abs(np.diff(points, axis=0, append=points[:1])).sum())
    if around > _LONG * (height + width):
        return f"polygon is {around:.3g} pixels long, more than any outline in {width} x {height}"
    return None


def _misses(lengths: np.ndarray, pixels: int) -> str:
    return (
        f"RLE runs sum to {int(lengths.sum())} (smallest {int(lengths.min())}), "
        f"expected {pixels} = height x width, none negative"
    )


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
