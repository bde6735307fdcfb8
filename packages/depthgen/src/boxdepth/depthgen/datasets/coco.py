"""COCO's annotation format: the official layout, and anyone's own folder and file."""

from pathlib import Path

from boxdepth.depthgen.datasets.coco_file import read_coco_file
from boxdepth.depthgen.datasets.folder import read_folder
from boxdepth.depthgen.datasets.places import is_file, is_folder
from boxdepth.depthgen.datasets.records import Dataset, OnBad, find_root, require_folder
from boxdepth.depthgen.store.errors import ConfigError
from boxdepth.depthgen.store.location import is_remote

ROOT_VARIABLES = ("BOXDEPTH_DATA", "DETECTRON2_DATASETS")
ROBOFLOW_NAME = "_annotations.coco.json"


def read_coco(
    data_root: Path | None, *, split: str, masks: bool = False, on_bad: OnBad = OnBad.error
) -> Dataset:
    """Read a split of COCO in its official layout.

    The root is ``data_root``, else ``$BOXDEPTH_DATA``, else ``$DETECTRON2_DATASETS``, else
    ``./datasets``; COCO lies in its folder ``coco``, or fills the root itself.

    Args:
        split: Such as ``train2017``: the folder of that name, and
            ``annotations/instances_<split>.json`` or, for splits without boxes (``unlabeled2017``,
            ``test2017``, ``test-dev2017``), ``annotations/image_info_<split>.json``.

    Raises:
        ConfigError: The layout is not there.
        DataError: The annotations are not usable.
    """
    root = find_root(data_root, variables=ROOT_VARIABLES)
    for candidate in (root / "coco", root):
        images = candidate / split.replace("test-dev", "test")
        for kind in ("instances", "image_info"):
            annotations = candidate / "annotations" / f"{kind}_{split}.json"
            if is_file(annotations) and is_folder(images):
                return read_coco_file(
                    images, annotations, name="coco", split=split, masks=masks, on_bad=on_bad
                )
    raise ConfigError(
        f"no COCO split {split!r} under {root}: expected {split}/ and "
        f"annotations/instances_{split}.json in {root / 'coco'} or in {root} itself; "
        "give --data-root, or set BOXDEPTH_DATA"
    )


def read_custom(
    data_root: Path | None,
    *,
    images: Path | None,
    annotations: Path | None,
    split: str,
    masks: bool = False,
    on_bad: OnBad = OnBad.error,
) -> Dataset:
    """Read one's own images with a COCO-format file.

    Give ``images`` and ``annotations``; or only ``images`` with ``_annotations.coco.json`` in it
    (without it, they are images without annotations, and the report says so); or a data root in
    Roboflow's layout, ``<root>/<split>/_annotations.coco.json`` beside the images.

    Raises:
        ConfigError: Neither is there.
        DataError: The annotations are not usable.
    """
    folder = images or (annotations.parent if annotations else None)
    if folder is None:
        folder = find_root(data_root, variables=ROOT_VARIABLES) / split
    if not is_remote(folder):
        require_folder(folder, what="image folder")
    file = annotations or folder / ROBOFLOW_NAME
    if images and annotations is None and not is_file(file):
        return read_folder(images, split=split, name="custom", masks=masks, on_bad=on_bad)
    if not is_file(file):
        raise ConfigError(f"no annotation file at {file}; give --annotations FILE")
    return read_coco_file(folder, file, name="custom", split=split, masks=masks, on_bad=on_bad)
