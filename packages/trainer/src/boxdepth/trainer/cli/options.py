"""Options and arguments, each declared once with its help; every path may begin with ``~``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from boxdepth.trainer.errors import ConfigError

WHAT, DATA, FOLDER, MACHINE = "What to train", "Data", "Run folder", "Machine"


def expanded(text: str | Path) -> Path:
    """A path as the shell would have given it: `--store=~/x` reaches us with its `~`."""
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:  # no such user: a folder may be called so
        return path


def _option(text: str, panel: str | None = None, default: bool | str = True) -> Any:
    return typer.Option(help=text, parser=expanded, rich_help_panel=panel, show_default=default)


class OnBad(StrEnum):
    """How a command ends if a picture can't be used."""

    error = "error"
    skip = "skip"


class WeightsOption(StrEnum):
    """Whose weights predict."""

    teacher = "teacher"
    student = "student"


Preset = Annotated[
    str | None,
    typer.Argument(help="A named run (`trainer presets` lists them).", show_default="coco_r50_1x"),
]
ConfigFile = Annotated[Path | None, _option("Settings from a JSON or YAML file instead.", WHAT)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="path.to.field=value; repeatable.", rich_help_panel=WHAT),
]
Init = Annotated[
    Path | None,
    _option("Start from the weights of a run, checkpoint or AdelaiDet file.", WHAT),
]
Fork = Annotated[
    Path | None,
    _option("Go on where another run stands, with other settings, in a new folder.", WHAT),
]
Train = Annotated[
    Path | None, _option("Store to learn from; with auto: whatever `depthgen run` reads.", DATA)
]
Val = Annotated[Path | None, _option("Store to predict on at the end.", DATA)]
ValAnnotations = Annotated[
    Path | None, _option("COCO annotations of the val images, to score with.", DATA)
]
Out = Annotated[Path | None, _option("Run folder.", FOLDER, "runs/<preset>")]
MaxIterations = Annotated[
    int | None, typer.Option(min=1, help="Stop here; --resume goes on.", rich_help_panel=FOLDER)
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on from the newest checkpoint.", rich_help_panel=FOLDER),
]
OverwriteRun = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier run.", rich_help_panel=FOLDER)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done.", rich_help_panel=FOLDER)
]
TrainImages = Annotated[
    Path | None, _option("With auto: folder of the images of a JSON file.", DATA)
]
DepthModel = Annotated[
    str | None,
    typer.Option(help="With auto: depth model.", show_default="depthgen's", rich_help_panel=DATA),
]
Minutes = Annotated[
    float | None,
    typer.Option(min=0.1, help="With auto: how long it may train.", rich_help_panel=FOLDER),
]
Batch = Annotated[
    str | None,
    typer.Option(
        help="Images a step, or auto: divided into passes that fit, by a real step.",
        rich_help_panel=MACHINE,
    ),
]
Precision = Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.", rich_help_panel=MACHINE)]
Seed = Annotated[int | None, typer.Option(min=0, rich_help_panel=MACHINE)]

Run = Annotated[Path, typer.Argument(help="A run folder or a checkpoint.", parser=expanded)]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", parser=expanded)]
Images = Annotated[
    list[Path] | None,
    typer.Argument(help="Images, or folders of them.", show_default=False, parser=expanded),
]
Store = Annotated[Path | None, _option("Predict on all images of a store.")]
Results = Annotated[Path, _option("COCO results file; OUT.images.json beside it lists the images.")]
Overlay = Annotated[Path | None, _option("Folder for pictures of the predictions.")]
OverlayThreshold = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="Least score of what is drawn.", show_default="0.3; 0 with --boxes"
    ),
]
Weights = Annotated[
    WeightsOption | None,
    typer.Option(help="Whose weights.", show_default="teacher, if there is one"),
]
ScoreThreshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Least final score.", show_default="the run's own"),
]
Boxes = Annotated[
    Path | None,
    _option(
        "COCO boxes: one mask for each, instead of detections. `store`: those of --store, else "
        "those that the run learnt from."
    ),
]
Crop = Annotated[bool, typer.Option(help="With --boxes: cut each mask at its box.")]
Tile = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Look at larger images in tiles of so many pixels a side; 0: as a whole.",
        show_default="as the run was trained",
    ),
]
Overlap = Annotated[int, typer.Option(min=0, help="With --tile: pixels that neighbours share.")]
TrainTile = Annotated[
    int | None,
    typer.Option(
        min=64,
        help="Learn (and predict) in tiles of so many pixels a side.",
        show_default="whole images; with auto: where boxes are too small for that",
        rich_help_panel=DATA,
    ),
]
TrainOverlap = Annotated[
    int,
    typer.Option(min=0, help="With --tile: pixels that neighbours share.", rich_help_panel=DATA),
]
MaxDetections = Annotated[
    int | None,
    typer.Option(min=1, help="Most detections an image (a tile).", show_default="the run's own"),
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
Preview = Annotated[Path | None, _option("Folder for pictures of the pairs that the losses trust.")]
Count = Annotated[int, typer.Option(min=1, help="How many pictures.")]
ForeignWeights = Annotated[
    Path, typer.Argument(help="AdelaiDet, detectron2, torchvision or timm file.", parser=expanded)
]
WeightsOut = Annotated[Path, typer.Argument(help="Safetensors file to write.", parser=expanded)]
MeantFor = Annotated[str, typer.Option(help="The run whose network the weights are meant for.")]


def refuse_unwritable(path: Path, *, overwrite: bool) -> None:
    """Notice before the work, not after it, that a result can't be written.

    Raises:
        ConfigError: the file is there already, is a folder, or lies below a file.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, expected the name of a file to write")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists already; --overwrite replaces it")
    make_folder(path.parent)


def make_folder(path: Path) -> None:
    """A folder, with those above it.

    Raises:
        ConfigError: there is a file of that name, or in the way to it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"{path}: can't be a folder, for {error.filename or path} is a file or below one"
        ) from error
