"""What a row of the paper's tables needs before it can be trained: data, stores, configuration."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.errors import ConfigError
from paper.rows import ROWS, DataName, Row, config_of
from stages import call, draw, ensure_store


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
    nested = data == "coco" and not (root / "annotations").is_dir()
    folder = root / "coco" if nested else root
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


def init_options(row: Row, data: DataName, out: Path, scale: float) -> tuple[str, ...]:
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


def prepare(data: DataName, source: Source, scenes: Path, counts: tuple[int, int]) -> None:
    """Draw scenes and generate stores where they are missing."""
    if data == "scenes":
        draw(scenes, "--train", str(counts[0]), "--val", str(counts[1]))
    masks = "--with-masks"
    ensure_store(source.train, *source.train_options, masks, title="Pseudo-depth, training images")
    ensure_store(source.val, *source.val_options, masks, title="Pseudo-depth, validation images")
    if source.gt_fine is not None and not source.annotations.is_file():
        where = (str(source.gt_fine), str(source.annotations))
        call("Cityscapes annotations", "evaluate", "convert", "cityscapes-to-coco", *where)


def write_config(
    row: Row,
    data: DataName,
    scale: float,
    folder: Path,
    *,
    settings: Sequence[str],
    backbone_weights: Path | None,
    seed: int,
) -> Path:
    """The row's configuration as a file that `trainer fit --config` takes.

    Raises:
        typer.BadParameter: a setting is unknown or out of range.
    """
    try:
        config = apply_overrides(config_of(row, data, scale=scale), settings)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from error
    unseen = config.data.changed(train=None, val=None)
    config = config.changed(seed=seed, data=unseen)
    if backbone_weights is not None:
        backbone = config.model.backbone.changed(weights=backbone_weights)
        config = config.changed(model=config.model.changed(backbone=backbone))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "asked.json"
    path.write_text(config.model_dump_json(indent=2) + "\n")
    return path
