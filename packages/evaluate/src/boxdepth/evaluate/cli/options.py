"""Options that several subcommands share."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

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


def user_path(text: str) -> Path:
    """A path as people type it: `~` is their home, also after an equals sign."""
    return Path(text).expanduser()


class Limits(tuple[int, ...]):
    """Numbers of one option; a plain tuple would take several words of the command line."""


def limits(text: str) -> Limits:
    """`1,10,100` as numbers."""
    if not re.fullmatch(r" *[1-9]\d{0,8} *(, *[1-9]\d{0,8} *)*", text):
        raise typer.BadParameter(f"{text!r}, expected whole numbers from 1, such as 1,10,100,500")
    return Limits(sorted(set(map(int, text.split(",")))))


def file_option(name: str, text: str, metavar: str = "FILE") -> Any:
    """An option that names a file or folder."""
    return typer.Option(name, help=text, parser=user_path, metavar=metavar)


SHAPES: dict[Shape, tuple[IouType, ...]] = {
    Shape.segm: ("segm",),
    Shape.bbox: ("bbox",),
    Shape.both: ("segm", "bbox"),
    Shape.boundary: ("boundary",),
}
Run = Annotated[Path | None, file_option("--run", "A run folder.", "FOLDER")]
PredictionsFile = Annotated[
    Path | None,
    file_option(
        "--predictions", "COCO results (JSON list; - is stdin), or a Cityscapes results folder."
    ),
]
AnnotationsFile = Annotated[Path | None, file_option("--annotations", "COCO annotations (JSON).")]
Images = Annotated[Path | None, file_option("--images", "Folder of the images.", "FOLDER")]
GtFine = Annotated[
    Path | None,
    file_option("--gt-fine", "gtFine/<split>; default $CITYSCAPES_DATASET/gtFine/val.", "FOLDER"),
]
Depth = Annotated[
    Path | None,
    file_option("--depth", "Depth maps, for slices by distance: folder of PNG / NPY, or HDF5."),
]
DepthMeaning = Annotated[
    DepthSign, typer.Option("--depth-sign", help="Larger is nearer (inverse), or farther.")
]
PerClass = Annotated[bool, typer.Option("--per-class", help="A row per class.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Out = Annotated[Path | None, file_option("--out", "Also write that JSON here.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
ProtocolName = Annotated[Protocol, typer.Option("--protocol", help="Whose rules.")]
Compared = Annotated[Shape, typer.Option("--iou-type", help="What COCO AP compares.")]
CountedBy = Annotated[
    BackendName, typer.Option("--backend", help="fast: hotcoco. They agree to 1e-12.")
]
MaxDetections = Annotated[
    Limits | None,
    typer.Option(
        "--max-detections",
        parser=limits,
        metavar="N,N,...",
        help="Best of each image and class that count; AP is at the last. Default 1,10,100.",
    ),
]
CrossCheckImages = Annotated[
    bool,
    typer.Option("--cross-check", help="Score 200 of the images with pycocotools too."),
]
Curves = Annotated[
    Path | None, file_option("--curves", "Write COCO precision over recall here (JSON).")
]
WithMeasures = Annotated[
    bool,
    typer.Option(
        "--measures", help="F1 and its threshold, confusion, calibration, pieces, slices."
    ),
]
Confusion = Annotated[
    Path | None,
    file_option("--confusion-matrix", "Write it here: .svg (a picture), .csv or .json."),
]
PerImage = Annotated[
    Path | None,
    file_option("--per-image", "A row per image (TP, FP, FN, AP50): .csv or .parquet."),
]
FailUnder = Annotated[
    float | None,
    typer.Option("--fail-under", help="Exit 4 below this AP (of masks, else boxes), 0 to 1."),
]
