"""Cityscapes in its official layout: boxes around the visible pixels of the eight thing classes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Int32
from PIL import Image, ImageDraw
from scipy import ndimage

from boxdepth.depthgen.datasets.fields import MAX_SIDE, Notes, finite, side
from boxdepth.depthgen.datasets.masks import encode_mask
from boxdepth.depthgen.datasets.paths import hidden
from boxdepth.depthgen.datasets.records import (
    Dataset,
    DatasetReport,
    OnBad,
    find_root,
    load_json,
    settle,
)
from boxdepth.depthgen.store.errors import (
    ConfigError,
    EnvironmentFailure,
    environment_failure,
    is_of_the_machine,
)
from boxdepth.depthgen.store.images import MAX_PIXELS
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
    image: Path
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
    root = _find_layout(data_root, split)
    images = [
        image
        for image in sorted((root / "leftImg8bit" / split).glob(f"*/*{_IMAGE_SUFFIX}"))
        if not hidden(image.relative_to(root))
    ]
    problems: list[str] = []
    with ThreadPoolExecutor() as pool:
        read = list(pool.map(lambda image: _try_read(root, split, image, masks), images))
    found: list[_Labelled] = []
    for image, item in zip(images, read, strict=True):
        if isinstance(item, str):
            problems.append(f"{image.name}: {item}")
        else:
            found.append(_Labelled(image, *item))
    rejected = settle(problems, source=root / "gtFine" / split, on_bad=on_bad)
    starts = [0, *accumulate(len(labelled.instances) for labelled in found)]
    ids = {image: number for number, image in enumerate(images, start=1)}
    folder = root / "leftImg8bit" / split
    records = tuple(
        _record(labelled, folder, number=ids[labelled.image], first_box=start + 1, masks=masks)
        for labelled, start in zip(found, starts, strict=False)
    )
    report = DatasetReport(
        crowds=sum(int(record.crowd.sum()) for record in records),
        images_without_boxes=sum(1 for record in records if not len(record.labels)),
        rejected=rejected,
    )
    return Dataset(
        name="cityscapes",
        split=split,
        categories=THING_CLASSES,
        records=records,
        report=report,
        drawn=bool(images) and all(image.parent.name == DRAWN_CITY for image in images),
    )


def _find_layout(data_root: Path | None, split: str) -> Path:
    variables = ("CITYSCAPES_DATASET", "BOXDEPTH_DATA", "DETECTRON2_DATASETS")
    root = find_root(data_root, variables=variables)
    for candidate in (root / "cityscapes", root):
        if (candidate / "leftImg8bit" / split).is_dir() and (candidate / "gtFine" / split).is_dir():
            return candidate.resolve()
    raise ConfigError(
        f"no Cityscapes split {split!r} under {root}: expected leftImg8bit/{split}/<city>/ and "
        f"gtFine/{split}/<city>/ in {root / 'cityscapes'} or in {root} itself; give --data-root, "
        "or set CITYSCAPES_DATASET"
    )


def _try_read(
    root: Path, split: str, image: Path, masks: bool
) -> tuple[tuple[int, int], list[_Instance]] | str:
    stem = image.name.removesuffix(_IMAGE_SUFFIX)
    folder = root / "gtFine" / split / image.parent.name
    try:
        instance_file = folder / f"{stem}_gtFine_instanceIds.png"
        polygon_file = folder / f"{stem}_gtFine_polygons.json"
        if instance_file.is_file():
            ids = _read_instance_ids(instance_file)
        elif polygon_file.is_file():
            ids = draw_instance_ids(load_json(polygon_file))
        else:
            return f"neither {instance_file.name} nor {polygon_file.name} in {folder}"
        return (ids.shape[0], ids.shape[1]), _instances(ids, masks=masks)
    except EnvironmentFailure:
        raise
    except ValueError as error:  # of which DataError is one
        return str(error)


def _read_instance_ids(path: Path) -> Int32[np.ndarray, "h w"]:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{path.name}: more than {MAX_PIXELS} pixels")
            if image.mode not in ("I;16", "I"):
                # 26001 saved again with 8 bits is 145: every instance would be lost silently.
                raise ValueError(
                    f"{path.name}: pixel mode {image.mode!r} where one channel of 16 bits is "
                    "expected (instance ids reach 33999); it was saved again with fewer bits: put "
                    "the official file back"
                )
            return np.array(image, dtype=np.int32)
    except OSError as error:
        if is_of_the_machine(error):
            raise environment_failure(error, path) from error
        raise ValueError(f"{path.name}: cannot be decoded ({error})") from error
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path.name}: cannot be decoded ({error})") from error


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


def _record(
    labelled: _Labelled, root: Path, *, number: int, first_box: int, masks: bool
) -> ImageRecord:
    instances, (height, width) = labelled.instances, labelled.size
    return ImageRecord(
        id=number,
        name=labelled.image.relative_to(root).as_posix(),
        path=labelled.image,
        height=height,
        width=width,
        boxes_xyxy=np.array([i.xyxy for i in instances], dtype=np.float32).reshape(-1, 4),
        labels=np.array([i.label for i in instances], dtype=np.int64),
        box_ids=np.arange(first_box, first_box + len(instances), dtype=np.int64),
        crowd=np.array([i.crowd for i in instances], dtype=bool),
        areas=np.array([i.area for i in instances], dtype=np.float32),
        masks=tuple(i.mask for i in instances) if masks else None,
    )
