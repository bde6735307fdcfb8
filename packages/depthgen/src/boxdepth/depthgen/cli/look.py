"""``depthgen models``, ``info``, ``verify`` and ``preview``: they change no store."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from boxdepth.depthgen.cli.app import Json, app, console, emit, interactive, say, warn
from boxdepth.depthgen.cli.paths import user_path
from boxdepth.depthgen.cli.progress import show_progress
from boxdepth.depthgen.words import counted

_GATE_NOT_MET = 4
_FILE_WIDTH = 160

StoreArgument = Annotated[
    Path, typer.Argument(help="Folder of a store.", parser=user_path, metavar="STORE")
]


@app.command(epilog="Example: [bold]depthgen models --json[/]")
def models(json: Json = False) -> None:
    """List the depth models that have a name, with their licences."""
    from boxdepth.depthgen.models import MODELS, is_here

    rows = [asdict(entry) | {"here": is_here(entry)} for entry in MODELS]
    if json:
        emit({"models": rows})
        return
    show_table(
        ("name", "millions", "licence", "output", "here", "note", "hub id"),
        [
            (
                row["name"],
                f"{row['parameters']:g}",
                row["licence"] if row["commercial"] else f"{row['licence']} (!)",
                "metric depth" if row["kind"] == "metric" else "inverse depth",
                "yes" if row["here"] else "no",
                row["note"],
                row["hub_id"] or "part of this package",
            )
            for row in rows
        ],
    )
    say("(!) forbids commercial use: needs --allow-noncommercial")


@app.command(epilog="Example: [bold]depthgen info stores/coco-train2017.zarr[/]")
def info(store: StoreArgument, json: Json = False) -> None:
    """Say what a store holds and where it is from."""
    from boxdepth.depthgen.store import open_store
    from boxdepth.depthgen.summary import summarise_store

    facts = summarise_store(open_store(store))
    if json:
        emit(facts)
        return
    show_table((), _flat(facts))


@app.command(epilog="Example: [bold]depthgen verify stores/coco-train2017.zarr --deep[/]")
def verify(
    store: StoreArgument,
    deep: Annotated[bool, typer.Option("--deep", help="Hash every byte.")] = False,
    json: Json = False,
) -> None:
    """Check every object of a store against its record; exit 4 if one is damaged."""
    from boxdepth.depthgen.store import verify_store
    from boxdepth.depthgen.store.ranges import CURE

    with Progress(console=console, disable=not (deep and interactive())) as bar:
        task = bar.add_task("verify", total=None)
        found = verify_store(
            store, deep=deep, progress=lambda nbytes: bar.update(task, advance=nbytes)
        )
    for problem in found.problems:
        say(f"damaged: {problem}", style="red")
    if found.problems:
        say(CURE)
    if found.extra:
        warn(f"{len(found.extra)} files that no record names, such as {found.extra[0]}")
    if not found.problems:
        how = "hashed" if deep else "of the recorded size (--deep hashes them)"
        say(f"{store}: all {counted(found.objects, 'object')}, {found.nbytes / 1e6:,.1f} MB, {how}")
    if json:
        emit({"store": str(store), "deep": deep} | asdict(found) | {"ok": not found.problems})
    if found.problems:
        raise typer.Exit(_GATE_NOT_MET)


@app.command(epilog="Example: [bold]depthgen preview stores/coco-train2017.zarr --out pictures[/]")
def preview(
    store: StoreArgument,
    out: Annotated[
        Path, typer.Option(help="Folder for the pictures.", parser=user_path, metavar="DIR")
    ],
    image_id: Annotated[list[int] | None, typer.Option(help="Which images; repeatable.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many, if no id is given.")] = 8,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pictures.")] = False,
    json: Json = False,
) -> None:
    """Draw image, boxes and depth side by side, as PNG.

    The pairs that the losses trust are drawn by `trainer check-data STORE --preview DIR`.
    """
    from boxdepth.depthgen.preview import choose_images, draw_preview
    from boxdepth.depthgen.store import ConfigError, open_store

    opened = open_store(store)
    chosen = choose_images(opened, image_ids=image_id or [], count=count)
    pictures = [out / f"{int(opened.image_ids[index])}.png" for index in chosen]
    if not overwrite and (there := [picture for picture in pictures if picture.exists()]):
        raise ConfigError(f"{there[0]} is there already; name another --out, or add --overwrite")
    out.mkdir(parents=True, exist_ok=True)
    with show_progress("preview") as progress:
        for done, (index, picture) in enumerate(zip(chosen, pictures, strict=True), start=1):
            draw_preview(opened, index).save(picture)
            progress(done, len(chosen))
    say(f"{counted(len(pictures), 'picture')} in {out}")
    if json:
        emit({"store": str(store), "pictures": [str(picture) for picture in pictures]})


def show_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table on stderr; on a narrow terminal lines are folded, in a file they are not."""
    table = Table(box=None, show_header=bool(titles), pad_edge=False)
    for title in titles or ("", ""):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if not console.quiet:
        width = None if console.is_terminal else _FILE_WIDTH
        Console(stderr=True, highlight=False, width=width).print(table)


def _flat(facts: dict[str, Any], name: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        inner = f"{name}.{key}" if name else key
        if key == "boxes_per_class":
            rows.append((inner, _largest(value)))
        elif isinstance(value, dict):
            rows += _flat(value, inner)
        elif isinstance(value, float):
            rows.append((inner, f"{value:.4g}"))
        else:
            rows.append((inner, f"{value:,}" if type(value) is int else str(value)))
    return rows


def _largest(counts: dict[str, int], *, shown: int = 12) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    text = ", ".join(f"{name} {count:,}" for name, count in ordered[:shown])
    return text if len(ordered) <= shown else f"{text}, ... ({len(ordered)} classes)"
