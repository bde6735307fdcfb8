"""The paper's pictures (arXiv 2403.01214) from our own runs.

    python pipelines/figures.py matching RUN --store stores/scenes-train2017.zarr --out figures
    python pipelines/figures.py compare boxinst.json ours.json --store stores/scenes-val2017.zarr \
        --title BoxInst --title ours --out figures

`matching` (its Fig. 2): the teacher's best-matching pseudo masks by box overlap alone, and with
depth in the score, where the two choose differently. `compare` (its Fig. 5): predictions of two
or more runs side by side.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image, ImageDraw, ImageFont

from boxdepth.depthgen.store import open_store
from boxdepth.trainer import build
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.data.collate import collate
from boxdepth.trainer.data.rules import Augmentation
from boxdepth.trainer.data.store_dataset import TrainingSet
from boxdepth.trainer.distill.pseudo import PseudoRules, pseudo_masks
from boxdepth.trainer.distill.rules import Matching
from boxdepth.trainer.predict.model import load_model
from boxdepth.trainer.structures import Batch
from boxdepth.trainer.targets.mask_grid import mask_grid
from pages.report import PALETTE, by_image, depth_picture, outline_boxes, paint
from stages import console

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__.split("\n\n")[0])

OutOption = Annotated[Path, typer.Option("--out", help="Folder for the pictures.")]
CountOption = Annotated[int, typer.Option("--count", min=1, help="How many pictures.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An image on which the two ways to match choose another mask for some box."""

    batch: Batch
    boxes: list[int]
    """Rows of the boxes that differ."""
    by_overlap: torch.Tensor
    with_depth: torch.Tensor


@app.command()
def matching(
    run: Annotated[Path, typer.Argument(help="A run with a teacher.")],
    store: Annotated[Path, typer.Option(help="Store of training images.")],
    out: OutOption = Path("figures"),
    count: CountOption = 8,
    look_at: Annotated[int, typer.Option(min=1, help="Images to search.")] = 200,
) -> None:
    """Image | depth | pseudo masks by box overlap | pseudo masks by S_match."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(run, device, weights="teacher")
    dataset = build.training_set(_plain(model.config), store)
    found = itertools.islice(
        _differences(model.network, model.config, dataset, device, look_at), count
    )
    rows = [_panels(difference) for difference in found]
    if not rows:
        console.print(f"depth changes no choice on the first {look_at} images")
        raise typer.Exit(1)
    titles = ("image, boxes", "pseudo-depth", "matched by overlap", "matched by S_match")
    path = _save(rows, titles, out / "matching.png")
    console.print(f"{len(rows)} images on which depth changes the choice -> [bold]{path}")


def _plain(config: RunConfig) -> RunConfig:
    """The training images without augmentation, at the size of inference."""
    inference = config.inference
    augmentation = Augmentation(
        short_sides=(inference.short_side,), max_size=inference.max_size, flip=0
    )
    data = config.data.changed(augmentation=augmentation, supervision="boxes")
    return config.changed(data=data)


def _differences(
    teacher: torch.nn.Module,
    config: RunConfig,
    dataset: TrainingSet,
    device: torch.device,
    look_at: int,
) -> Iterator[Difference]:
    rules = build.pseudo_rules(config)
    ways = [_matched_by(rules, alpha=1.0, beta=0.0), _matched_by(rules, alpha=0.8, beta=0.2)]
    for index in range(min(look_at, len(dataset))):
        batch = collate([dataset.load(index, epoch=0)]).to(device)
        grid = mask_grid(batch)
        overlap, depth = (
            pseudo_masks(teacher, batch, grid, way, progress=1.0).mask for way in ways
        )
        common = (overlap * depth).sum(dim=(1, 2))
        union = torch.maximum(overlap, depth).sum(dim=(1, 2))
        boxes = (common < 0.9 * union).nonzero()[:, 0].tolist()
        if boxes:
            yield Difference(batch=batch, boxes=boxes, by_overlap=overlap, with_depth=depth)


def _matched_by(rules: PseudoRules, *, alpha: float, beta: float) -> PseudoRules:
    """Matched with these weights, at the student's size, by a teacher that stays as it is."""
    distillation = rules.distillation.changed(
        method="depth_matching",
        matching=Matching(alpha=alpha, beta=beta),
        teacher_short_side=None,
        teacher_batch_stats=False,
    )
    return replace(rules, distillation=distillation)


def _panels(difference: Difference) -> list[np.ndarray]:
    batch = difference.batch
    height, width = (int(side) for side in batch.sizes[0])
    image = batch.images[0, :, :height, :width].permute(1, 2, 0).cpu().numpy()
    depth = batch.inverse_depth[0, 0, :height, :width].cpu().numpy()
    chosen = batch.boxes_xyxy[difference.boxes]
    xywh = torch.cat([chosen[:, :2], chosen[:, 2:] - chosen[:, :2]], dim=1).tolist()
    masks = [
        _tinted(image, part[difference.boxes].cpu().numpy() > 0.5)
        for part in (difference.by_overlap, difference.with_depth)
    ]
    boxed = [outline_boxes(panel, xywh) for panel in (image, *masks)]
    return [boxed[0], depth_picture(depth, (height, width)), *boxed[1:]]


def _tinted(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Masks of the stride-4 grid over the image, one colour each."""
    canvas = 0.75 * image.astype(np.float32)
    for number, mask in enumerate(masks):
        fine = mask.repeat(4, axis=0).repeat(4, axis=1)[: image.shape[0], : image.shape[1]]
        canvas[fine] = 0.4 * image[fine] + 0.6 * PALETTE[number % len(PALETTE)]
    tinted: np.ndarray = np.clip(canvas, 0, 255).astype(np.uint8)
    return tinted


@app.command()
def compare(
    predictions: Annotated[list[Path], typer.Argument(help="COCO results, a column each.")],
    store: Annotated[Path, typer.Option(help="Store of the images.")],
    out: OutOption = Path("figures"),
    count: CountOption = 8,
    least_score: Annotated[float, typer.Option(min=0, max=1, help="Of what is drawn.")] = 0.3,
    titles: Annotated[
        list[str] | None, typer.Option("--title", help="Of each column; else the files' names.")
    ] = None,
) -> None:
    """Image | depth | one column for each run."""
    names = titles or [file.stem for file in predictions]
    if len(names) != len(predictions):
        raise typer.BadParameter(f"{len(names)} --title for {len(predictions)} files")
    images = open_store(store)
    found = [by_image(json.loads(f.read_text()), least_score=least_score) for f in predictions]
    rows = []
    for index in range(min(count, len(images))):
        image, image_id = images.image(index), int(images.image_ids[index])
        depth = depth_picture(images.inverse_depth(index), image.shape[:2])
        rows.append([image, depth, *(paint(image, entries[image_id]) for entries in found)])
    path = _save(rows, ("image", "pseudo-depth", *names), out / "compare.png")
    console.print(f"{len(rows)} images, not chosen -> [bold]{path}")


def _save(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet(rows, titles)).save(path)
    return path


def sheet(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], *, width: int = 420, gap: int = 6
) -> np.ndarray:
    """Rows of panels under their titles, on white; every panel ``width`` pixels wide."""
    header = 34
    panels = [[_as_wide(panel, width) for panel in row] for row in rows]
    heights = [row[0].height for row in panels]
    size = (len(titles) * (width + gap) - gap, header + sum(heights) + gap * (len(rows) - 1))
    page = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=20)
    for column, title in enumerate(titles):
        center = column * (width + gap) + width // 2
        draw.text((center, header // 2), title, fill=(40, 40, 40), font=font, anchor="mm")
    top = header
    for row, height in zip(panels, heights, strict=True):
        for column, panel in enumerate(row):
            page.paste(panel, (column * (width + gap), top))
        top += height + gap
    return np.asarray(page)


def _as_wide(panel: np.ndarray, width: int) -> Image.Image:
    height = round(panel.shape[0] * width / panel.shape[1])
    return Image.fromarray(panel).resize((width, height), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    app()
