"""One export: what is written, how, and where."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np

from boxdepth.evaluate.export.shapes import Outline
from boxdepth.evaluate.export.source import SPLITS, ExportSet
from boxdepth.evaluate.results import DataError
from boxdepth.evaluate.results.arrays import Bool, Int64
from boxdepth.evaluate.results.pictures import safe_path

Written = Mapping[int, str]
"""Row of each object to the file that holds it, relative to the output folder."""
Found = Iterator[tuple[int, Bool[np.ndarray, "h w"]]]
"""Row of each object with its mask, as read back from the written files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every format writer is given.

    Attributes:
        items: everything that was read.
        rows: objects to be written, in the order of their images.
        boxes_alone: objects without a mask, which COCO files keep.
        outlines: polygons by row; None where masks are written as they are.
        out: the output folder.
        images: folder of the images; None: they are not put beside the labels.
        copy: copy images instead of linking them.
        image_url: what Label Studio is to put before file names.
    """

    items: ExportSet
    rows: Int64[np.ndarray, " n"]
    boxes_alone: Int64[np.ndarray, " m"]
    outlines: Mapping[int, Outline] | None
    out: Path
    images: Path | None
    copy: bool
    image_url: str

    def by_image(self) -> Iterator[tuple[int, list[int]]]:
        """Every image with the rows of its objects, images without objects too."""
        of_rows = self.items.image_index[self.rows]
        cuts = np.searchsorted(of_rows, np.arange(len(self.items.images) + 1)).tolist()
        for image, (begin, end) in enumerate(pairwise(cuts)):
            yield image, self.rows[begin:end].tolist()

    def outline(self, row: int) -> Outline:
        """Polygons of an object, where the format has polygons."""
        assert self.outlines is not None
        return self.outlines[row]

    def label(self, row: int) -> str:
        """Class name of an object."""
        return self.items.category_names[int(self.items.category_index[row])]

    def size(self, image: int) -> tuple[int, int]:
        """(height, width) of an image in pixels."""
        height, width = self.items.image_sizes[image].tolist()
        return height, width


def plain_name(name: str, *, drop: str = "") -> PurePosixPath:
    """A file name as a path below a folder, without leading folders `images` and the split `drop`.

    Raises:
        DataError: the name leads out of the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise DataError(f"file_name {name!a} leads out of its folder")
    parts = list(path.parts)
    while len(parts) > 1 and _is_dropped(parts[0].lower(), drop):
        parts.pop(0)
    return PurePosixPath(*parts)


def _is_dropped(folder: str, split: str) -> bool:
    return folder == "images" or (split != "" and SPLITS.get(folder, folder) == split)


def distinct_stems(paths: Sequence[PurePosixPath]) -> list[str]:
    """Paths without their suffix; where that makes two equal, both keep it as `name_jpg`.

    Raises:
        DataError: two are equal even so.
    """
    stems = Counter(str(path.with_suffix("")) for path in paths)
    names = [
        f"{path.with_suffix('')}_{path.suffix[1:]}" if stems[str(path.with_suffix(""))] > 1
        else str(path.with_suffix(""))
        for path in paths
    ]  # fmt: skip
    double = [name for name, count in Counter(names).items() if count > 1]
    if double:
        raise DataError(f"two images would share the name {double[0]!a}: rename one of them")
    return names


def side_names(job: Job, suffix: str) -> list[str]:
    """A file with `suffix` for each image, after its name."""
    return [
        stem + suffix for stem in distinct_stems([plain_name(n) for n in job.items.image_names])
    ]


def place_image(job: Job, image: int, target: Path) -> None:
    """Link or copy an image to `target`; raises `DataError` if it is not there."""
    if job.images is None:
        return
    source = safe_path(job.images, job.items.image_names[image])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if job.copy:
        shutil.copyfile(source, target)
    else:
        target.symlink_to(source.resolve())


def write_text(path: Path, text: str) -> None:
    """Write a whole file, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """JSON with readable letters."""
    write_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
