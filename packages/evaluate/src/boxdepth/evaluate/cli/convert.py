"""`evaluate convert`: masks in other tools' formats, and other makers' annotations as COCO."""

import json
from pathlib import Path
from typing import Annotated

import typer

from boxdepth.evaluate.cityscapes_ap import cityscapes_to_coco
from boxdepth.evaluate.cli import options
from boxdepth.evaluate.cli.app import app, emit, progress, refuse_existing, say, warn, write_new
from boxdepth.evaluate.export import (
    ExportReport,
    ExportSet,
    Form,
    Options,
    Policy,
    Target,
    export_masks,
    read_source,
)
from boxdepth.evaluate.results import UsageError
from boxdepth.evaluate.words import counted

CITYSCAPES = "cityscapes-to-coco"
EXAMPLES = """
Examples:

  evaluate convert masks.json --to yolo-seg --images photos --out labels

  evaluate convert masks.json --annotations boxes.json --to label-studio --out studio

  evaluate convert masks.json --to cvat --as polygon --policy keep --tolerance 1 --out cvat

  evaluate convert cityscapes-to-coco cityscapes/gtFine/val val.json
"""


Source = Annotated[
    str, typer.Argument(help="Annotations or results with masks, or 'cityscapes-to-coco'.")
]
GtFine = Annotated[
    Path | None,
    typer.Argument(help="cityscapes-to-coco: gtFine/<split>.", parser=options.user_path),
]
CocoFile = Annotated[
    Path | None,
    typer.Argument(help="cityscapes-to-coco: the file to write.", parser=options.user_path),
]
To = Annotated[Target | None, typer.Option(help="Whose format.")]
Folder = Annotated[Path | None, typer.Option(help="Folder to write.", parser=options.user_path)]
ImageList = Annotated[
    Path | None,
    typer.Option(help="With results: the COCO file with their images.", parser=options.user_path),
]
As = Annotated[
    Form | None, typer.Option("--as", help="Masks or polygons, where a format has both.")
]
PolicyOption = Annotated[
    Policy | None, typer.Option(help="What becomes of holes and several parts in polygons.")
]
Tolerance = Annotated[
    float, typer.Option(help="Pixels by which an outline may move; 0: every turn.")
]
Split = Annotated[
    str | None, typer.Option(help="Of all images; else what file or folder names say.")
]
LeastScore = Annotated[float, typer.Option("--score-threshold", help="Leave out results below.")]
Copy = Annotated[bool, typer.Option("--copy-images", help="Copy images instead of linking them.")]
ImageUrl = Annotated[str, typer.Option(help="label-studio: what stands before file names.")]


@app.command("convert", epilog=EXAMPLES)
def convert_command(
    source: Source,
    root: GtFine = None,
    coco_file: CocoFile = None,
    to: To = None,
    out: Folder = None,
    annotations: ImageList = None,
    images: options.Images = None,
    form: As = None,
    policy: PolicyOption = None,
    tolerance: Tolerance = 0.5,
    split: Split = None,
    least_score: LeastScore = 0.0,
    copy_images: Copy = False,
    image_url: ImageUrl = Options().image_url,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Write masks in another tool's format; every file is read back and compared."""
    if source == CITYSCAPES:
        if root is None or coco_file is None:
            raise UsageError(f"{CITYSCAPES} needs two names: gtFine/<split>, and the COCO file.")
        convert_cityscapes(root, coco_file, overwrite=overwrite, as_json=as_json)
        return
    if root is not None:
        raise UsageError(
            f"one file at a time: {source}; what is {root}? Name the folder with --out."
        )
    if to is None or out is None:
        raise UsageError("name the format with --to and the folder to write with --out.")
    items = read_source(Path(source), annotations=annotations, split=split, least_score=least_score)
    wishes = Options(
        form=form,
        policy=policy,
        tolerance=tolerance,
        images=images,
        copy=copy_images,
        image_url=image_url,
        overwrite=overwrite,
    )
    report = run_export(items, to, out, wishes)
    show_export(report)
    emit(report.to_json(), as_json=as_json, out=None)


def run_export(items: ExportSet, to: Target, out: Path, wishes: Options) -> ExportReport:
    """`export_masks` with a bar on a terminal."""
    with progress() as bar:
        task = bar.add_task("drawing outlines", total=len(items))

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return export_masks(items, to, out, wishes, progress=tell)


def show_export(report: ExportReport) -> None:
    """What was written, how well it came through, what is left out, and what to type next."""
    warn(report.notes)
    policy = f", policy {report.policy.value}" if report.policy else ""
    say(
        f"{report.out}: {counted(len(report.written), 'object')} of "
        f"{counted(report.images, 'image')} as "
        f"{report.target.value} ({report.form.value}s{policy})."
    )
    if report.worst is not None and report.median is not None:
        worst = report.worst
        why = f": {worst['why']}" if worst["why"] else ""
        say(
            f"Round trip IoU: median {report.median:.3f}, worst {worst['iou']:.3f} "
            f"(image {worst['image_id']}, annotation {worst['id']}{why})."
        )
    if report.left_out:
        reasons: dict[str, list[int]] = {}
        for identifier, reason in report.left_out.items():
            reasons.setdefault(reason, []).append(identifier)
        for reason, ids in reasons.items():
            shown = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
            warn([f"{len(ids)} objects are left out, {reason}: annotations {shown}"])
    say(f"Every object, where it is and how it came through: {report.out / 'objects.csv'}")
    for number, command in enumerate(report.commands):
        say(f"{'To train on it' if number == 0 else 'or'}:  {command}")


def convert_cityscapes(root: Path, out: Path, *, overwrite: bool, as_json: bool) -> None:
    """COCO annotations: visible pixels, the eight classes, groups as crowd regions."""
    refuse_existing(out, overwrite=overwrite)
    document = cityscapes_to_coco(root)
    write_new(out, json.dumps(document), overwrite=overwrite)
    counts = {"images": len(document["images"]), "annotations": len(document["annotations"])}
    say(f"{CITYSCAPES}: {counts['images']} images, {counts['annotations']} annotations in {out}")
    emit({"out": str(out), **counts}, as_json=as_json, out=None)
