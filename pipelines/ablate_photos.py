"""Does depth help on real photographs? The method's rows on a small set, with a frozen backbone.

    python pipelines/ablate_photos.py --photos coco --weights mobilenetv2.safetensors --out photos

takes a folder in COCO's layout (or `images/`, `instances_train.json`, `instances_val.json`) and the
weights of a small timm backbone that stays frozen (ImageNet, mean = std = 0.5), generates
pseudo-depth, trains every variant with every seed, scores masks on the validation photographs, and
writes `ablation.md`. Finished runs are kept, interrupted ones resume.

The depth model that comes with BoxDepth has seen drawn scenes only. Name one that knows
photographs with `--depth-model` (`depthgen models` lists them) wherever it can be downloaded, or
give depth that a sensor has measured, in files of the photographs' stems:

    python pipelines/ablate_photos.py --photos potholes --depth potholes/depth16 \\
        --depth-kind height --weights mobilenetv2.safetensors --seeds 5 --out measured
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ablation import VARIANTS, Study, choose, refuse_other_study, run_all
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.config.presets import PRESETS
from paper_rows import Row, short_run_teacher
from stages import ensure_imported_store, ensure_store

GENERALISING = (
    'data.augmentation={"short_sides": [224, 256, 288], "max_size": 432, "flip": 0.5}',
    "schedule.iterations=400",
    "schedule.steps=[300, 360]",
    "losses.warmup_iterations=150",
    "model.mask_head.depth=sum",
    "losses.consistency_region=image",
)
"""What turns the preset that learns a few photographs by heart into one that meets others; the
depth terms as in `scenes_tiny`, which is as short."""

FOUR_ROWS = ("boxinst", "both", "distill", "condinst")

MEASURED_ROWS = ("boxinst", "depth", "cons", "both", "cons-alone", "condinst")

MEASURED = ("losses.consistency_region=box", "losses.pairs.dilation=1")
"""Measured depth has edges where the objects end, so its pairs are looked at in the box, as the
paper does; the photographs are too small for neighbours two cells apart."""

BACKBONES: Mapping[str, tuple[str, ...]] = {
    "mobilenetv2_100": (),
    "tf_efficientnet_lite2": (
        "model.backbone.name=tf_efficientnet_lite2",
        "model.backbone.extra={}",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """Where the depth comes from."""

    model: str | None = None
    """`depthgen run --model`; None is its default."""
    measured: Path | None = None
    """Folder of depth maps, one a photograph, by stem."""
    kind: str = "metric"
    metres: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotosStudy(Study):
    """On photographs in COCO's layout."""

    photos: Path
    subset: str
    """Annotation files are `<subset>_train2017.json` and `<subset>_val2017.json`, in a flat folder
    `<subset>_train.json` and `<subset>_val.json`."""
    weights: Path
    backbone: str = "mobilenetv2_100"
    depth: Depth = Depth()

    @property
    def flat(self) -> bool:
        """Annotation files and `images/` side by side, instead of COCO's layout."""
        return not (self.photos / "annotations").is_dir()

    def labels(self, split: str) -> Path:
        """Annotations of a split."""
        if self.flat:
            return self.photos / f"{self.subset}_{split.removesuffix('2017')}.json"
        return self.photos / "annotations" / f"{self.subset}_{split}.json"

    def images(self, split: str) -> Path:
        """Photographs of a split."""
        return self.photos / ("images" if self.flat else split)

    @property
    def annotations(self) -> Path:
        """Annotations that the masks are judged by."""
        return self.labels("val2017")

    def store(self, split: str, *, exact: bool = False) -> Path:
        """The store of a split; exact depth there is none."""
        if exact:
            raise typer.BadParameter("the depth of photographs is not known exactly")
        return self.out / "stores" / f"{split}.zarr"

    def row_config(self, row: Row) -> RunConfig:
        """A row of the paper with the small backbone."""
        preset = PRESETS["coco_photos_mobilenet"]()
        weights = f"model.backbone.weights={self.weights}"
        measured = MEASURED if self.depth.measured else ()
        base = apply_overrides(
            preset, [*GENERALISING, *measured, *BACKBONES[self.backbone], weights]
        )
        return apply_overrides(base, [f"name={row.name}", *short_run_teacher(base), *row.method])

    def about(self) -> str:
        """Photographs, depth, length."""
        config = VARIANTS["both"].config(self)
        length = f"{config.schedule.iterations} iterations of {config.data.batch_size}"
        depth = "measured depth, " if self.depth.measured else ""
        return f"Photographs ({self.subset}), {depth}frozen {self.backbone}, {length}"


def prepare(study: PhotosStudy) -> None:
    """Make the stores, as far as they are missing."""
    for split in ("train2017", "val2017"):
        store, depth = study.store(split), study.depth
        labels = ("--images", str(study.images(split)), "--annotations", str(study.labels(split)))
        if depth.measured is not None:
            metres = ("--metres", str(depth.metres)) if depth.metres else ()
            kind = ("--kind", depth.kind, *metres)
            title = f"Measured depth of {split}"
            ensure_imported_store(store, depth.measured, *kind, *labels, title=title)
            continue
        model = ("--model", depth.model) if depth.model else ()
        source = ("--dataset", "custom", *labels, "--split", split)
        ensure_store(store, *source, *model, title=f"Pseudo-depth for {split}")


def main(
    photos: Annotated[Path, typer.Option(help="Folder in COCO's layout.")],
    weights: Annotated[Path, typer.Option(help="Weights of the backbone.")],
    out: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("photos"),
    subset: Annotated[str, typer.Option(help="Annotation files begin so.")] = "instances",
    backbone: Annotated[
        str, typer.Option(help=f"One of {', '.join(BACKBONES)}.")
    ] = "mobilenetv2_100",
    depth_model: Annotated[str | None, typer.Option(help="See `depthgen models`.")] = None,
    depth: Annotated[
        Path | None, typer.Option(help="Depth that was measured: a folder, by file stem.")
    ] = None,
    depth_kind: Annotated[str, typer.Option(help="metric, inverse or height.")] = "metric",
    metres: Annotated[float | None, typer.Option(help="Of one step of metric depth.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Variants.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda...")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Passed to every run; use another --out.")
    ] = None,
) -> None:
    """Train the method's rows on photographs and tabulate mask AP."""
    names = choose(only, MEASURED_ROWS if depth else FOUR_ROWS)
    if backbone not in BACKBONES:
        raise typer.BadParameter(f"no backbone {backbone}; there are {', '.join(BACKBONES)}")
    if depth is not None and depth_model is not None:
        raise typer.BadParameter("--depth-model predicts depth, --depth has it: give one of them")
    study = PhotosStudy(
        out=out,
        device=device,
        settings=tuple(settings or ()),
        photos=photos,
        subset=subset,
        weights=weights.absolute(),
        backbone=backbone,
        depth=Depth(model=depth_model, measured=depth, kind=depth_kind, metres=metres),
    )
    out.mkdir(parents=True, exist_ok=True)
    refuse_other_study(study)
    prepare(study)
    print(run_all(study, names, seeds=seeds, jobs=jobs))


if __name__ == "__main__":
    typer.run(main)
