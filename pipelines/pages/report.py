"""The quickstart's report: one HTML page that opens offline, and the PNGs that stand in it."""

import base64
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from PIL import Image
from pycocotools import mask as rle

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from boxdepth.depthgen.store import Store, open_store
from stages import Stage

PICTURES = 8
SCORE_SHOWN = 0.5
PALETTE = np.array(
    [
        *((230, 57, 70), (42, 157, 143), (244, 162, 97), (69, 123, 157), (233, 196, 106)),
        *((131, 56, 236), (58, 134, 255), (255, 0, 110), (6, 214, 160), (251, 133, 0)),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where everything of one quickstart lies."""

    out: Path

    @property
    def scenes(self) -> Path:
        """The drawn scenes, in COCO's layout."""
        return self.out / "scenes"

    @property
    def annotations(self) -> Path:
        """Exact masks of the scenes that are scored."""
        return self.scenes / "annotations" / "instances_val2017.json"

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.out / "run"

    @property
    def predictions(self) -> Path:
        """Results on the scenes that are scored."""
        return self.out / "predictions.json"

    def store(self, split: str) -> Path:
        """Images, boxes and pseudo-depth of a split."""
        return self.out / "stores" / f"scenes-{split}.zarr"


def write_report(places: Places, stages: list[Stage]) -> Path:
    """Write `report.html` and its pictures; return the page's path.

    Args:
        stages: the commands in their order; the last one scored.
    """
    pictures = places.out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    store, scores = open_store(places.store("val2017")), stages[-1].result
    gallery = draw_gallery(store, places.predictions, places.annotations, pictures)
    curves = draw_curves(places.run / "metrics.jsonl", pictures / "losses.png")
    page = jinja2.Environment(autoescape=True).from_string(
        (Path(__file__).parent / "quickstart.html").read_text(encoding="utf-8")
    )
    report = places.out / "report.html"
    text = page.render(
        stages=stages,
        total=sum(stage.seconds for stage in stages),
        scores=scores,
        columns=("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
        gallery=[as_data_url(path) for path in gallery],
        curves=as_data_url(curves),
        config=json.loads((places.run / "config.json").read_text()),
        classes=sorted(scores["segm"]["per_class"].items()),
    )
    report.write_text(text, encoding="utf-8")
    return report


def as_data_url(path: Path) -> str:
    """The PNG at ``path``, inlined, so that the page travels as one file."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def draw_gallery(store: Store, predictions: Path, annotations: Path, folder: Path) -> list[Path]:
    """Input | pseudo-depth | prediction | ground truth of the first images of the store."""
    found = by_image(json.loads(predictions.read_text()), least_score=SCORE_SHOWN)
    truth = by_image(json.loads(annotations.read_text())["annotations"], least_score=None)
    paths = []
    for index in range(min(PICTURES, len(store))):
        image_id = int(store.image_ids[index])
        image = store.image(index)
        depth = depth_picture(store.inverse_depth(index), image.shape[:2])
        panels = [
            outline_boxes(image, [entry["bbox"] for entry in truth[image_id]]),
            depth,
            paint(image, found[image_id]),
            paint(image, truth[image_id]),
        ]
        path = folder / f"scene-{index}.png"
        Image.fromarray(side_by_side(panels)).save(path)
        paths.append(path)
    return paths


def by_image(
    entries: list[dict[str, Any]], *, least_score: float | None
) -> dict[int, list[dict[str, Any]]]:
    """Entries of each image, largest first so that small masks end up on top."""
    grouped: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        if least_score is None or entry["score"] >= least_score:
            grouped[entry["image_id"]].append(entry)
    for group in grouped.values():
        group.sort(key=lambda entry: -entry["bbox"][2] * entry["bbox"][3])
    return grouped


def decode(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Boolean mask of an RLE or of polygons."""
    if isinstance(segmentation, list):
        segmentation = rle.merge(rle.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        segmentation = rle.frPyObjects(segmentation, *size)
    mask: np.ndarray = rle.decode(segmentation).astype(bool)
    return mask


def paint(image: np.ndarray, entries: list[dict[str, Any]]) -> np.ndarray:
    """Masks over a dimmed image: the class chooses the colour, a light rim parts neighbours."""
    canvas = 0.75 * image.astype(np.float32)
    for entry in entries:
        mask = decode(entry["segmentation"], image.shape[:2])
        color = PALETTE[entry["category_id"] % len(PALETTE)]
        canvas[mask] = 0.4 * image[mask] + 0.6 * color
        inner = mask.copy()
        inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
        canvas[mask & ~inner] = 255
    painted: np.ndarray = np.clip(canvas, 0, 255).astype(np.uint8)
    return painted


def outline_boxes(image: np.ndarray, boxes_xywh: list[list[float]]) -> np.ndarray:
    """The image with its boxes: all that the training was told about such an image."""
    canvas = image.copy()
    height, width = image.shape[:2]
    for x, y, w, h in boxes_xywh:
        left, right = max(int(x), 0), min(int(np.ceil(x + w)), width) - 1
        top, bottom = max(int(y), 0), min(int(np.ceil(y + h)), height) - 1
        canvas[[top, bottom], left : right + 1] = 255
        canvas[top : bottom + 1, [left, right]] = 255
    return canvas


def depth_picture(inverse_depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Inverse depth (0..255) in colours: near is bright."""
    height, width = size
    grey = Image.fromarray(inverse_depth.astype(np.uint8)).resize((width, height))
    colors = matplotlib.colormaps["magma"](np.asarray(grey), bytes=True)
    return np.ascontiguousarray(colors[..., :3])


def side_by_side(panels: list[np.ndarray], gap: int = 6) -> np.ndarray:
    """Panels in a row on white, doubled in size where they are small."""
    factor = 2 if panels[0].shape[1] < 400 else 1
    grown = [panel.repeat(factor, axis=0).repeat(factor, axis=1) for panel in panels]
    space = np.full((grown[0].shape[0], gap, 3), 255, np.uint8)
    parts = [part for panel in grown for part in (panel, space)][:-1]
    return np.concatenate(parts, axis=1)


def draw_curves(metrics: Path, path: Path) -> Path:
    """Loss terms over iterations, detection and mask terms apart."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    rows = [line for line in lines if "losses" in line]
    iterations = [row["iteration"] for row in rows]
    detection = ("classification", "box", "quality")
    names = sorted({name for row in rows for name in row["losses"]})
    groups = {
        "detection": [name for name in names if name in detection],
        "masks": [name for name in names if name not in detection],
    }
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.4), dpi=130, constrained_layout=True)
    for axis, (title, members) in zip(axes, groups.items(), strict=True):
        for name in members:
            axis.plot(iterations, [row["losses"].get(name) for row in rows], label=name, lw=1.4)
        axis.set(title=title, xlabel="iteration", ylabel="loss", ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)
    figure.savefig(path)
    plt.close(figure)
    return path
