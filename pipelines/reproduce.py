"""The paper's tables (arXiv 2403.01214), row by row, as runs of our own.

    python pipelines/reproduce.py list
    python pipelines/reproduce.py run ours-r50-1x --backbone-weights resnet50.safetensors
    python pipelines/reproduce.py run ours-r50-1x --data scenes --scale 0.1
    python pipelines/reproduce.py table 3a --html 3a.html

A run generates pseudo-depth where a store is missing, fits, predicts and evaluates; it resumes
where it stopped, and a finished one is left alone.
"""

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from paper.rows import PRESET_OF, ROWS, DataName, Row, settings_of
from paper.runs import (
    Source,
    default_data_root,
    folder_of,
    init_options,
    prepare,
    source_of,
    write_config,
)
from paper.tables import TABLES
from paper.text import as_html, as_markdown, cells_of
from stages import console, fit, predict, score

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__.split("\n\n")[0])


class DataChoice(StrEnum):
    """Where a row is run."""

    COCO = "coco"
    CITYSCAPES = "cityscapes"
    SCENES = "scenes"


class TableChoice(StrEnum):
    """A table of the paper."""

    ONE = "1"
    TWO = "2"
    TERMS = "3a"
    THRESHOLDS = "3b"
    TEACHERS = "3c"
    GAMMAS = "3d"


OutOption = Annotated[Path, typer.Option("--out", help="Folder of all reproduced runs.")]
ScaleOption = Annotated[
    float, typer.Option("--scale", min=1e-4, help="Factor of every iteration count.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")]
DataOption = Annotated[
    DataChoice | None, typer.Option("--data", help="Instead of the paper's data set.")
]


def find_row(name: str) -> Row:
    """The row of that name.

    Raises:
        typer.BadParameter: there is none.
    """
    if name not in ROWS:
        raise typer.BadParameter(f"no row {name!r}; `reproduce.py list` shows them all")
    return ROWS[name]


@app.command("list")
def list_rows(
    commands: Annotated[
        bool, typer.Option("--commands", help="Show each row's `trainer fit` command.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Every row: method, backbone, schedule, the tables it stands in, the paper's AP."""
    table = Table(title="Rows of the paper's tables", title_justify="left")
    for column in ("row", "method", "backbone", "data", "schedule", "tables", "paper AP"):
        right = column == "paper AP"
        table.add_column(column, justify="right" if right else "left", no_wrap=column == "row")
    for row in ROWS.values():
        found = [(t.number, x) for t in TABLES.values() for x in t.lines if x.row == row.name]
        values = {f"{x.paper[0]:.1f}" for _, x in found if x.paper[0] is not None}
        numbers = ", ".join(number for number, _ in found)
        start = f"{row.schedule}, from {row.init}" if row.init else row.schedule
        table.add_row(
            *(row.name, row.title, row.backbone, row.data, start, numbers, " ".join(values))
        )
    console.print(table)
    if as_json:
        emit({"rows": [_described(row) for row in ROWS.values()]})
    elif commands:
        for row in ROWS.values():
            print(f"# {row.name}\n{command_of(row)}")


def _described(row: Row) -> dict[str, Any]:
    """A row as data."""
    facts = {name: value for name, value in asdict(row).items() if name != "method"}
    return {**facts, "settings": settings_of(row, row.data), "command": command_of(row)}


def command_of(row: Row) -> str:
    """The `trainer fit` command that the row is on the paper's data set."""
    chosen = [part for setting in settings_of(row, row.data) for part in ("--set", setting)]
    return shlex.join(["trainer", "fit", PRESET_OF[row.data], *chosen])


def emit(result: Mapping[str, Any]) -> None:
    """The machine's result: one line of JSON on stdout."""
    sys.stdout.write(json.dumps(result) + "\n")


@app.command()
def run(
    name: Annotated[str, typer.Argument(metavar="ROW", help="See `list`.")],
    data: DataOption = None,
    scale: ScaleOption = 1.0,
    out: OutOption = Path("reproduce"),
    stores: Annotated[Path, typer.Option(help="Folder of the depth stores.")] = Path("stores"),
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None,
    scenes: Annotated[Path, typer.Option(help="Folder of drawn scenes.")] = Path("scenes"),
    scene_counts: Annotated[
        tuple[int, int], typer.Option(help="Scenes to draw for training and validation.")
    ] = (512, 256),
    backbone_weights: Annotated[
        Path | None, typer.Option(help="Pretrained backbone; else timm downloads ImageNet weights.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the row, e.g. data.accumulate=4."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the run.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Depth where it is missing, fit, predict, evaluate; the result joins the tables."""
    row = find_row(name)
    chosen: DataName = (data or DataChoice(row.data)).value
    folder = folder_of(out, row, chosen, scale)
    result = folder / "result.json"
    if result.is_file():
        console.print(f"[green]{row.name} is done:[/] {result}")
        if as_json:
            emit(json.loads(result.read_text()))
        return
    source = source_of(
        chosen, data_root=data_root or default_data_root(chosen), stores=stores, scenes=scenes
    )
    options = init_options(row, chosen, out, scale)
    asked = write_config(
        *(row, chosen, scale, folder),
        settings=settings or (),
        backbone_weights=backbone_weights,
        seed=seed,
    )
    prepare(chosen, source, scenes, scene_counts)
    where = ("--device", device)
    fitted = fit(
        ("--config", str(asked)), folder / "run", "--train", str(source.train), *options, *where
    )
    about: dict[str, Any] = {"row": row.name, "data": chosen, "scale": scale, "seed": seed}
    about |= {"set": settings or [], "seconds": fitted.result.get("seconds")}
    about |= _scores(folder, "predictions.json", source, *where)
    if json.loads(asked.read_text())["distillation"]["method"] != "off":
        about["student"] = _scores(folder, "student.json", source, "--weights", "student", *where)
    result.write_text(json.dumps(about, indent=2) + "\n")
    console.print(f"{row.name}: segm AP {100 * about['segm']['ap']:.1f} -> [bold]{result}")
    if as_json:
        emit(about)


def _scores(folder: Path, name: str, source: Source, *options: str) -> dict[str, Any]:
    predict(folder / "run", source.val, folder / name, *options)
    scores = score(folder / name, source.annotations, *source.score_options).result
    return {key: scores[key] for key in ("segm", "bbox", "cityscapes") if key in scores}


@app.command()
def table(
    number: TableChoice,
    data: DataOption = None,
    scale: ScaleOption = 1.0,
    out: OutOption = Path("reproduce"),
    html: Annotated[Path | None, typer.Option(help="Write the table as a page as well.")] = None,
) -> None:
    """Ours beside the paper's as Markdown on stdout; blank where not run."""
    chosen = TABLES[number.value]

    def ours(name: str) -> dict[str, Any] | None:
        place: DataName = (data or DataChoice(ROWS[name].data)).value
        result = folder_of(out, ROWS[name], place, scale) / "result.json"
        found: dict[str, Any] | None = json.loads(result.read_text()) if result.exists() else None
        return found

    where = data.value if data else "the paper's data"
    caption = f"Table {chosen.number}. {chosen.title}. Paper: {chosen.split}; ours: {where}"
    caption += ", validation images" + (f", {scale:g} of the iterations" if scale != 1 else "")
    cells = cells_of(chosen, ours)
    sys.stdout.write(as_markdown(caption, cells))
    if html is not None:
        html.write_text(as_html(caption, cells), encoding="utf-8")
        console.print(f"-> [bold]{html}")


if __name__ == "__main__":
    app()
