"""``depthgen export`` and ``depthgen import``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boxdepth.depthgen.cli import run_options as options
from boxdepth.depthgen.cli.app import Json, app, emit, say, warn
from boxdepth.depthgen.cli.progress import show_progress
from boxdepth.depthgen.cli.run import parse_size
from boxdepth.depthgen.datasets.records import OnBad
from boxdepth.depthgen.store.errors import ConfigError
from boxdepth.depthgen.words import counted

if TYPE_CHECKING:
    import numpy as np

    from boxdepth.depthgen.datasets.records import Dataset
    from boxdepth.depthgen.exchange import DepthMeaning, Imported
    from boxdepth.depthgen.exchange.depth_files import DepthSource

_SUFFIXES = {".h5": "hdf5", ".hdf5": "hdf5", ".parquet": "parquet", ".json": "coco"}
_LARGEST_SIDE = 384


class ExportFormat(StrEnum):
    """What a store can be written as."""

    hdf5 = "hdf5"
    webdataset = "webdataset"
    parquet = "parquet"
    coco = "coco"


class KindName(StrEnum):
    """What depth that was made elsewhere says."""

    metric = "metric"
    inverse = "inverse"
    height = "height"


class SignName(StrEnum):
    """Which of two points has the larger number."""

    near_large = "near-large"
    far_large = "far-large"


@app.command(
    epilog="Examples: [bold]depthgen export stores/mine.zarr mine.h5[/]   "
    "[bold]depthgen export stores/mine.zarr boxes.json --to coco[/]"
)
def export(
    store: Annotated[str, typer.Argument(help="Path or URL of a store.")],
    out: Annotated[Path, typer.Argument(help="File, or folder for webdataset.")],
    to: Annotated[ExportFormat | None, typer.Option(help="Default: as OUT ends.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json: Json = False,
) -> None:
    """Write a store as HDF5, WebDataset, Parquet or COCO annotations."""
    from boxdepth.depthgen.exchange import export_store
    from boxdepth.depthgen.store import open_store

    chosen = to.value if to else _SUFFIXES.get(out.suffix.lower())
    if chosen is None:
        raise ConfigError(f"{out}: say what it is to be: --to {' | '.join(ExportFormat)}")
    opened = open_store(store)
    with show_progress("export") as progress:
        nbytes = export_store(opened, out, to=chosen, overwrite=overwrite, progress=progress)
    say(
        f"{out}: {counted(len(opened), 'image')} as {chosen}, {nbytes / 1e6:,.1f} MB", style="green"
    )
    if json:
        emit(
            {"store": store, "out": str(out), "to": chosen, "images": len(opened), "bytes": nbytes}
        )


Source = Annotated[
    Path, typer.Argument(help="A file of `export`, an HDF5 file or a folder of depth maps.")
]
StoreToMake = Annotated[str, typer.Argument(help="Path or URL of the store to make.")]
Kind = Annotated[
    KindName | None,
    typer.Option(help="metric: distance; inverse: disparity, 1/z; height: above a plane."),
]
Sign = Annotated[SignName | None, typer.Option(help="Default: metric far-large, else near-large.")]
Metres = Annotated[float | None, typer.Option(help="Metres of one step (0.001 for millimetres).")]
Holes = Annotated[
    list[float] | None,
    typer.Option(help="Number that means not measured; repeatable. Default: 0 (and NaN)."),
]
NoHoles = Annotated[bool, typer.Option("--no-holes", help="0 is a number like any other.")]
Key = Annotated[str | None, typer.Option(help="Data set or group in the HDF5 file.")]


@app.command(
    "import",
    epilog="Examples: [bold]depthgen import mine.h5 stores/mine.zarr[/]   "
    "[bold]depthgen import depth16/ stores/road.zarr --kind inverse --images images "
    "--annotations boxes.json[/]   "
    "[bold]depthgen import kinect.h5 stores/lab.zarr --kind metric --metres 0.001 --images rgb "
    "--annotations boxes.json[/]",
)
def import_(
    source: Source,
    store: StoreToMake,
    kind: Kind = None,
    sign: Sign = None,
    metres: Metres = None,
    hole: Holes = None,
    no_holes: NoHoles = False,
    key: Key = None,
    images: options.Images = None,
    annotations: options.Annotations = None,
    with_masks: options.WithMasks = False,
    unit: options.Unit = None,
    depth_grid: options.DepthGrid = None,
    on_bad: options.OnBadOption = OnBad.error,
    overwrite: options.Overwrite = False,
    json: Json = False,
) -> None:
    """Make a store with depth that was made or measured elsewhere.

    Depth maps are found by the image's id (HDF5) or by its file's stem (folder of PNG, NPY, TIFF,
    EXR). Holes of a sensor become invalid; they are never near.
    """
    from boxdepth.depthgen.datasets.coco import read_custom
    from boxdepth.depthgen.exchange import import_depth

    if kind is None:
        _import_file(source, store, overwrite=overwrite, json=json)
        return
    grid = parse_size(depth_grid, option="--depth-grid") if depth_grid else None
    data = read_custom(
        None, split="train", images=images, annotations=annotations, masks=with_masks, on_bad=on_bad
    )
    maps, first = _depth_maps(source, key, data)
    holes = () if no_holes else tuple(hole or (0.0,))
    meaning = _meaning(kind, sign, _metres(metres, kind, first, source), holes)
    side = min(_LARGEST_SIDE, *first.shape)
    with show_progress("import") as progress:
        done = import_depth(
            data,
            maps,
            meaning,
            store=store,
            grid=grid or (side, side),
            unit=unit or 256,
            masks=with_masks,
            on_bad=on_bad,
            overwrite=overwrite,
            progress=progress,
        )
    _conclude(store, done, json=json)


def _import_file(source: Path, store: str, *, overwrite: bool, json: bool) -> None:
    """A store from a file of `export`, which says itself what its numbers mean."""
    from boxdepth.depthgen.exchange import import_hdf5, is_exchange_file

    if not is_exchange_file(source):
        raise ConfigError(
            "--kind metric|inverse|height: what the numbers mean cannot be known; a wrong guess "
            "swaps near and far"
        )
    with show_progress("import") as progress:
        count = import_hdf5(source, store, overwrite=overwrite, progress=progress)
    say(f"finished {store}: {counted(count, 'image')}", style="green")
    if json:
        emit({"store": store, "images": count})


def _depth_maps(source: Path, key: str | None, data: "Dataset") -> "tuple[DepthSource, np.ndarray]":
    """The depth maps, and the first of them."""
    from boxdepth.depthgen.exchange.depth_files import open_source

    maps = open_source(source, key=key)
    first = next((d for r in data.records if (d := maps.read(r)) is not None), None)
    if first is None:
        raise ConfigError(f"{source}: no depth map for any of the {len(data.records)} images")
    return maps, first


def _metres(given: float | None, kind: KindName, first: "np.ndarray", source: Path) -> float:
    if kind is KindName.metric and given is None and first.dtype.kind != "f":
        raise ConfigError(
            f"{source}: whole numbers as distances: say how many metres one step is, "
            "such as --metres 0.001"
        )
    return given or 1.0


def _meaning(
    kind: KindName, sign: SignName | None, metres: float, holes: tuple[float, ...]
) -> "DepthMeaning":
    from boxdepth.depthgen.exchange import DepthMeaning

    return DepthMeaning(
        kind=kind.value, sign=sign.value if sign else None, metres=metres, holes=holes
    )


def _conclude(store: str, done: "Imported", *, json: bool) -> None:
    for number, reason in list(done.skipped.items())[:20]:
        warn(f"image {number} skipped: {reason}")
    if done.without_depth:
        warn(f"no usable depth (kept, marked invalid): {counted(done.without_depth, 'image')}")
    usable = done.images - len(done.skipped)
    say(
        f"finished {store}: {counted(usable, 'image')}, {done.nbytes / 1e6:,.1f} MB, holes in "
        f"{done.hole_share:.1%} of the depth (invalid)",
        style="green",
    )
    if json:
        emit(
            {
                "store": store, "images": done.images, "skipped": len(done.skipped),
                "without_depth": done.without_depth, "hole_share": done.hole_share,
                "shards": done.shards, "bytes": done.nbytes,
            }
        )  # fmt: skip
