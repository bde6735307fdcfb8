"""Masks as they arrive (run lengths or polygons), made into one checked table.

The only module that hands untrusted shapes to compiled code (polygons, once they are checked);
everybody else receives canonical run-length strings of known size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval.core import mask as mask_api
from jaxtyping import Bool, Float64, Int64

from boxdepth.evaluate.results import rle
from boxdepth.evaluate.results.problems import Problems, quoted

# A polygon may leave its image by this many image sizes, and be this many half-perimeters long:
# beyond it, rasterising costs seconds (1e8 pixels: more than 15 s) and means nothing.
_FAR, _LONG = 4.0, 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskTable:
    """One checked mask, or none, for each of `n` objects.

    Attributes:
        sizes: (height, width) of the image each mask belongs to, in pixels.
        strings: canonical compressed run lengths of all masks, joined.
        offsets: where each mask's string begins and ends; equal where there is no mask.
        areas: object pixels.
        boxes_xywh: tight boxes in pixels, zeros for an empty mask.
    """

    sizes: Int64[np.ndarray, "n 2"]
    strings: bytes
    offsets: Int64[np.ndarray, " n+1"]
    areas: Float64[np.ndarray, " n"]
    boxes_xywh: Float64[np.ndarray, "n 4"]

    @property
    def present(self) -> Bool[np.ndarray, " n"]:
        """Which objects have a mask (an all-background mask is one)."""
        return np.diff(self.offsets) > 0

    def rle(self, index: int) -> dict[str, object]:
        """Mask `index` as COCO's `{"size": [height, width], "counts": bytes}`."""
        counts = self.strings[self.offsets[index] : self.offsets[index + 1]]
        return {"size": self.sizes[index].tolist(), "counts": counts}

    def pixels(self, index: int) -> Bool[np.ndarray, "h w"]:
        """Mask `index` as pixels."""
        counts = self.strings[self.offsets[index] : self.offsets[index + 1]]
        data = np.frombuffer(counts, dtype=np.uint8)
        runs = rle.decode_strings(data, np.array([len(data)], dtype=np.int64))
        height, width = self.sizes[index].tolist()
        return rle.to_mask(runs.lengths, height, width)

    def take(self, order: Int64[np.ndarray, " m"]) -> "MaskTable":
        """The masks of objects `order`, in that order."""
        lengths = np.diff(self.offsets)[order]
        begin = self.offsets[:-1][order]
        if len(order) == len(self.areas) and (order == np.arange(len(order))).all():
            return self
        data = np.frombuffer(self.strings, dtype=np.uint8)
        group, place = rle.segments(lengths)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        return MaskTable(
            sizes=self.sizes[order],
            strings=data[begin[group] + place].tobytes(),
            offsets=offsets,
            areas=self.areas[order],
            boxes_xywh=self.boxes_xywh[order],
        )


def concatenate(tables: Sequence[MaskTable]) -> MaskTable:
    """The masks of several tables, one after the other."""
    lengths = np.concatenate([np.diff(table.offsets) for table in tables])
    return MaskTable(
        sizes=np.concatenate([table.sizes for table in tables]),
        strings=b"".join(table.strings for table in tables),
        offsets=np.concatenate(([0], np.cumsum(lengths))),
        areas=np.concatenate([table.areas for table in tables]),
        boxes_xywh=np.concatenate([table.boxes_xywh for table in tables]),
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
    """Collects strings and run lengths of one column, then checks them all at once."""

    def __init__(
        self, *, sizes: np.ndarray, name: Callable[[int], str], problems: Problems
    ) -> None:
        self.sizes, self.name, self.problems = sizes, name, problems
        self.size_pairs = [tuple(size) for size in sizes.tolist()]
        self.strings: list[bytes] = []
        self.string_owner: list[int] = []
        self.plain: list[list[int]] = []
        self.plain_owner: list[int] = []

    def fail(self, index: int, what: str) -> None:
        self.problems.add(self.name(index), what)

    def run_lengths(self, index: int, segmentation: dict[object, object]) -> None:
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if not (isinstance(size, list) and tuple(size) == self.size_pairs[index]):
            height, width = self.size_pairs[index]
            self.fail(
                index,
                f"mask size is {quoted(size)}, the image is [{height}, {width}] (height, width). "
                "Save masks at the original image size",
            )
        elif isinstance(counts, str) and counts.isascii():
            self.strings.append(counts.encode("ascii"))
            self.string_owner.append(index)
        elif isinstance(counts, bytes):
            self.strings.append(counts)
            self.string_owner.append(index)
        elif isinstance(counts, list) and all(type(run) is int for run in counts):
            self._plain(index, counts)
        else:
            self.fail(index, f"RLE counts are {quoted(counts)}, expected a string or whole numbers")

    def _plain(self, index: int, counts: list[int]) -> None:
        if all(0 <= run <= rle.MAX_PIXELS for run in counts):
            self.plain.append(counts)
            self.plain_owner.append(index)
        else:
            self.fail(
                index, f"RLE counts hold {min(counts)} to {max(counts)}, expected run lengths"
            )

    def polygons(self, index: int, polygons: list[object]) -> None:
        height, width = self.size_pairs[index]
        wrong = next(filter(None, (polygon_fault(p, height, width) for p in polygons)), None)
        if wrong:
            self.fail(index, wrong)
            return
        merged = mask_api.merge(mask_api.frPyObjects(polygons, height, width))
        self.strings.append(bytes(merged["counts"]))
        self.string_owner.append(index)

    def finish(self) -> MaskTable:
        from_strings = self._checked_strings()
        counts = np.array([len(runs) for runs in self.plain], dtype=np.int64)
        flat = [run for runs in self.plain for run in runs]
        from_plain = rle.Runs(lengths=np.array(flat, dtype=np.int64), counts=counts)
        runs = rle.Runs(
            lengths=np.concatenate((from_strings.lengths, from_plain.lengths)),
            counts=np.concatenate((from_strings.counts, counts)),
        )
        owner = np.array(self.string_owner + self.plain_owner, dtype=np.int64)
        return self._table(runs, owner)

    def _checked_strings(self) -> rle.Runs:
        lengths = np.array([len(string) for string in self.strings], dtype=np.int64)
        data = np.frombuffer(b"".join(self.strings), dtype=np.uint8)
        good = rle.well_formed(data, lengths)
        for row in np.flatnonzero(~good).tolist():
            shown = quoted(self.strings[row])
            self.fail(self.string_owner[row], f"RLE counts {shown} are not COCO's compressed form")
        if not good.all():
            data = data[np.repeat(good, lengths)]
            lengths = lengths[good]
            self.string_owner = np.array(self.string_owner)[good].tolist()
        return rle.decode_strings(data, lengths)

    def _table(self, runs: rle.Runs, owner: np.ndarray) -> MaskTable:
        pixels = self.sizes[owner].prod(axis=1)
        good = rle.fills(runs, pixels)
        for row in np.flatnonzero(~good).tolist():
            begin = int(runs.starts[row])
            lengths = runs.lengths[begin : begin + int(runs.counts[row])]
            self.fail(
                int(owner[row]),
                f"RLE runs sum to {int(lengths.sum())} (smallest {int(lengths.min(initial=0))}), "
                f"expected {int(pixels[row])} = height x width, none negative",
            )
        runs = rle.Runs(
            lengths=runs.lengths[np.repeat(good, runs.counts)], counts=runs.counts[good]
        )
        order = np.argsort(owner[good], kind="stable")
        return _measured(_reordered(rle.canonical(runs), order), owner[good][order], self.sizes)


def polygon_fault(polygon: object, height: int, width: int) -> str | None:
    """What is wrong with one polygon `[x, y, x, y, ...]` in pixels, or None."""
    if not isinstance(polygon, list) or not all(type(v) in (int, float) for v in polygon):
        return f"polygon is {quoted(polygon)}, expected a list of numbers x, y, x, y, ..."
    if len(polygon) < 6 or len(polygon) % 2:
        return f"polygon has {len(polygon)} numbers, expected x, y pairs of at least 3 points"
    if not all(map(math.isfinite, polygon)):
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


def _reordered(runs: rle.Runs, order: np.ndarray) -> rle.Runs:
    if (order == np.arange(len(order))).all():
        return runs
    group, place = rle.segments(runs.counts[order])
    return rle.Runs(
        lengths=runs.lengths[runs.starts[order][group] + place], counts=runs.counts[order]
    )


def _measured(runs: rle.Runs, owner: np.ndarray, sizes: np.ndarray) -> MaskTable:
    data, string_lengths = rle.encode_strings(runs)
    lengths = np.zeros(len(sizes), dtype=np.int64)
    lengths[owner] = string_lengths
    areas = np.zeros(len(sizes))
    areas[owner] = rle.areas(runs)
    boxes = np.zeros((len(sizes), 4))
    boxes[owner] = rle.bounding_boxes(runs, sizes[owner, 0])
    return MaskTable(
        sizes=sizes,
        strings=data.tobytes(),
        offsets=np.concatenate(([0], np.cumsum(lengths))),
        areas=areas,
        boxes_xywh=boxes,
    )
