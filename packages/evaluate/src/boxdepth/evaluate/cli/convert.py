"""`evaluate convert`: other makers' annotations as COCO files."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from boxdepth.evaluate.cityscapes_ap import cityscapes_to_coco
from boxdepth.evaluate.cli import options
from boxdepth.evaluate.cli.app import app, emit, refuse_existing, say, write_new


class Conversion(StrEnum):
    """What can be converted."""

    cityscapes_to_coco = "cityscapes-to-coco"


@app.command(
    "convert",
    epilog="Example:\n\n  evaluate convert cityscapes-to-coco cityscapes/gtFine/val val.json",
)
def convert_command(
    conversion: Annotated[Conversion, typer.Argument(help="From what to what.")],
    root: Annotated[Path, typer.Argument(help="gtFine/<split>.", parser=options.user_path)],
    out: Annotated[Path, typer.Argument(help="The COCO file to write.", parser=options.user_path)],
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Write COCO annotations: visible pixels, the eight classes, groups as crowd regions."""
    refuse_existing(out, overwrite=overwrite)
    document = cityscapes_to_coco(root)
    write_new(out, json.dumps(document), overwrite=overwrite)
    counts = {"images": len(document["images"]), "annotations": len(document["annotations"])}
    say(f"{conversion}: {counts['images']} images, {counts['annotations']} annotations in {out}")
    emit({"out": str(out), **counts}, as_json=as_json, out=None)
