"""Cityscapes in its official layout: boxes around the visible pixels of the eight thing classes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Int32
from PIL import Image, ImageDraw
from scipy import ndimage

from boxdepth.depthgen.datasets.fields import MAX_SIDE, Notes, finite, side
from boxdepth.depthgen.datasets.folder import AT_ONCE
from boxdepth.depthgen.datasets.masks import encode_mask
from boxdepth.depthgen.datasets.paths import hidden
from boxdepth.depthgen.datasets.places import Images, LocalTree, RemoteTree, Tree
from boxdepth.depthgen.datasets.records import (
    Dataset,
    DatasetReport,
    OnBad,
    find_root,
    parse_json,
    settle,
)
from boxdepth.depthgen.store.errors import ConfigError, EnvironmentFailure
from boxdepth.depthgen.store.images import MAX_PIXELS
from boxdepth.depthgen.store.location import is_remote, place_text
from boxdepth.depthgen.store.remote_file import RemoteFile
from boxdepth.depthgen.store.schema import Category, ImageRecord

THING_CLASSES: Final = (
    Category(id=24, name="person"),
    Category(id=25, name="rider"),
    Category(id=26, name="car"),
    Category(id=27, name="truck"),
    Category(id=28, name="bus"),
    Category(id=31, name="train"),
    Category(id=32, name="motorcycle"),
    Category(id=33, name="bicycle"),
)
"""The classes of the official instance benchmark, with Cityscapes' label ids."""

_LABELS: Final = {category.id: label for label, category in enumerate(THING_CLASSES)}
_IDS: Final = {category.name: category.id for category in THING_CLASSES}
_INSTANCES_PER_CLASS: Final = 1000
_MAX_INSTANCE_ID: Final = (1 << 16) - 1
DRAWN_CITY: Final = "scenes"
"""The city of `depthgen sample --layout cityscapes`."""

_IMAGE_SUFFIX: Final = "_leftImg8bit.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instance:
    label: int
    crowd: bool
    xyxy: tuple[float, float, float, float]
    area: int
    mask: dict[str, Any] | None


class _Labelled(NamedTuple):
    path: Path | RemoteFile
    name: str
    size: tuple[int, int]
    instances: list[_Instance]


def read_cityscapes(
    data_root: Path | None, *, split: str, masks: bool = False, on_bad: OnBad = OnBad.error
) -> Dataset:
    """Read a split from ``leftImg8bit`` and ``gtFine``.

    The boxes enclose the visible pixels, from ``*_gtFine_instanceIds.png`` or, where that is
    missing, drawn from ``*_gtFine_polygons.json`` in their order (later polygons cover earlier
    ones, as the official scripts do it). Regions labelled as a group (``cargroup``) become one
    crowd box a class. Image ids are 1-based in the order of ``<city>/<file>``; annotation ids run
    through the split.

    Raises:
        ConfigError: The layout is not there.
        DataError: Annotations are missing or damaged.
    """
    tree = _find_layout(data_root, split)
    folder, labels = (tree.root / kind / split for kind in ("leftImg8bit", "gtFine"))
    images = [
        image
        for image in tree.files(folder)
        if image.name.endswith(_IMAGE_SUFFIX)
        and image.parent.parent == folder
        and not hidden(image.relative_to(folder))
    ]
    problems: list[str] = []
    pictures = tree.images(folder)

    def read(image: Path) -> _Labelled | str:
        return _try_read(tree, labels, pictures, image.relative_to(folder), masks)

    with ThreadPoolExecutor(AT_ONCE if isinstance(tree, RemoteTree) else None) as pool:
        read_all = list(pool.map(read, images))
    found: list[tuple[int, _Labelled]] = []
    for number, (image, item) in enumerate(zip(images, read_all, strict=True), start=1):
        if isinstance(item, str):
            problems.append(f"{image.name}: {item}")
        else:
            found.append((number, item))
    rejected = settle(problems, source=place_text(labels), on_bad=on_bad)
    starts = accumulate((len(labelled.instances) for _, labelled in found), initial=1)
    records = tuple(
        _record(labelled, number=number, first_box=first, masks=masks)
        for (number, labelled), first in zip(found, starts, strict=False)
    )
    notes = Notes()
    notes.add("image", "a link that leads out of the image folder", pictures.links_followed)
    report = DatasetReport(
        crowds=sum(int(record.crowd.sum()) for record in records),
        images_without_boxes=sum(1 for record in records if not len(record.labels)),
        rejected=rejected,
        notes=notes.lines(),
    )
    return Dataset(
        name="cityscapes",
        split=split,
        categories=THING_CLASSES,
        records=records,
        report=report,
        drawn=bool(images) and all(image.parent.name == DRAWN_CITY for image in images),
    )


def _find_layout(data_root: Path | None, split: str) -> Tree:
    """The folder that holds ``leftImg8bit`` and ``gtFine``."""
    variables = ("CITYSCAPES_DATASET", "BOXDEPTH_DATA", "DETECTRON2_DATASETS")
    root = find_root(data_root, variables=variables)
    tree = RemoteTree(root, what="data root") if is_remote(root) else LocalTree(root)
    for candidate in (root / "cityscapes", root):
        if all(tree.is_folder(candidate / kind / split) for kind in ("leftImg8bit", "gtFine")):
            return tree.below(candidate)
    where = place_text(root)
    raise ConfigError(
        f"no Cityscapes split {split!r} under {where}: expected leftImg8bit/{split}/<city>/ and "
        f"gtFine/{split}/<city>/ in {place_text(root / 'cityscapes')} or in {where} itself; give "
        "--data-root, or set CITYSCAPES_DATASET"
    )


def _try_read(
    tree: Tree, labels: Path, pictures: Images, image: Path, masks: bool
) -> _Labelled | str:
    """One image, by its name in ``pictures``, or what is wrong with it."""
    stem = image.name.removesuffix(_IMAGE_SUFFIX)
    folder = labels / image.parent
    try:
        instance_file = folder / f"{stem}_gtFine_instanceIds.png"
        polygon_file = folder / f"{stem}_gtFine_polygons.json"
        if (data := tree.read(instance_file)) is not None:
            ids = _read_instance_ids(data, name=instance_file.name)
        elif (data := tree.read(polygon_file)) is not None:
            ids = draw_instance_ids(parse_json(data, where=place_text(polygon_file)))
        else:
            return f"neither {instance_file.name} nor {polygon_file.name} in {place_text(folder)}"
        path, name = pictures.locate(image.as_posix())
        size = (ids.shape[0], ids.shape[1])
        return _Labelled(path, name, size, _instances(ids, masks=masks))
    except EnvironmentFailure:
        raise
    except ValueError as error:  # of which DataError is one
        return str(error)


def _read_instance_ids(data: bytes, *, name: str) -> Int32[np.ndarray, "h w"]:
    try:
        with Image.open(BytesIO(data), formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{name}: more than {MAX_PIXELS} pixels")
            if image.mode not in ("I;16", "I"):
                # 26001 saved again with 8 bits is 145: every instance would be lost silently.
                raise ValueError(
                    f"{name}: pixel mode {image.mode!r} where one channel of 16 bits is "
                    "expected (instance ids reach 33999); it was saved again with fewer bits: put "
                    "the official file back"
                )
            return np.array(image, dtype=np.int32)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: cannot be decoded ({error})") from error


def draw_instance_ids(document: Any) -> Int32[np.ndarray, "h w"]:
    """Draw the polygons of the eight thing classes in their order, later ones on top.

    Other polygons erase: they cover what lies behind them. Instances are numbered
    ``label id * 1000 + k``, groups are their plain label id, everything else 0.

    Raises:
        ValueError: Sizes or polygons are malformed.
    """
    if not isinstance(document, dict) or not isinstance(document.get("objects"), list):
        raise ValueError("polygons: imgHeight, imgWidth and objects are expected")
    height, width = (side(document, key, Notes()) for key in ("imgHeight", "imgWidth"))
    if height * width > MAX_PIXELS:
        raise ValueError(f"polygons: size {height}x{width}")
    canvas = Image.new("I", (width, height), 0)
    draw = ImageDraw.Draw(canvas)
    counts: dict[int, int] = {}
    for index, item in enumerate(document["objects"]):
        if not isinstance(item, dict) or not isinstance(item.get("label"), str):
            raise ValueError(f"polygons: objects[{index}] has no label")
        if item.get("deleted") in (1, "1"):
            continue
        points = _points(item.get("polygon"), where=f"objects[{index}]")
        draw.polygon(points, fill=_fill(item["label"], counts))
    return np.array(canvas, dtype=np.int32)


def _fill(label: str, counts: dict[int, int]) -> int:
    if label in _IDS:
        number = _IDS[label]
        counts[number] = counts.get(number, -1) + 1
        return number * _INSTANCES_PER_CLASS + counts[number]
    return _IDS.get(label.removesuffix("group"), 0)


def _points(value: object, *, where: str) -> list[tuple[float, float]]:
    if not isinstance(value, list) or len(value) < 2:
        raise ValueError(f"polygons: {where} has no polygon")
    points = []
    for point in value:
        if not isinstance(point, Sequence) or len(point) != 2:
            raise ValueError(f"polygons: {where} holds {point!r}, a pair [x, y] is expected")
        x, y = (finite(number, name=f"{where} polygon") for number in point)
        if max(abs(x), abs(y)) > 4 * MAX_SIDE:
            raise ValueError(f"polygons: {where} reaches far out of the image")
        points.append((x, y))
    return points


def _instances(ids: Int32[np.ndarray, "h w"], *, masks: bool) -> list[_Instance]:
    values = np.unique(ids)
    if values[-1] > _MAX_INSTANCE_ID:
        raise ValueError(f"instance id {values[-1]}, at most {_MAX_INSTANCE_ID} is expected")
    wanted = [v for v in values.tolist() if _label_id(v) in _LABELS]
    # Compact numbers, so that one pass finds all boxes.
    compact = np.zeros(_MAX_INSTANCE_ID + 1, dtype=np.int32)
    compact[wanted] = np.arange(1, len(wanted) + 1)
    small = compact[np.maximum(ids, 0)]
    areas = np.bincount(small.ravel(), minlength=len(wanted) + 1)
    instances = []
    for number, place in enumerate(ndimage.find_objects(small), start=1):
        rows, columns = place
        value = wanted[number - 1]
        mask = encode_mask(small == number) if masks else None
        instances.append(
            _Instance(
                label=_LABELS[_label_id(value)],
                crowd=value < _INSTANCES_PER_CLASS,
                xyxy=(columns.start, rows.start, columns.stop, rows.stop),
                area=int(areas[number]),
                mask=mask,
            )
        )
    return instances


def _label_id(value: int) -> int:
    return value // _INSTANCES_PER_CLASS if value >= _INSTANCES_PER_CLASS else value


def _record(labelled: _Labelled, *, number: int, first_box: int, masks: bool) -> ImageRecord:
    instances, (height, width) = labelled.instances, labelled.size
    return ImageRecord(
        id=number,
        name=labelled.name,
        path=labelled.path,
        height=height,
        width=width,
        boxes_xyxy=np.array([i.xyxy for i in instances], dtype=np.float32).reshape(-1, 4),
        labels=np.array([i.label for i in instances], dtype=np.int64),
        box_ids=np.arange(first_box, first_box + len(instances), dtype=np.int64),
        crowd=np.array([i.crowd for i in instances], dtype=bool),
        areas=np.array([i.area for i in instances], dtype=np.float32),
        masks=tuple(i.mask for i in instances) if masks else None,
    )
