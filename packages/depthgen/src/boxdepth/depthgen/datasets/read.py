"""One door to every layout that can be read."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from boxdepth.depthgen.datasets.cityscapes import read_cityscapes
from boxdepth.depthgen.datasets.coco import read_coco, read_custom
from boxdepth.depthgen.datasets.folder import read_folder
from boxdepth.depthgen.datasets.records import Dataset, OnBad
from boxdepth.depthgen.datasets.voc import read_voc
from boxdepth.depthgen.datasets.yolo import read_yolo
from boxdepth.depthgen.store.errors import ConfigError


class DatasetName(StrEnum):
    """Layouts that can be read."""

    coco = "coco"
    cityscapes = "cityscapes"
    custom = "custom"
    yolo = "yolo"
    voc = "voc"
    folder = "folder"


DEFAULT_SPLITS: Final = {DatasetName.coco: "train2017"}
"""Where it is not ``train``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a dataset lies.

    Attributes:
        data_root: ``coco``, ``cityscapes``, ``yolo``, ``voc``: the root of the layout.
        images: ``custom`` and ``folder``: the image folder.
        annotations: ``custom``: the COCO-format file; ``yolo``: the ``data.yaml``.
        split: ``None``: ``train2017`` for COCO, else ``train``.
    """

    data_root: Path | None = None
    images: Path | None = None
    annotations: Path | None = None
    split: str | None = None


def read_dataset(
    name: DatasetName | str,
    source: Source,
    *,
    masks: bool = False,
    on_bad: OnBad = OnBad.error,
) -> Dataset:
    """Read images and boxes in one of the layouts of ``DatasetName``.

    Args:
        masks: Read masks too, where the layout has some.
        on_bad: ``error`` raises what cannot be used, all of it at once; ``skip`` leaves it out and
            counts it in the report.

    Raises:
        ConfigError: The layout is not there, or an argument belongs to another one.
        DataError: The annotations are not usable.
        EnvironmentFailure: The disk fails.
    """
    layout = DatasetName(name)
    split = source.split or DEFAULT_SPLITS.get(layout, "train")
    _check(layout, source)
    root, images = source.data_root, source.images
    readers: dict[DatasetName, Callable[[], Dataset]] = {
        DatasetName.coco: lambda: read_coco(root, split=split, masks=masks, on_bad=on_bad),
        DatasetName.cityscapes: lambda: read_cityscapes(
            root, split=split, masks=masks, on_bad=on_bad
        ),
        DatasetName.custom: lambda: read_custom(
            root, images=images, annotations=source.annotations,
            split=split, masks=masks, on_bad=on_bad,
        ),
        DatasetName.yolo: lambda: read_yolo(
            root or Path(), split=split, config=source.annotations, masks=masks, on_bad=on_bad
        ),
        DatasetName.voc: lambda: read_voc(root or Path(), split=split, masks=masks, on_bad=on_bad),
        DatasetName.folder: lambda: read_folder(
            images or root or Path(), split=split, masks=masks, on_bad=on_bad
        ),
    }  # fmt: skip
    return readers[layout]()


def _check(layout: DatasetName, source: Source) -> None:
    if source.images and layout not in (DatasetName.custom, DatasetName.folder):
        raise ConfigError(
            f"--images belongs to --dataset custom and folder; --dataset {layout} takes --data-root"
        )
    if source.annotations and layout not in (DatasetName.custom, DatasetName.yolo):
        raise ConfigError("--annotations belongs to --dataset custom and yolo")
    if layout is DatasetName.folder and not (source.images or source.data_root):
        raise ConfigError("--dataset folder: give --images DIR")
    if layout is DatasetName.voc and not source.data_root:
        raise ConfigError("--dataset voc: give --data-root DIR")
    if layout is DatasetName.yolo and not (source.data_root or source.annotations):
        raise ConfigError("--dataset yolo: give --data-root DIR, or --annotations data.yaml")
