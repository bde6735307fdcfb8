"""`evaluate review`: look at the worst masks first."""

from pathlib import Path
from typing import Annotated

import typer

from boxdepth.evaluate.cli import options
from boxdepth.evaluate.cli.app import app, emit, refuse_existing, say, warn, write_new
from boxdepth.evaluate.export import read_source
from boxdepth.evaluate.review import review_page

EXAMPLES = """
Examples:

  evaluate review masks.json --images photos --html review.html --top 200

  evaluate review masks.json --annotations boxes.json --images photos --html review.html
"""


@app.command("review", epilog=EXAMPLES)
def review_command(
    masks: Annotated[
        Path,
        typer.Argument(help="Annotations or results with masks.", parser=options.user_path),
    ],
    images: Annotated[Path, options.file_option("--images", "Folder of the images.", "FOLDER")],
    html: Annotated[Path, options.file_option("--html", "The page to write.", "FILE")],
    annotations: Annotated[
        Path | None,
        options.file_option("--annotations", "With results: the file of their images.", "FILE"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many masks to show.")] = 200,
    title: Annotated[str | None, typer.Option(help="Headline.")] = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Write one offline page: masks of lowest quality first, keys for accept, redo and drop.

    It saves reviewed.json, a COCO file: accepted masks stay, those to redo become boxes alone, and
    dropped objects go.
    """
    refuse_existing(html, overwrite=overwrite)
    items = read_source(masks, annotations=annotations)
    review = review_page(items, images, top=top, title=title or f"Review of {masks.name}")
    write_new(html, review.html, overwrite=overwrite)
    warn(review.notes)
    size = html.stat().st_size / 1024**2
    say(
        f"Wrote {html} ({size:.1f} MB): {review.shown} of {review.objects} masks, worst first. "
        "Open it in any browser; it saves reviewed.json."
    )
    result = {"html": str(html), "shown": review.shown, "objects": review.objects}
    emit({**result, "warnings": list(review.notes)}, as_json=as_json, out=None)
