"""The options of ``depthgen run``, each with its help."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from boxdepth.depthgen.cli.paths import user_path, user_text
from boxdepth.depthgen.datasets.read import DatasetName
from boxdepth.depthgen.datasets.records import OnBad


class AspectName(StrEnum):
    """How images are brought to the model's size."""

    keep = "keep"
    square = "square"


class KindOption(StrEnum):
    """What a model's output is."""

    inverse = "inverse"
    metric = "metric"


class SignOption(StrEnum):
    """Which end of a model's output is large."""

    near_large = "near-large"
    far_large = "far-large"


class PrecisionName(StrEnum):
    """Of the matrix products."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


Dataset = Annotated[DatasetName, typer.Option(help="Layout of the data.")]
Split = Annotated[
    str | None, typer.Option(help="Default: train2017 for COCO, else train.", show_default=False)
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder or URL. Default: $BOXDEPTH_DATA, $DETECTRON2_DATASETS, ./datasets.",
        parser=user_path,
        metavar="DIR",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(help="Image folder or its URL (custom, folder).", parser=user_path, metavar="DIR"),
]
Annotations = Annotated[
    Path | None,
    typer.Option(
        help="COCO-format file (custom), data.yaml (yolo).", parser=user_path, metavar="FILE"
    ),
]
StorePath = Annotated[
    str | None,
    typer.Option(
        help="Default: stores/<dataset>-<split>.zarr.",
        show_default=False,
        parser=user_text,
        metavar="DIR",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        help="auto, a name (depthgen models), a folder, or hf:ORG/NAME.",
        parser=user_text,
        metavar="MODEL",
    ),
]
Revision = Annotated[str | None, typer.Option(help="Commit of the hub model.")]
AllowNoncommercial = Annotated[
    bool, typer.Option("--allow-noncommercial", help="Accept such a licence.")
]
Aspect = Annotated[
    AspectName | None, typer.Option(help="Default: as the model's own processor does it.")
]
Kind = Annotated[
    KindOption | None,
    typer.Option(help="What the model's output is. Default: what its configuration says."),
]
Sign = Annotated[
    SignOption | None, typer.Option(help="Whether near or far is large. Default: by the kind.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images through the model together.")]
Workers = Annotated[int, typer.Option(min=1, help="Threads that decode ahead.")]
WithMasks = Annotated[bool, typer.Option("--with-masks", help="Store masks too.")]
Unit = Annotated[
    int | None, typer.Option(min=1, help="Images a shard. Default: 256, Cityscapes 64.")
]
DepthGrid = Annotated[
    str | None, typer.Option(help="ROWSxCOLUMNS of stored depth. Default: the model's size.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N images.")]
OnBadOption = Annotated[OnBad, typer.Option(help="Bad images and annotations.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[PrecisionName, typer.Option(help="Of the matrix products.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start anew.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, how large, how long.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Address of a dask scheduler (tcp://, tls://), or local.", show_default=False
    ),
]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="Worker processes on this machine (--scheduler local).")
]
Devices = Annotated[
    str | None, typer.Option(help="One worker process each: cuda:0,cuda:1, or all.")
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Accept tcp:// to a scheduler on another machine.")
]
