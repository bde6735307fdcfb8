"""Detections per frame, from the official txt + PNG folders or from COCO-style results."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from boxdepth.evaluate.cityscapes_ap.frames import frame_name
from boxdepth.evaluate.cityscapes_ap.labels import CLASSES, LABEL_IDS, LICENSE_PLATE
from boxdepth.evaluate.results import DataError, GroundTruth, Predictions, Problems
from boxdepth.evaluate.results.arrays import Int64
from boxdepth.evaluate.results.problems import quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One predicted mask of one of the eight classes.

    Attributes:
        label: Cityscapes label id.
        score: any finite number; only the order counts.
        pixels: where the mask is, as places in the image read column by column.
    """

    label: int
    score: float
    pixels: Int64[np.ndarray, " p"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionSource:
    """Where a frame's detections come from.

    Attributes:
        frames: frames that have results.
        read: detections of one frame, given its (height, width).
        notes: what was left out, in sentences.
    """

    frames: frozenset[str]
    read: Callable[[str, tuple[int, int]], list[Detection]]
    notes: tuple[str, ...]


def from_folder(root: Path) -> DetectionSource:
    """The official form: one `<frame>*.txt` per image, lines of `mask.png label score`.

    Raises:
        DataError: no results, two files for a frame, or (on reading) a faulty line or mask.
    """
    files: dict[str, Path] = {}
    for path in sorted(root.rglob("*.txt")):
        name = frame_name(path.name)
        if name is None:
            continue
        if name in files:
            raise DataError(f"{path}: frame {name} has results in {files[name]} already")
        files[name] = path
    if not files:
        raise DataError(f"{root}: no <city>_<sequence>_<frame>*.txt below it")

    def read(name: str, shape: tuple[int, int]) -> list[Detection]:
        return _read_list(files[name], root.resolve(), shape) if name in files else []

    return DetectionSource(frames=frozenset(files), read=read, notes=())


def from_coco(truth: GroundTruth, predictions: Predictions) -> DetectionSource:
    """COCO-style results: frames by the images' `file_name`, classes by category name.

    Raises:
        DataError: names that are not Cityscapes', or results without masks.
    """
    names = [frame_name(name) for name in truth.image_names]
    problems = Problems(source=truth.source)
    for image_id, name, file_name in zip(truth.image_ids, names, truth.image_names, strict=True):
        if name is None:
            problems.add(
                f"image {image_id}",
                f"file_name {quoted(file_name)} is not <city>_<sequence>_<frame>_...",
            )
    problems.raise_if_any()
    label_of = {name: label for label, name in CLASSES.items()}
    labels = np.array([label_of.get(name, -1) for name in truth.category_names], dtype=np.int64)
    if not (labels > 0).any():
        expected = ", ".join(CLASSES.values())
        raise DataError(f"{truth.source}: no category has a Cityscapes name ({expected})")
    if not predictions.masks.present.all():
        raise DataError(f"{predictions.source}: Cityscapes AP needs a segmentation in every result")
    rows = _rows_of_frames(predictions, [str(name) for name in names])

    def read(name: str, shape: tuple[int, int]) -> list[Detection]:
        return list(_coco_detections(predictions, labels, rows.get(name, []), shape))

    skipped = int((labels[predictions.category_index] < 0).sum())
    note = f"{skipped} detections are of classes outside Cityscapes' eight and were left out."
    return DetectionSource(frames=frozenset(rows), read=read, notes=(note,) if skipped else ())


def _rows_of_frames(predictions: Predictions, names: list[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, image in enumerate(predictions.image_index.tolist()):
        rows.setdefault(names[image], []).append(row)
    return rows


def _coco_detections(
    predictions: Predictions, labels: np.ndarray, rows: list[int], shape: tuple[int, int]
) -> Iterator[Detection]:
    for row in rows:
        size = tuple(predictions.masks.sizes[row].tolist())
        if size != shape:
            raise DataError(
                f"{predictions.source}: masks of {size[1]} x {size[0]} for an image that gtFine "
                f"has at {shape[1]} x {shape[0]}. Do annotations and gtFine belong together?"
            )
        label = int(labels[predictions.category_index[row]])
        if label > 0:
            pixels = np.flatnonzero(predictions.masks.pixels(row).T)
            yield Detection(label=label, score=float(predictions.scores[row]), pixels=pixels)


def _read_list(path: Path, root: Path, shape: tuple[int, int]) -> list[Detection]:
    problems = Problems(source=str(path))
    lines: dict[Path, tuple[int, float]] = {}
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            mask, label, score = _parse_line(line, path.parent, root)
        except ValueError as error:
            problems.add(f"line {number}", str(error))
        else:
            lines[mask] = (label, score)  # as in the official script, a mask's last line counts
    problems.raise_if_any()
    found = []
    for mask, (label, score) in lines.items():
        if label in CLASSES:
            pixels = np.flatnonzero(_read_mask(mask, shape).T)
            found.append(Detection(label=label, score=score, pixels=pixels))
    return found


def _parse_line(line: str, folder: Path, root: Path) -> tuple[Path, int, float]:
    parts = line.strip().split(" ")
    if len(parts) != 3:
        raise ValueError(f"is {quoted(line)}, expected: mask.png labelId score")
    name, label, score = parts
    mask = (folder / name).resolve()
    if Path(name).is_absolute() or not mask.is_relative_to(root):
        raise ValueError(f"mask {quoted(name)} lies outside the results folder")
    if not mask.is_file():
        raise ValueError(f"mask {quoted(name)} is not there")
    value, confidence = float(label), float(score)
    if not value.is_integer() or int(value) not in (*LABEL_IDS, LICENSE_PLATE):
        raise ValueError(f"label {quoted(label)} is no Cityscapes label id")
    if not math.isfinite(confidence):
        raise ValueError(f"score {quoted(score)} is not finite")
    return mask, int(value), confidence


def _read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if (image.height, image.width) != shape:
                raise DataError(
                    f"{path}: {image.width} x {image.height} pixels, the image has "
                    f"{shape[1]} x {shape[0]}"
                )
            return np.asarray(np.asarray(image.convert("L")) != 0)
    except (UnidentifiedImageError, SyntaxError, OSError) as error:
        raise DataError(f"{path}: no readable PNG ({error})") from None
