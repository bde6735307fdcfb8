"""Options that several subcommands share."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from boxdepth.evaluate.coco_ap import IouType


class Protocol(StrEnum):
    """Whose rules AP follows."""

    coco = "coco"
    cityscapes = "cityscapes"
    both = "both"
    lvis = "lvis"


class DepthSign(StrEnum):
    """What larger values in a depth map mean."""

    inverse = "inverse"
    distance = "distance"


class Shape(StrEnum):
    """What is compared."""

    segm = "segm"
    bbox = "bbox"
    both = "both"
    boundary = "boundary"


class OneShape(StrEnum):
    """What is compared, where only one thing can be."""

    segm = "segm"
    bbox = "bbox"


class BackendName(StrEnum):
    """Who counts."""

    fast = "fast"
    pycocotools = "pycocotools"


SHAPES: dict[Shape, tuple[IouType, ...]] = {
    Shape.segm: ("segm",),
    Shape.bbox: ("bbox",),
    Shape.both: ("segm", "bbox"),
    Shape.boundary: ("boundary",),
}
Run = Annotated[Path | None, typer.Option("--run", help="A run folder.")]
PredictionsFile = Annotated[
    Path | None,
    typer.Option("--predictions", help="COCO results (JSON list), or a Cityscapes results folder."),
]
AnnotationsFile = Annotated[
    Path | None, typer.Option("--annotations", help="COCO annotations (JSON).")
]
Images = Annotated[Path | None, typer.Option("--images", help="Folder of the images.")]
GtFine = Annotated[
    Path | None,
    typer.Option("--gt-fine", help="gtFine/<split>; default $CITYSCAPES_DATASET/gtFine/val."),
]
Depth = Annotated[
    Path | None,
    typer.Option("--depth", help="Depth maps, for slices by distance: folder of PNG / NPY, HDF5."),
]
DepthMeaning = Annotated[
    DepthSign, typer.Option("--depth-sign", help="Larger is nearer (inverse), or farther.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Out = Annotated[Path | None, typer.Option("--out", help="Also write that JSON here.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="Processes; 0: as many as the file is worth.")
]

_WORTH_A_WORKER = 8 * 1024**2
_MOST = 8


def worker_count(wanted: int, *files: Path) -> int:
    """`wanted`, or one process for every 8 MB of results, as far as there are cores."""
    if wanted:
        return wanted
    size = sum(file.stat().st_size for file in files if file.is_file())
    return max(1, min(size // _WORTH_A_WORKER, _MOST, _cores()))


def _cores() -> int:
    """Cores this process may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
