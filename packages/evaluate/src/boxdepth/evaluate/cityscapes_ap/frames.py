"""Ground truth frames: `gtFine/<split>/<city>/<city>_<sequence>_<frame>_gtFine_instanceIds.png`."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from boxdepth.evaluate.cityscapes_ap.labels import CLASSES, FIRST_INSTANCE, LABEL_IDS, VOID
from boxdepth.evaluate.results import DataError
from boxdepth.evaluate.results.arrays import Bool, Int64
from boxdepth.evaluate.results.rle import MAX_PIXELS

_SUFFIX = "_gtFine_instanceIds.png"
_FRAME = re.compile(r"([^/\\]+_\d{6}_\d{6})(?:_[^/\\]*)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One annotated image.

    Attributes:
        name: `<city>_<sequence>_<frame>`.
        shape: (height, width) in pixels.
        instance_of_pixel: place in the lists below of each pixel, column by column; the number of
            objects where there is none.
        void: pixels, column by column, on which a detection costs nothing.
        values: the objects' pixel values in the PNG: label * 1000 + number, or a bare label for a
            group.
        sizes: pixels of each object.
    """

    name: str
    shape: tuple[int, int]
    instance_of_pixel: Int64[np.ndarray, " hw"]
    void: Bool[np.ndarray, " hw"]
    values: Int64[np.ndarray, " g"]
    sizes: Int64[np.ndarray, " g"]

    @property
    def labels(self) -> Int64[np.ndarray, " g"]:
        """Label of each object or group."""
        return np.where(self.values < FIRST_INSTANCE, self.values, self.values // FIRST_INSTANCE)


def frame_name(file_name: str) -> str | None:
    """`<city>_<sequence>_<frame>` of any official file name, None if it is none."""
    found = _FRAME.search(Path(file_name).stem)
    return found.group(1) if found else None


def find_frames(gt_fine: Path) -> dict[str, Path]:
    """Frame name to annotation file, for one split folder (or one that holds a single split).

    Raises:
        DataError: there is none, or several splits lie below the folder.
    """
    splits = [gt_fine / split for split in ("train", "val", "test") if (gt_fine / split).is_dir()]
    if len(splits) > 1:
        found = ", ".join(str(split) for split in splits)
        raise DataError(f"{gt_fine}: holds several splits; name the one to score: {found}")
    paths = sorted(gt_fine.rglob(f"*{_SUFFIX}"))
    if not paths:
        raise DataError(
            f"{gt_fine}: no *{_SUFFIX} below it. Name the folder gtFine/val of the official layout."
        )
    frames: dict[str, Path] = {}
    for path in paths:
        name = path.name.removesuffix(_SUFFIX)
        if name in frames:
            raise DataError(f"{path}: frame {name} is also in {frames[name]}, expected it once")
        frames[name] = path
    return frames


def read_frame(name: str, path: Path) -> Frame:
    """Read and check one annotation image.

    Raises:
        DataError: the file is no such PNG, or holds a label Cityscapes does not have.
    """
    pixels = read_png(path)
    values, inverse, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    labels = np.where(values < FIRST_INSTANCE, values, values // FIRST_INSTANCE)
    unknown = values[~np.isin(labels, LABEL_IDS)]
    if len(unknown):
        raise DataError(f"{path}: pixel value {unknown[0]} stands for no Cityscapes label")
    things = np.flatnonzero(np.isin(labels, list(CLASSES)))
    place = np.full(len(values), len(things), dtype=np.int64)
    place[things] = np.arange(len(things))
    columns = inverse.reshape(pixels.shape).T.reshape(-1)
    height, width = pixels.shape
    return Frame(
        name=name,
        shape=(height, width),
        instance_of_pixel=place[columns],
        void=np.isin(values, VOID)[columns],
        values=values[things],
        sizes=counts[things],
    )


def read_png(path: Path) -> Int64[np.ndarray, "h w"]:
    """A one-channel PNG's values; raises `DataError` for anything else."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path}: {image.width} x {image.height} pixels are too many")
            pixels = np.asarray(image)
    except (UnidentifiedImageError, SyntaxError, ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: no readable PNG ({error})") from None
    if pixels.ndim != 2:
        raise DataError(f"{path}: has {pixels.ndim} axes, expected one channel of label values")
    return pixels.astype(np.int64)
