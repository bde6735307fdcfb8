"""Does depth help on real photographs? The method's rows on a small set, with a frozen backbone.

    python pipelines/ablate_photos.py --photos coco --weights mobilenetv2.safetensors --out photos

takes a folder in COCO's layout and the weights of `mobilenetv2_100` (ImageNet, mean = std = 0.5,
pad_type "same"), generates pseudo-depth, trains every variant with every seed, scores masks on the
validation photographs, and writes `ablation.md`. Finished runs are kept, interrupted ones resume.

The depth model that comes with BoxDepth has seen drawn scenes only. Name one that knows photographs
with `--depth-model` (`depthgen models` lists them) wherever it can be downloaded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ablation import VARIANTS, Study, choose, refuse_other_study, run_all
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.config.presets import PRESETS
from paper_rows import Row, short_run_teacher
from stages import ensure_store

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotosStudy(Study):
    """On photographs in COCO's layout."""

    photos: Path
    subset: str
    """Annotation files are `<subset>_train2017.json` and `<subset>_val2017.json`."""
    weights: Path

    def labels(self, split: str) -> Path:
        """Annotations of a split."""
        return self.photos / "annotations" / f"{self.subset}_{split}.json"

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
        base = apply_overrides(preset, [*GENERALISING, weights])
        return apply_overrides(base, [f"name={row.name}", *short_run_teacher(base), *row.method])

    def about(self) -> str:
        """Photographs, length."""
        config = VARIANTS["both"].config(self)
        length = f"{config.schedule.iterations} iterations of {config.data.batch_size}"
        return f"Photographs ({self.subset}), frozen MobileNetV2, {length}"


def prepare(study: PhotosStudy, depth_model: str | None) -> None:
    """Make the stores, as far as they are missing."""
    for split in ("train2017", "val2017"):
        source = ("--dataset", "custom", "--images", str(study.photos / split))
        model = ("--model", depth_model) if depth_model else ()
        labels = ("--annotations", str(study.labels(split)), "--split", split)
        ensure_store(
            study.store(split), *source, *labels, *model, title=f"Pseudo-depth for {split}"
        )


def main(
    photos: Annotated[Path, typer.Option(help="Folder in COCO's layout.")],
    weights: Annotated[Path, typer.Option(help="Weights of the MobileNetV2.")],
    out: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("photos"),
    subset: Annotated[str, typer.Option(help="Annotation files begin so.")] = "instances",
    depth_model: Annotated[str | None, typer.Option(help="See `depthgen models`.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Variants.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda...")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Passed to every run; use another --out.")
    ] = None,
) -> None:
    """Train the method's rows on photographs and tabulate mask AP."""
    names = choose(only, FOUR_ROWS)
    study = PhotosStudy(
        out=out,
        device=device,
        settings=tuple(settings or ()),
        photos=photos,
        subset=subset,
        weights=weights.absolute(),
    )
    out.mkdir(parents=True, exist_ok=True)
    refuse_other_study(study)
    prepare(study, depth_model)
    print(run_all(study, names, seeds=seeds, jobs=jobs))


if __name__ == "__main__":
    typer.run(main)
