"""Masks in another tool's format, from files to files, for Python callers."""

import os
from pathlib import Path

from boxdepth.evaluate.export.exporting import ExportReport, Options, Target, export_masks
from boxdepth.evaluate.export.source import read_source
from boxdepth.evaluate.results import UsageError


def convert(
    masks: str | os.PathLike[str],
    to: Target | str,
    out: str | os.PathLike[str],
    options: Options = Options(),
    *,
    annotations: str | os.PathLike[str] | None = None,
    split: str | None = None,
) -> ExportReport:
    """Write masks in another tool's format, read every file back, and tell what became of each.

    Args:
        masks: COCO annotations with masks, or COCO results with masks.
        to: the format: "coco", "yolo-seg", "labelme", "cvat", "label-studio", "png", "geojson".
        out: a new or empty folder; for formats with splits it may hold other splits already.
        options: polygons or masks, holes, tolerance, images.
        annotations: where results are given, the file of their images.
        split: of all images; by default what an image's `split` or the folder of its name says.

    Raises:
        DataError: names every fault in the files, or an image that is missing.
        UsageError: the format can't do what was asked, or the folder holds something.
    """
    try:
        target = Target(to)
    except ValueError:
        known = ", ".join(target.value for target in Target)
        raise UsageError(f"{to!r} is no format that is known: expected one of {known}.") from None
    given = None if annotations is None else Path(annotations)
    items = read_source(Path(masks), annotations=given, split=split)
    return export_masks(items, target, Path(out), options)
