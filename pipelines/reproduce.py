"""The paper's tables (arXiv 2403.01214), row by row, as runs of our own.

    python pipelines/reproduce.py list
    python pipelines/reproduce.py run ours-r50-1x --backbone-weights resnet50.safetensors
    python pipelines/reproduce.py run ours-r50-1x --data scenes --scale 0.1
    python pipelines/reproduce.py table 3a --html 3a.html

A run generates pseudo-depth where a store is missing, fits, predicts and evaluates; it resumes
where it stopped, and a finished one is left alone.
"""

import json
import os
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from paper_rows import ROWS, DataName, Row, config_of, preset_of, settings_of
from paper_tables import TABLES
from stages import call, console, ensure_store, fit, predict, score
from table_text import as_html, as_markdown, cells_of

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
DataOption = Annotated[
    DataChoice | None, typer.Option("--data", help="Instead of the paper's data set.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set's stores, and where its masks are written down for scoring."""

    train: Path
    val: Path
    train_options: tuple[str, ...]
    val_options: tuple[str, ...]
    annotations: Path
    gt_fine: Path | None = None
    """Cityscapes' own annotations of the validation images, for its official protocol."""

    @property
    def score_options(self) -> tuple[str, ...]:
        """What `evaluate ap` is told."""
        if self.gt_fine is None:
            return ()
        return ("--protocol", "both", "--gt-fine", str(self.gt_fine))


def folder_of(out: Path, row: Row, data: DataName, scale: float) -> Path:
    """Where a row's run lies."""
    return out / (data if scale == 1 else f"{data}-x{scale:g}") / row.name


def source_of(data: DataName, *, data_root: Path, stores: Path, scenes: Path) -> Source:
    """The official layouts under the data root; scenes lie where they were drawn."""
    if data == "cityscapes":
        options = ("--dataset", "cityscapes", "--data-root", str(data_root))
        inner = data_root / "cityscapes"
        root = inner if inner.is_dir() else data_root
        return Source(
            train=stores / "cityscapes-train.zarr",
            val=stores / "cityscapes-val.zarr",
            train_options=(*options, "--split", "train"),
            val_options=(*options, "--split", "val"),
            annotations=stores / "cityscapes-val.json",
            gt_fine=root / "gtFine" / "val",
        )
    root = scenes if data == "scenes" else data_root
    options = ("--dataset", "coco", "--data-root", str(root))
    folder = root if (root / "annotations").is_dir() else root / "coco"
    return Source(
        train=stores / f"{data}-train2017.zarr",
        val=stores / f"{data}-val2017.zarr",
        train_options=(*options, "--split", "train2017"),
        val_options=(*options, "--split", "val2017"),
        annotations=folder / "annotations" / "instances_val2017.json",
    )


def default_data_root(data: DataName) -> Path:
    """$BOXDEPTH_DATA, else $DETECTRON2_DATASETS, else ./datasets; for Cityscapes its own first."""
    names = ("CITYSCAPES_DATASET",) if data == "cityscapes" else ()
    found = (os.environ.get(name) for name in (*names, "BOXDEPTH_DATA", "DETECTRON2_DATASETS"))
    return Path(next((value for value in found if value), "datasets"))


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
    for row in ROWS.values() if commands else ():
        chosen = " ".join(f"--set '{setting}'" for setting in settings_of(row, row.data))
        print(f"# {row.name}\ntrainer fit {preset_of(row, row.data)} {chosen}".rstrip())


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
        Path | None, typer.Option(help="Pretrained backbone; without it training is from scratch.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the run.")] = 0,
) -> None:
    """Depth where it is missing, fit, predict, evaluate; the result joins the tables."""
    row = find_row(name)
    chosen: DataName = (data or DataChoice(row.data)).value
    folder = folder_of(out, row, chosen, scale)
    result = folder / "result.json"
    if result.is_file():
        console.print(f"[green]{row.name} is done:[/] {result}")
        return
    source = source_of(
        chosen, data_root=data_root or default_data_root(chosen), stores=stores, scenes=scenes
    )
    options = _init_options(row, chosen, out, scale)
    _prepare(chosen, source, scenes, scene_counts)
    folder.mkdir(parents=True, exist_ok=True)
    asked = _write_config(row, chosen, scale, folder, backbone_weights=backbone_weights, seed=seed)
    fitted = fit(asked, folder / "run", "--train", str(source.train), *options)
    predict(folder / "run", source.val, folder / "predictions.json")
    scores = score(folder / "predictions.json", source.annotations, *source.score_options)
    about = {"row": row.name, "data": chosen, "scale": scale, "seed": seed}
    about |= {"seconds": fitted.get("seconds")}
    about |= {key: scores[key] for key in ("segm", "bbox", "cityscapes") if key in scores}
    result.write_text(json.dumps(about, indent=2) + "\n")
    console.print(f"{row.name}: segm AP {100 * scores['segm']['ap']:.1f} -> [bold]{result}")


def _init_options(row: Row, data: DataName, out: Path, scale: float) -> tuple[str, ...]:
    """`--init` with the COCO run that the row starts from.

    Raises:
        typer.BadParameter: that run isn't there.
    """
    if row.init is None or data != "cityscapes":
        return ()
    origin = folder_of(out, ROWS[row.init], "coco", scale) / "run"
    if not (origin / "latest").exists():
        raise typer.BadParameter(
            f"{row.name} starts from {row.init}, which isn't in {origin}; run that row first"
        )
    return ("--init", str(origin))


def _prepare(data: DataName, source: Source, scenes: Path, counts: tuple[int, int]) -> None:
    """Draw scenes and generate stores where they are missing."""
    if data == "scenes" and not source.annotations.is_file():
        train, val = (str(count) for count in counts)
        call(
            "Draw scenes",
            *("depthgen", "sample", "--out", str(scenes), "--train", train, "--val", val, "--json"),
        )
    ensure_store(source.train, *source.train_options, title="Pseudo-depth, training images")
    ensure_store(source.val, *source.val_options, title="Pseudo-depth, validation images")
    if source.gt_fine is not None and not source.annotations.is_file():
        where = (str(source.gt_fine), str(source.annotations))
        call("Cityscapes annotations", "evaluate", "convert", "cityscapes-to-coco", *where)


def _write_config(
    row: Row,
    data: DataName,
    scale: float,
    folder: Path,
    *,
    backbone_weights: Path | None,
    seed: int,
) -> Path:
    config = config_of(row, data, scale=scale)
    unseen = config.data.model_copy(update={"train": None, "val": None})
    config = config.model_copy(update={"seed": seed, "data": unseen})
    if backbone_weights is not None:
        backbone = config.model.backbone.model_copy(update={"weights": backbone_weights})
        model = config.model.model_copy(update={"backbone": backbone})
        config = config.model_copy(update={"model": model})
    elif data != "scenes":
        console.print("[yellow]no --backbone-weights: the backbone starts from random weights")
    path = folder / "asked.json"
    path.write_text(config.model_dump_json(indent=2) + "\n")
    return path


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
