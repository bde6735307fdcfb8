"""Pascal VOC's layout: one XML file of boxes an image."""

import math
from pathlib import Path
from typing import Any, Final

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from boxdepth.depthgen.datasets.fields import Notes, shown
from boxdepth.depthgen.datasets.folder import list_images, note_listing
from boxdepth.depthgen.datasets.labelled import (
    Label,
    LabelledImages,
    read_class_list,
)
from boxdepth.depthgen.datasets.places import Tree, open_tree
from boxdepth.depthgen.datasets.records import Dataset, ImageFile, OnBad
from boxdepth.depthgen.store.errors import ConfigError
from boxdepth.depthgen.store.images import IMAGE_SUFFIXES
from boxdepth.depthgen.store.location import place_text

_IMAGE_FOLDERS: Final = ("JPEGImages", "images", "Images")
_LABEL_FOLDERS: Final = ("Annotations", "annotations", "labels")
_SIDES: Final = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    root: Path, *, split: str, masks: bool = False, on_bad: OnBad = OnBad.error
) -> Dataset:
    """Read a split of a VOC folder: the official layout, or XML files beside their images.

    The official layout has ``JPEGImages``, ``Annotations`` and, for its splits,
    ``ImageSets/Main/<split>.txt`` (without it, all images); otherwise images and XML files lie
    together in ``<root>/<split>`` or ``<root>`` (Roboflow, LabelImg). An XML file belongs to the
    image of the same name. Classes are those that occur, in order of names, or the lines of
    ``classes.txt``. Coordinates are taken as the edges of the box, counted from 0; in files of the
    PASCAL VOC challenge itself they are indices of pixels, counted from 1 (their ``<source>`` says
    so), and xmin and ymin lose one. An image without a file is one without objects.

    Raises:
        ConfigError: The layout is not there.
        DataError: Files that are not usable; all of them are told together.
    """
    tree = open_tree(root, what="VOC folder")
    images, labels = _folders(tree, split)
    folder = tree.images(images)
    listing = list_images(folder)
    wanted = _split_names(tree, split)
    names = listing.names if wanted is None else _of_split(listing.names, wanted)
    classes = read_class_list(tree, tree.root / "classes.txt")

    def parse(data: bytes, image: ImageFile, notes: Notes) -> list[Label]:
        found = parse_voc(data, image, notes=notes)
        for item in found:
            if classes is not None and item.name not in classes:
                raise ValueError(f"class {item.name!r} is not in classes.txt")
        return found

    reading = LabelledImages(
        name="voc", split=split, tree=tree, folder=folder, names=names, classes=classes,
        label_file=lambda image: (labels / image.name).with_suffix(".xml"), parse=parse,
        masks=masks, on_bad=on_bad,
    )  # fmt: skip
    note_listing(reading.notes, listing, expected=(".xml",))
    return reading.dataset()


def parse_voc(data: bytes, image: ImageFile, *, notes: Notes) -> list[Label]:
    """Read one XML file.

    Raises:
        ValueError: Not XML, with entities or a document type, of another image size, or an object
            without a name or box.
    """
    try:
        tree: Any = ElementTree.fromstring(data, forbid_dtd=True)
    except ElementTree.ParseError as error:
        raise ValueError(f"not XML ({error})") from error
    except DefusedXmlException as error:
        raise ValueError("XML with a document type or entities is not read") from error
    _check_size(tree, image, notes)
    official = "PASCAL VOC" in (tree.findtext("source/annotation") or "")
    labels = []
    for index, item in enumerate(tree.findall("object")):
        name = (item.findtext("name") or "").strip()
        if not name:
            raise ValueError(f"object {index} has no name")
        left, top, right, bottom = _sides(item, index)
        if official:
            left, top = left - 1, top - 1
        if (item.findtext("difficult") or "0").strip() not in ("0", ""):
            notes.add("box", "marked difficult, kept")
        labels.append(Label(name=name, xyxy=(left, top, right, bottom)))
    if official:
        notes.add("file", "of PASCAL VOC: indices of pixels counted from 1")
    return labels


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return math.nan


def _sides(item: Any, index: int) -> tuple[float, float, float, float]:
    values = []
    for side in _SIDES:
        text = item.findtext(f"bndbox/{side}")
        value = _number(text)
        if not abs(value) <= 1e9:
            raise ValueError(f"object {index}: {side} is {shown(text)}, a number is expected")
        values.append(value)
    left, top, right, bottom = values
    if right < left or bottom < top:
        raise ValueError(f"object {index}: box {values} has its far side before its near one")
    return left, top, right, bottom


def _check_size(tree: Any, image: ImageFile, notes: Notes) -> None:
    said = [(tree.findtext(f"size/{side}") or "0").strip() for side in ("height", "width")]
    if said == ["0", "0"]:  # LabelImg and others leave it out
        notes.add("file", "without the size of its image")
        return
    if [_number(text) for text in said] != [image.height, image.width]:
        raise ValueError(
            f"the file says {'x'.join(said)} (height x width), the image is "
            f"{image.height}x{image.width}; its boxes may be of another version of the image"
        )


def _folders(tree: Tree, split: str) -> tuple[Path, Path]:
    """Where the images and where the XML files are."""
    root = tree.root
    for labels in _LABEL_FOLDERS:
        for images in _IMAGE_FOLDERS:
            if tree.is_folder(root / labels) and tree.is_folder(root / images):
                inner = split if tree.is_folder(root / images / split) else ""
                return root / images / inner, root / labels / inner
    for folder in (root / split, root):
        if tree.is_folder(folder) and any(file.suffix == ".xml" for file in tree.files(folder)):
            return folder, folder
    where = place_text(root)
    raise ConfigError(
        f"no VOC split {split!r} in {where}: neither JPEGImages/ with Annotations/ nor XML files "
        f"beside the images in {place_text(root / split)} or {where}"
    )


def _split_names(tree: Tree, split: str) -> list[str] | None:
    sets = tree.root / "ImageSets" / "Main"
    data = tree.read(sets / f"{split}.txt")
    if data is None:
        if tree.is_folder(sets):
            raise ConfigError(f"no ImageSets/Main/{split}.txt in {tree}; --split names another one")
        return None
    lines = data.decode("utf-8-sig", errors="replace").splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def _of_split(names: tuple[str, ...], wanted: list[str]) -> tuple[str, ...]:
    by_stem = {str(Path(name).with_suffix("")): name for name in names}
    if missing := [stem for stem in wanted if stem not in by_stem]:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ConfigError(
            f"{len(missing)} images of the split are not there (first: {missing[0]!a}, with one of "
            f"{endings})"
        )
    return tuple(sorted(by_stem[stem] for stem in set(wanted)))
