"""Options and arguments, each declared once with its help; every path may begin with ``~``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

WHAT, DATA, FOLDER, MACHINE = "What to train", "Data", "Run folder", "Machine"


def expanded(text: str | Path) -> Path:
    """A path as the shell would have given it: `--store=~/x` reaches us with its `~`."""
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:  # no such user: a folder may be called so
        return path


def _path(text: str, panel: str | None = None, default: bool | str = True) -> Any:
    return typer.Option(help=text, parser=expanded, rich_help_panel=panel, show_default=default)


def _option(
    text: str | None, panel: str | None, *names: str, default: bool | str = True, **limits: Any
) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=default, **limits)


class OnBad(StrEnum):
    """How a command ends if a picture can't be used."""

    error = "error"
    skip = "skip"


class PredictIn(StrEnum):
    """Precision of a network that predicts."""

    fp32 = "fp32"
    bf16 = "bf16"
    auto = "auto"


class WeightsOption(StrEnum):
    """Whose weights predict."""

    teacher = "teacher"
    student = "student"


Preset = Annotated[
    str | None,
    typer.Argument(help="A named run (`trainer presets` lists them).", show_default="coco_r50_1x"),
]
ConfigFile = Annotated[Path | None, _path("Settings from a JSON or YAML file instead.", WHAT)]
Settings = Annotated[list[str] | None, _option("path.to.field=value; repeatable.", WHAT, "--set")]
Init = Annotated[
    Path | None,
    _path("Start from the weights of a run, checkpoint or AdelaiDet file.", WHAT),
]
Fork = Annotated[
    Path | None,
    _path("Go on where another run stands, with other settings, in a new folder.", WHAT),
]
Train = Annotated[
    Path | None, _path("Store to learn from; with auto: whatever `depthgen run` reads.", DATA)
]
Val = Annotated[Path | None, _path("Store to predict on at the end.", DATA)]
ValAnnotations = Annotated[
    Path | None, _path("COCO annotations of the val images, to score with.", DATA)
]
Out = Annotated[Path | None, _path("Run folder.", FOLDER, "runs/<preset>")]
MaxIterations = Annotated[int | None, _option("Stop here; --resume goes on.", FOLDER, min=1)]
Resume = Annotated[bool, _option("Go on from the newest checkpoint.", FOLDER, "--resume")]
OverwriteRun = Annotated[bool, _option("Replace an earlier run.", FOLDER, "--overwrite")]
DryRun = Annotated[bool, _option("Say what would be done.", FOLDER, "--dry-run")]
TrainImages = Annotated[Path | None, _path("With auto: folder of the images of a JSON file.", DATA)]
DepthModel = Annotated[str | None, _option("With auto: depth model.", DATA, default="depthgen's")]
Minutes = Annotated[float | None, _option("With auto: how long it may train.", FOLDER, min=0.1)]
Batch = Annotated[
    str | None,
    _option("Images a step, or auto: divided into passes that fit, by a real step.", MACHINE),
]
Precision = Annotated[
    str | None,
    _option("fp32, bf16, fp16; auto: bf16 where the machine multiplies it, else fp32.", MACHINE),
]
Seed = Annotated[int | None, _option(None, MACHINE, min=0)]

PageOut = Annotated[Path | None, _path("One offline page with curves and pictures.")]
LookedAt = Annotated[
    int,
    typer.Option(min=0, help="With --html: training images that are looked at; 0: none."),
]
OverwritePage = Annotated[bool, typer.Option("--overwrite", help="Replace the page.")]
Run = Annotated[Path, typer.Argument(help="A run folder or a checkpoint.", parser=expanded)]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", parser=expanded)]
Images = Annotated[
    list[Path] | None,
    typer.Argument(help="Images, or folders of them.", show_default=False, parser=expanded),
]
Store = Annotated[Path | None, _path("Predict on all images of a store.")]
Results = Annotated[Path, _path("COCO results file; OUT.images.json beside it lists the images.")]
Overlay = Annotated[Path | None, _path("Folder for pictures of the predictions.")]
OverlayThreshold = Annotated[
    float | None,
    _option("Least score of what is drawn.", None, default="0.3; 0 with --boxes", min=0, max=1),
]
Weights = Annotated[
    WeightsOption | None, _option("Whose weights.", None, default="teacher, if there is one")
]
ScoreThreshold = Annotated[
    float | None, _option("Least final score.", None, default="the run's own", min=0, max=1)
]
Boxes = Annotated[
    Path | None,
    _path(
        "COCO boxes: one mask for each, instead of detections. `store`: those of --store, else "
        "those that the run learnt from."
    ),
]
Crop = Annotated[bool, typer.Option(help="With --boxes: cut each mask at its box.")]
Tile = Annotated[
    int | None,
    _option(
        "Look at larger images in tiles of so many pixels a side; 0: as a whole.",
        None,
        default="as the run was trained",
        min=0,
    ),
]
Overlap = Annotated[int, typer.Option(min=0, help="With --tile: pixels that neighbours share.")]
TrainTile = Annotated[
    int | None,
    _option(
        "Learn (and predict) in tiles of so many pixels a side.",
        DATA,
        default="whole images; with auto: where boxes are too small for that",
        min=64,
    ),
]
TrainOverlap = Annotated[int, _option("With --tile: pixels that neighbours share.", DATA, min=0)]
MaxDetections = Annotated[
    int | None,
    _option("Most detections an image (a tile).", None, default="the run's own", min=1),
]
PredictInOption = Annotated[
    PredictIn | None,
    typer.Option(
        "--precision",
        help="Of the network; auto: bf16 where the machine multiplies it, else fp32.",
        show_default="the run's own",
        rich_help_panel=MACHINE,
    ),
]
OnBadOption = Annotated[
    OnBad,
    typer.Option(
        help="How the command ends if a picture can't be used; the others are predicted on either "
        "way."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")]

StoreToCheck = Annotated[
    Path, typer.Argument(help="A store made by `depthgen run`.", parser=expanded)
]
Deep = Annotated[bool, typer.Option("--deep", help="Decode every image, not a few.")]
Preview = Annotated[Path | None, _path("Folder for pictures of the pairs that the losses trust.")]
Count = Annotated[int, typer.Option(min=1, help="How many pictures.")]
ForeignWeights = Annotated[
    Path, typer.Argument(help="AdelaiDet, detectron2, torchvision or timm file.", parser=expanded)
]
WeightsOut = Annotated[Path, typer.Argument(help="Safetensors file to write.", parser=expanded)]
MeantFor = Annotated[str, typer.Option(help="The run whose network the weights are meant for.")]
