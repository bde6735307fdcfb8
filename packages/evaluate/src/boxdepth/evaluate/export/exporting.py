"""From checked masks to another tool's files, and back again to see what was lost."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from boxdepth.evaluate.export.formats import (
    coco,
    cvat,
    geojson,
    label_studio,
    labelme,
    png,
    yolo_seg,
)
from boxdepth.evaluate.export.job import Job
from boxdepth.evaluate.export.shapes import (
    ENOUGH,
    Outline,
    Part,
    Policy,
    outline,
    overlap,
    rasterise,
    shape_by_policy,
)
from boxdepth.evaluate.export.source import ExportSet
from boxdepth.evaluate.results import UsageError

OBJECTS = "objects.csv"
COLUMNS = ("annotation_id", "image_id", "file_name", "category", "file", "iou", "note")


class Target(StrEnum):
    """Whose format."""

    coco = "coco"
    yolo_seg = "yolo-seg"
    labelme = "labelme"
    cvat = "cvat"
    label_studio = "label-studio"
    png = "png"
    geojson = "geojson"


class Form(StrEnum):
    """Masks pixel by pixel, or polygons."""

    mask = "mask"
    polygon = "polygon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What a format can hold.

    Attributes:
        module: its writer and reader.
        forms: what it can hold, the default first.
        policies: policies that make sense for its polygons, the default first.
        holes, crowds, splits: it has holes, a word for crowd regions, a folder for each split.
    """

    module: ModuleType
    forms: tuple[Form, ...]
    policies: tuple[Policy, ...] = ()
    holes: bool = False
    crowds: bool = False
    splits: bool = False


_ALL = (Policy.bridge, Policy.largest, Policy.keep)
_ONE_OUTLINE = (Policy.bridge, Policy.largest)
_BOTH = (Form.mask, Form.polygon)
_POLYGON = (Form.polygon,)
FORMATS: Mapping[Target, Format] = {
    Target.coco: Format(
        module=coco, forms=_BOTH, policies=(Policy.keep, *_ONE_OUTLINE), crowds=True, splits=True
    ),
    Target.yolo_seg: Format(module=yolo_seg, forms=_POLYGON, policies=_ONE_OUTLINE, splits=True),
    Target.labelme: Format(
        module=labelme, forms=(Form.polygon, Form.mask), policies=_ALL, crowds=True
    ),
    Target.cvat: Format(module=cvat, forms=_BOTH, policies=_ALL),
    Target.label_studio: Format(module=label_studio, forms=_BOTH, policies=_ONE_OUTLINE),
    Target.png: Format(module=png, forms=(Form.mask,)),
    Target.geojson: Format(
        module=geojson, forms=_POLYGON, policies=(Policy.keep, Policy.largest), holes=True,
        crowds=True,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to export.

    Attributes:
        form: masks or polygons; None: the format's default.
        policy: for holes and parts of polygons; None: the format's default.
        tolerance: how far an outline may move, in pixels.
        images: folder of the images, for formats that put them beside the labels.
        copy: copy images instead of linking them.
        image_url: what Label Studio is to put before file names.
        overwrite: replace files in an output folder that is not empty.
    """

    form: Form | None = None
    policy: Policy | None = None
    tolerance: float = 0.5
    images: Path | None = None
    copy: bool = False
    image_url: str = "/data/local-files/?d="
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written and what it cost.

    Attributes:
        target, form, policy: as decided; no policy for masks.
        images: images written.
        written: annotation id to round-trip IoU of each object.
        worst: the object of lowest IoU: annotation id, image id, IoU and why; None without any.
        left_out: annotation id to the reason, for objects the format can't hold.
        commands: what trains on the result.
        notes: sentences about the input.
    """

    target: Target
    form: Form
    policy: Policy | None
    out: Path
    images: int
    written: Mapping[int, float] = field(repr=False)
    worst: Mapping[str, Any] | None
    left_out: Mapping[int, str]
    commands: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def median(self) -> float | None:
        """Median round-trip IoU."""
        return float(np.median(list(self.written.values()))) if self.written else None

    def to_json(self) -> dict[str, Any]:
        """As `evaluate convert --json` prints it."""
        return {
            "to": self.target.value,
            "form": self.form.value,
            "policy": self.policy.value if self.policy else None,
            "out": str(self.out),
            "images": self.images,
            "objects": len(self.written),
            "round_trip_iou": {"median": self.median, "worst": self.worst},
            "left_out": [{"id": i, "reason": reason} for i, reason in self.left_out.items()],
            "commands": list(self.commands),
            "warnings": list(self.notes),
        }


def export_masks(
    items: ExportSet,
    target: Target,
    out: Path,
    options: Options = Options(),
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Write masks in another tool's format, read them back, and list what became of each.

    Args:
        items: what `read_source` read.
        target: the format.
        out: a new or empty folder; for formats with splits it may hold other splits already.
        options: see there.
        progress: called with how many objects are drawn, and of how many.

    Raises:
        UsageError: the format can't do what was asked, or the folder holds something.
        DataError: an image is missing or its name leads out of its folder.
    """
    form, policy = _decide(target, options)
    check_room(items, target, out, overwrite=options.overwrite)
    left_out = _left_out(items, FORMATS[target])
    rows = np.array([row for row in range(len(items)) if row not in left_out], dtype=np.int64)
    outlines: dict[int, Outline] = {}
    if policy is not None:
        for place, row in enumerate(rows.tolist()):
            outlines[row] = _outline(items, row, policy, options.tolerance, FORMATS[target].holes)
            if progress:
                progress(place + 1, len(rows))
    job = Job(
        items=items,
        rows=rows,
        boxes_alone=np.flatnonzero(~items.masks.present | (items.masks.areas == 0)),
        outlines=outlines if policy else None,
        out=out,
        images=options.images,
        copy=options.copy,
        image_url=options.image_url,
    )
    module = FORMATS[target].module
    files = module.write(job)
    ious = {row: overlap(mask, items.masks.pixels(row)) for row, mask in module.read(job)}
    why = {row: _why(shape, ious.get(row, 1.0)) for row, shape in outlines.items()}
    _write_list(job, files, ious, {**why, **left_out})
    commands = module.commands(out) if hasattr(module, "commands") else []
    return ExportReport(
        target=target,
        form=form,
        policy=policy,
        out=out,
        images=len(items.images),
        written={int(items.ids[row]): iou for row, iou in ious.items()},
        worst=_worst(items, ious, why),
        left_out={int(items.ids[row]): reason for row, reason in left_out.items()},
        commands=tuple(commands),
        notes=items.notes,
    )


def check_room(items: ExportSet, target: Target, out: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` if there is something in the way and it may not be overwritten."""
    if out.is_file():
        raise UsageError(f"{out} is a file; --out names a folder.")
    if overwrite or not out.is_dir():
        return
    there = sorted(path.name for path in out.iterdir())
    if FORMATS[target].splits:
        there = [name for name in there if name in items.splits]
    if there:
        raise UsageError(f"{out} holds {there[0]} already. Pass --overwrite, or another --out.")


def _decide(target: Target, options: Options) -> tuple[Form, Policy | None]:
    known = FORMATS[target]
    form = options.form or known.forms[0]
    if options.tolerance < 0 or not np.isfinite(options.tolerance):
        raise UsageError(f"--tolerance is {options.tolerance:g}, expected pixels from 0.")
    if form not in known.forms:
        raise UsageError(f"{target.value} holds no {form.value}s, only {known.forms[0].value}s.")
    if form == Form.mask:
        if options.policy is not None:
            raise UsageError(
                f"masks keep their holes and parts: --policy is for polygons (--as polygon), and "
                f"this writes {target.value} with masks."
            )
        return form, None
    policy = options.policy or known.policies[0]
    if policy not in known.policies:
        words = " or ".join(p.value for p in known.policies)
        raise UsageError(f"{target.value} has one outline for an object: use --policy {words}."
                         if policy == Policy.keep else
                         f"{target.value} has holes and parts: use --policy {words}.")  # fmt: skip
    return form, policy


def _left_out(items: ExportSet, known: Format) -> dict[int, str]:
    reasons = {}
    for row in range(len(items)):
        if not items.masks.present[row]:
            reasons[row] = "no mask, a box alone"
        elif not items.masks.areas[row]:
            reasons[row] = "the mask is empty"
        elif items.crowd[row] and not known.crowds:
            reasons[row] = "a crowd region, which the format has no word for"
    return reasons


def _outline(
    items: ExportSet, row: int, policy: Policy, tolerance: float, with_holes: bool
) -> Outline:
    """The user's own polygons where they serve, else outlines traced along the mask."""
    mask = items.masks.pixels(row)
    own = items.records[row].get("segmentation")
    if isinstance(own, list) and (policy != Policy.largest or len(own) == 1):
        rings = [np.array(points, dtype=np.float64).reshape(-1, 2) for points in own]
        parts = [Part(outer=np.concatenate((ring, ring[:1]))) for ring in rings]
        shaped = shape_by_policy(parts, policy, with_holes=with_holes)
        if overlap(rasterise(shaped.parts, mask.shape), mask) >= ENOUGH:
            return shaped
    return outline(mask, policy=policy, tolerance=tolerance, with_holes=with_holes)


def _why(shape: Outline, iou: float) -> str:
    """What was done to an outline, in words; nothing if it came through whole."""
    if iou == 1:
        return shape.note
    small = "outline simplified" if shape.simplified else "coordinates rounded"
    return f"{shape.note}, {small}" if shape.note and shape.simplified else shape.note or small


def _worst(
    items: ExportSet, ious: Mapping[int, float], why: Mapping[int, str]
) -> dict[str, Any] | None:
    if not ious:
        return None
    row = min(ious, key=lambda row: ious[row])
    return {
        "iou": ious[row],
        "id": int(items.ids[row]),
        "image_id": items.image_id(row),
        "why": why.get(row, ""),
    }


def _write_list(
    job: Job, files: Mapping[int, str], ious: Mapping[int, float], notes: Mapping[int, str]
) -> None:
    """Every object of the input: where it is, how well it came through, or why it is not there."""
    path = job.out / OBJECTS
    job.out.mkdir(parents=True, exist_ok=True)
    items = job.items
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in range(len(items)):
            name = items.image_names[items.image_index[row]]
            iou = f"{ious[row]:.6f}" if row in ious else ""
            writer.writerow([items.ids[row], items.image_id(row), name, job.label(row),
                             files.get(row, ""), iou, notes.get(row, "")])  # fmt: skip
