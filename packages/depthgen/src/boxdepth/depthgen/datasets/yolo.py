"""YOLO's folders: one text file of normalised boxes or outlines an image, classes in data.yaml."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from boxdepth.depthgen.datasets.fields import Notes, shown
from boxdepth.depthgen.datasets.folder import list_images, note_listing
from boxdepth.depthgen.datasets.labelled import (
    Label,
    LabelledImages,
    read_class_list,
)
from boxdepth.depthgen.datasets.masks import run_length_mask
from boxdepth.depthgen.datasets.places import Tree, open_tree
from boxdepth.depthgen.datasets.records import Dataset, ImageFile, OnBad
from boxdepth.depthgen.store.errors import ConfigError, DataError
from boxdepth.depthgen.store.location import place_text

CONFIG_NAMES: Final = ("data.yaml", "data.yml", "dataset.yaml")
_SPLIT_NAMES: Final = {"val": ("val", "valid", "validation"), "valid": ("valid", "val")}
_FURTHEST: Final = 2.0
"""Normalised numbers beyond this are pixels, or nonsense; up to it, boxes are cut and counted."""

_BOX_NUMBERS: Final = 4


def read_yolo(
    root: Path,
    *,
    split: str,
    config: Path | None = None,
    masks: bool = False,
    on_bad: OnBad = OnBad.error,
) -> Dataset:
    """Read a split of a YOLO folder: detection boxes and segmentation outlines, also mixed.

    Classes and the places of the splits come from ``data.yaml`` (Ultralytics, Roboflow); without
    one from ``classes.txt`` and the folders ``images/<split>`` or ``<split>/images``. Labels lie
    where ``images`` is replaced by ``labels`` in the path, or beside the images. A line is ``class
    x y width height`` (of the centre) or ``class x1 y1 x2 y2 ...``, in shares of the image. An
    image without a label file is one without objects.

    Args:
        config: The ``data.yaml``, if it lies elsewhere or is called otherwise.

    Raises:
        ConfigError: The layout is not there.
        DataError: Labels that are not usable; all files are told together.
    """
    tree = open_tree(root if config is None else config.parent, what="YOLO folder")
    settings, file = _read_config(tree, config)
    folder = tree.images(_image_folder(tree, settings, split))
    listing = list_images(folder)
    classes = _classes(tree, settings, file)

    def parse(data: bytes, image: ImageFile, notes: Notes) -> list[Label]:
        return parse_labels(data, image, classes, masks=masks, notes=notes)

    images = LabelledImages(
        name="yolo", split=split, tree=tree, folder=folder, names=listing.names, classes=classes,
        label_file=lambda image: _label_file(image, folder.root), parse=parse, masks=masks,
        on_bad=on_bad,
    )  # fmt: skip
    note_listing(images.notes, listing, expected=(".txt", ".cache"))
    return images.dataset()


def parse_labels(
    data: bytes, image: ImageFile, classes: Sequence[str], *, masks: bool, notes: Notes
) -> list[Label]:
    """Read one label file.

    Raises:
        ValueError: A line that is no label; all of them are named.
    """
    labels, problems = [], []
    for number, line in enumerate(data.decode("utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            labels.append(_parse_line(line, image, classes, masks=masks, notes=notes))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        raise ValueError("; ".join(problems[:5]))
    return labels


def _parse_line(
    line: str, image: ImageFile, classes: Sequence[str], *, masks: bool, notes: Notes
) -> Label:
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError as error:
        raise ValueError(f"{shown(line)}: numbers are expected") from error
    label, values = numbers[0], numbers[1:]
    if not (0 <= label < len(classes) and label == int(label)):
        raise ValueError(f"class {label:g}, and there are {len(classes)} (0 to {len(classes) - 1})")
    if not all(math.isfinite(value) and abs(value) <= _FURTHEST for value in values):
        raise ValueError(f"{shown(line)}: numbers are shares of the image, from 0 to 1")
    name = classes[int(label)]
    if len(values) == _BOX_NUMBERS:
        return Label(name=name, xyxy=_from_center(values, image))
    if len(values) < 6 or len(values) % 2:
        raise ValueError(
            f"{len(values)} numbers behind the class; 4 (x y width height) or three and more pairs "
            "x y are expected"
        )
    points = [
        value * (image.width if k % 2 == 0 else image.height) for k, value in enumerate(values)
    ]
    notes.add("box", "around an outline of its own")
    mask = run_length_mask([points], height=image.height, width=image.width) if masks else None
    xs, ys = points[0::2], points[1::2]
    return Label(name=name, xyxy=(min(xs), min(ys), max(xs), max(ys)), mask=mask)


def _from_center(values: Sequence[float], image: ImageFile) -> tuple[float, float, float, float]:
    x, y, width, height = values
    if width < 0 or height < 0:
        raise ValueError("negative width or height")
    return (
        (x - width / 2) * image.width,
        (y - height / 2) * image.height,
        (x + width / 2) * image.width,
        (y + height / 2) * image.height,
    )


def _read_config(tree: Tree, config: Path | None) -> tuple[dict[str, Any], str]:
    """The settings of ``data.yaml`` and what that file is called; none without one."""
    for place in [config] if config else [tree.root / name for name in CONFIG_NAMES]:
        file = place_text(place)
        try:
            data = tree.read(place)
            settings = None if data is None else yaml.safe_load(data)
        except yaml.YAMLError as error:
            raise DataError(f"{file}: not YAML ({' '.join(str(error).split())})") from error
        except ValueError as error:
            raise DataError(f"{file}: {error}") from error
        if data is not None:
            return _checked(settings, file), file
    if config is not None:
        raise ConfigError(f"no such file: {place_text(config)}; --annotations names the data.yaml")
    return {}, str(tree)


def _checked(settings: Any, file: str) -> dict[str, Any]:
    if not isinstance(settings, dict):
        raise DataError(f"{file}: names, train and val are expected")
    if settings.get("kpt_shape"):
        raise DataError(f"{file}: labels of poses (kpt_shape) are not read; boxes or outlines are")
    return settings


def _classes(tree: Tree, settings: Mapping[str, Any], file: str) -> list[str]:
    names = settings.get("names")
    if isinstance(names, dict):
        numbers = sorted(names) if all(type(key) is int for key in names) else []
        if numbers != list(range(len(names))):
            raise DataError(f"{file}: names are numbered {list(names)[:9]}, 0, 1, ... is expected")
        names = [names[number] for number in numbers]
    if names is None:
        listed = read_class_list(tree, tree.root / "classes.txt")
        if listed is not None:
            return listed
        count = settings.get("nc")
        names = [f"class {k}" for k in range(count)] if type(count) is int else None
    if not isinstance(names, list) or not names:
        raise ConfigError(
            f"{tree}: no class names; expected names in data.yaml, or classes.txt with one a line"
        )
    texts = [str(name) for name in names]
    if len(set(texts)) != len(texts):
        raise DataError(f"{file}: a class name occurs twice")
    return texts


def _image_folder(tree: Tree, settings: Mapping[str, Any], split: str) -> Path:
    root = tree.root
    base = root / str(settings.get("path") or "")
    tried: list[Path] = []
    for name in _SPLIT_NAMES.get(split, (split,)):
        if (value := settings.get(name)) is not None:
            if not isinstance(value, str):
                raise DataError(f"{tree}: {name} in data.yaml is {shown(value)}, a folder expected")
            # Roboflow writes ../train/images for a folder beside the file.
            relative = value.removeprefix("../")
            tried += [base / value, root / value, base / relative, root / relative]
        tried += [root / "images" / name, root / name / "images", root / name]
    for folder in tried:
        if tree.is_folder(folder):
            return folder
    raise ConfigError(
        f"no YOLO split {split!r} in {tree}: no folder at "
        f"{', '.join(place_text(folder) for folder in dict.fromkeys(tried))}"
    )


def _label_file(image: ImageFile, root: Path) -> Path:
    """``labels`` in place of the last ``images`` of the path, else beside the image."""
    beside = (root / image.name).with_suffix(".txt")
    parts = list(beside.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            return Path(*parts)
    return beside
