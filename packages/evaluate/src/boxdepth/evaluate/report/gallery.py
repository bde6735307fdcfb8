"""Which images to show, and how predictions and annotations are drawn on them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from boxdepth.evaluate.coco_ap.matching import Matches
from boxdepth.evaluate.error_kinds import KINDS, ErrorKinds
from boxdepth.evaluate.results import DataError, GroundTruth, Predictions
from boxdepth.evaluate.results.arrays import Float64, UInt8
from boxdepth.evaluate.results.pictures import is_turned, read_image

# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = {
    "right": "#009e73",
    "classification": "#e69f00",
    "localisation": "#56b4e9",
    "both": "#cc79a7",
    "duplicate": "#f0e442",
    "background": "#d55e00",
    "missed": "#0072b2",
}
# Drawn for columns of 300 to 360 screen pixels: labels stay readable on a phone.
_WIDTH, _HEIGHT, _FONT, _LABELS = 520, 1200, 16, 12
_DARK = {COLOURS["missed"], COLOURS["background"], COLOURS["right"]}
_PER_GROUP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One gallery image.

    Attributes:
        name: file name.
        caption: counts in words.
        source: a data URL (JPEG).
    """

    name: str
    caption: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTally:
    """Per image, among detections worth showing: right ones, wrong ones, and missed annotations.

    Attributes:
        threshold: score from which detections are counted and drawn.
        right: right detections, averaged over IoU thresholds.
        wrong, missed: at IoU 0.5.
        shock: sum of the scores of wrong detections.
    """

    threshold: float
    right: Float64[np.ndarray, " i"]
    wrong: Float64[np.ndarray, " i"]
    missed: Float64[np.ndarray, " i"]
    shock: Float64[np.ndarray, " i"]


def tally(
    truth: GroundTruth,
    predictions: Predictions,
    matches: Matches,
    errors: ErrorKinds,
    threshold: float,
) -> ImageTally:
    """Count right, wrong and missed per image, among detections from `threshold` on."""
    images = len(truth.image_ids)
    shown = (predictions.scores >= threshold) & (errors.kind >= -1)
    right = ((matches.annotation >= 0) & ~matches.ignored).mean(axis=0) * shown
    wrong = shown & (errors.kind >= 0)
    place = predictions.image_index
    found = np.bincount(place[shown & (errors.kind == -1)], minlength=images)
    real = np.bincount(truth.image_index[~truth.crowd], minlength=images)
    return ImageTally(
        threshold=threshold,
        right=_sums(place, right, images),
        wrong=np.bincount(place[wrong], minlength=images).astype(np.float64),
        missed=(real - found).astype(np.float64),
        shock=_sums(place[wrong], predictions.scores[wrong], images),
    )


def _sums(place: np.ndarray, values: np.ndarray, count: int) -> Float64[np.ndarray, " i"]:
    return np.bincount(place, weights=values, minlength=count).astype(np.float64)


def choose(truth: GroundTruth, counts: ImageTally) -> dict[str, list[int]]:
    """Images to show: best, worst and most instructive (confident mistakes amid successes)."""
    real = np.bincount(truth.image_index[~truth.crowd], minlength=len(truth.image_ids))
    quality = counts.right / np.maximum(counts.right + counts.wrong + counts.missed, 1e-9)
    busy = np.flatnonzero(real >= min(2, real.max(initial=0)))
    lesson = counts.shock * np.minimum(counts.right, 3.0)
    ranked = {
        "Best": busy[np.argsort(-quality[busy], kind="stable")],
        "Worst": busy[np.argsort(quality[busy], kind="stable")],
        "Most instructive": busy[np.argsort(-lesson[busy], kind="stable")],
    }
    most = min(_PER_GROUP, max(1, len(busy) // len(ranked)))
    taken: set[int] = set()
    groups: dict[str, list[int]] = {}
    for name, order in ranked.items():
        groups[name] = [image for image in order.tolist() if image not in taken][:most]
        taken.update(groups[name])
    return groups


def draw_gallery(
    truth: GroundTruth,
    predictions: Predictions,
    errors: ErrorKinds,
    counts: ImageTally,
    images: Path,
) -> tuple[dict[str, list[Picture]], list[str]]:
    """The chosen images with their overlays, and what is to be said about them.

    Raises:
        DataError: none of the chosen images can be read.
    """
    gallery: dict[str, list[Picture]] = {}
    faults: list[str] = []
    turned = 0
    for name, group in choose(truth, counts).items():
        gallery[name] = []
        for image in group:
            try:
                drawn = _picture(truth, predictions, errors, counts, images, image)
                turned += is_turned(images, truth.image_names[image])
            except DataError as fault:
                faults.append(str(fault))
            else:
                gallery[name].append(drawn)
    if faults and not any(gallery.values()):
        raise DataError(faults[0])
    notes = [f"Not drawn: {fault}" for fault in faults]
    if turned:
        notes.append(
            f"{turned} of the images shown carry an EXIF orientation, which is ignored: "
            "annotations refer to the pixels as they are stored."
        )
    return gallery, notes


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    truth: GroundTruth,
    predictions: Predictions,
    errors: ErrorKinds,
    *,
    rows: Sequence[int],
    missed: Sequence[int],
) -> Image.Image:
    """Detections tinted and outlined by kind, missed annotations hatched, labels on top."""
    height, width = image.shape[:2]
    scale = min(_WIDTH / width, _HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), dtype=float)
    labels: list[tuple[tuple[float, float], str, str]] = []
    for row in rows:
        colour = COLOURS["right" if errors.kind[row] < 0 else KINDS[errors.kind[row]]]
        shape = _shape(predictions, row, size)
        canvas = _tint(canvas, shape, colour, 0.3)
        name = truth.category_names[predictions.category_index[row]]
        corner = predictions.boxes_xywh[row, :2] * scale
        text = f"{name} {predictions.scores[row]:.2f}"
        labels.append(((float(corner[0]), float(corner[1])), text, colour))
    for row in missed:
        canvas = _tint(canvas, _shape(truth, row, size), COLOURS["missed"], 0.2)
        corner = truth.boxes_xywh[row, :2] * scale
        name = f"missed {truth.category_names[truth.category_index[row]]}"
        labels.append(((float(corner[0]), float(corner[1])), name, COLOURS["missed"]))
    if len(labels) > _LABELS:  # in a crowd only what went wrong is named
        labels = [label for label in labels if label[2] != COLOURS["right"]]
    if len(labels) > 2 * _LABELS:  # names of hundreds would hide them all: colours tell
        labels = []
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    _write_labels(picture, labels)
    return picture


def _picture(
    truth: GroundTruth,
    predictions: Predictions,
    errors: ErrorKinds,
    counts: ImageTally,
    images: Path,
    image: int,
) -> Picture:
    height, width = truth.image_sizes[image].tolist()
    pixels = read_image(images, truth.image_names[image], (height, width))
    here = (predictions.image_index == image) & (predictions.scores >= counts.threshold)
    rows = np.flatnonzero(here & (errors.kind >= -1))[::-1].tolist()
    missed = errors.missed[truth.image_index[errors.missed] == image].tolist()
    drawn = overlay(pixels, truth, predictions, errors, rows=rows, missed=missed)
    buffer = io.BytesIO()
    drawn.save(buffer, format="JPEG", quality=82)
    right = sum(int(errors.kind[row] < 0) for row in rows)
    return Picture(
        name=truth.image_names[image],
        caption=f"{right} right, {len(rows) - right} wrong, {int(counts.missed[image])} not found",
        source="data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"),
    )


def _shape(table: GroundTruth | Predictions, row: int, size: tuple[int, int]) -> np.ndarray:
    """The mask of an object, or its box, at the size (width, height) of the drawing."""
    width, height = size
    full_height, full_width = table.masks.sizes[row].tolist()
    if table.masks.present[row]:
        mask = table.masks.pixels(row)
        rows = np.arange(height) * full_height // height
        columns = np.arange(width) * full_width // width
        return np.asarray(mask[np.ix_(rows, columns)])
    x, y, w, h = (table.boxes_xywh[row] * (width / full_width)).tolist()
    shape = np.zeros((height, width), dtype=bool)
    shape[max(0, int(y)) : int(y + h) + 1, max(0, int(x)) : int(x + w) + 1] = True
    return shape


def _tint(canvas: np.ndarray, shape: np.ndarray, colour: str, strength: float) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=float)
    edge = shape & ~ndimage.binary_erosion(shape, iterations=2, border_value=1)
    weight = np.where(edge, 0.95, np.where(shape, strength, 0.0))[..., None]
    return np.asarray(canvas * (1 - weight) + rgb * weight)


def _write_labels(
    picture: Image.Image, labels: Sequence[tuple[tuple[float, float], str, str]]
) -> None:
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=_FONT)
    used: list[tuple[float, float, float, float]] = []
    for (x, y), text, colour in labels:
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        w, h = right - left + 6, bottom - top + 6
        x = min(max(0.0, x), picture.width - w)
        y = min(max(0.0, y - h), picture.height - h)
        while any(_cover((x, y, x + w, y + h), box) for box in used) and y + h < picture.height:
            y += h
        used.append((x, y, x + w, y + h))
        draw.rectangle((x, y, x + w, y + h), fill=colour)
        ink = "white" if colour in _DARK else "black"
        draw.text((x + 3 - left, y + 3 - top), text, fill=ink, font=font)


def _cover(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
