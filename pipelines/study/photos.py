"""The study on real photographs, with a frozen backbone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer

from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.config.presets import PRESETS
from paper.rows import Row, with_short_teacher
from stages import ensure_imported_store, ensure_store
from study.study import VARIANTS, Study

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
        return row.of(with_short_teacher(base))

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
        source = ("--dataset", "custom", *labels, "--split", split, "--with-masks")
        ensure_store(store, *source, *model, title=f"Pseudo-depth for {split}")
