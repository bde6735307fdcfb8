"""``depthgen sample``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from boxdepth.depthgen.cli.app import Json, app, emit, say
from boxdepth.depthgen.cli.paths import user_path
from boxdepth.depthgen.cli.progress import show_progress
from boxdepth.depthgen.cli.run import parse_size


class Layout(StrEnum):
    """Folder layouts that can be drawn."""

    coco = "coco"
    cityscapes = "cityscapes"


@app.command(
    epilog="Example: [bold]depthgen sample --out datasets/coco && depthgen run --dataset coco[/]"
)
def sample(
    out: Annotated[
        Path, typer.Option(help="A new or empty folder.", parser=user_path, metavar="DIR")
    ],
    layout: Annotated[Layout, typer.Option(help="Of the folder.")] = Layout.coco,
    train: Annotated[int, typer.Option(min=0, help="Scenes to train on.")] = 1000,
    val: Annotated[int, typer.Option(min=0, help="Scenes to validate on.")] = 200,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH in pixels.")] = "192x256",
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds draw equal scenes.")] = 0,
    camouflage: Annotated[
        float, typer.Option(min=0, max=1, help="Share of shapes coloured like what is behind them.")
    ] = 0.4,
    json: Json = False,
) -> None:
    """Draw scenes: images, boxes, exact masks and exact depth for everyone."""
    from boxdepth.depthgen.datasets.sample import write_sample

    shape = parse_size(size, option="--size")
    with show_progress("scenes") as progress:
        report = write_sample(
            out,
            layout=layout.value,
            train=train,
            val=val,
            size=shape,
            seed=seed,
            camouflage=camouflage,
            progress=progress,
        )
    say(f"{report.train} + {report.val} scenes with {report.instances} instances in {report.root}")
    if json:
        emit(
            {
                "root": str(report.root),
                "layout": report.layout,
                "train": report.train,
                "val": report.val,
                "instances": report.instances,
                "camouflaged": report.camouflaged,
            }
        )
