"""Compare the drawn scenes with photographs: how many neighbouring pairs are alike.

    python pipelines/calibrate.py --photos DIR        a folder in COCO's layout

Prints the share of colour-similar pairs inside boxes, of both, and of the scenes also the shares of
colour-similar and depth-similar pairs within masks and across their borders. What the figures mean
stands in docs/sample-scenes.md.
"""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from pycocotools.coco import COCO
from rich.console import Console
from rich.progress import track

from boxdepth.depthgen.datasets.sample import Scene, render_scene, scene_seed
from boxdepth.depthgen.datasets.sample.pairs import NO_PAIRS, PairCounts, box_share
from boxdepth.depthgen.store import decode_image
from study.scene_pairs import alike_in_colour, alike_in_depth, counted

_console = Console(stderr=True)


def summary(shares: list[float]) -> dict[str, float]:
    """Mean and spread of the boxes' shares."""
    values = np.array([share for share in shares if share == share])
    low, median, high = np.percentile(values, [10, 50, 90])
    return {
        "boxes": len(values),
        "mean": round(float(values.mean()), 4),
        "p10": round(float(low), 4),
        "median": round(float(median), 4),
        "p90": round(float(high), 4),
    }


def pair_summary(counts: PairCounts) -> dict[str, float]:
    """Shares within masks and across borders, and how often a trusted pair is right."""
    trusted = counts.within_trusted + counts.across_trusted
    return {
        "within": round(counts.within_share, 4),
        "across": round(counts.across_share, 4),
        "right": round(counts.within_trusted / max(trusted, 1), 4),
    }


def shortest_side(image: np.ndarray, side: int | None) -> np.ndarray:
    """Resize as training does: bilinear, the shorter side to ``side``; None leaves it alone."""
    if side is None:
        return image
    scale = side / min(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def measure_photos(root: Path, side: int | None, limit: int | None) -> dict[str, Any]:
    """Shares of colour-similar pairs on photographs, at their own size or at a training size."""
    shares: list[float] = []
    counts = NO_PAIRS
    for split in ("train2017", "val2017"):
        with redirect_stdout(sys.stderr):
            coco = COCO(root / "annotations" / f"instances_{split}.json")
        for record in track(list(coco.imgs.values())[:limit], description=split, console=_console):
            name = record["file_name"]
            content = (root / split / name).read_bytes()
            image = shortest_side(decode_image(content, expected_size=None, name=name), side)
            scale = np.array([image.shape[1] / record["width"], image.shape[0] / record["height"]])
            trusted = alike_in_colour(image)
            masks = []
            for annotation in coco.imgToAnns[record["id"]]:
                if annotation["iscrowd"]:
                    continue
                corner, extent = np.reshape(annotation["bbox"], (2, 2)) * scale
                shares.append(box_share(trusted, (*corner.tolist(), *(corner + extent).tolist())))
                mask = Image.fromarray(coco.annToMask(annotation) > 0)
                masks.append(np.asarray(mask.resize(image.shape[1::-1])))
            if masks:
                counts += counted(trusted, np.stack(masks))
    return {"colour_in_boxes": summary(shares), "colour": pair_summary(counts)}


def scene_box_shares(scene: Scene) -> list[float]:
    """Shares of colour-similar pairs in the boxes of one scene."""
    trusted = alike_in_colour(scene.image)
    shares = []
    for mask in scene.masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x1, y1, x2, y2 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        shares.append(box_share(trusted, (float(x1), float(y1), float(x2), float(y2))))
    return shares


def measure_scenes(
    count: int, size: tuple[int, int], seed: int, camouflage: float
) -> dict[str, Any]:
    """Shares of colour-similar and depth-similar pairs on scenes."""
    shares: list[float] = []
    colour = depth = ordinary = camouflaged = NO_PAIRS
    instances = hidden = 0
    for index in track(range(count), description="scenes", console=_console):
        scene = render_scene(scene_seed(seed, "val", index), size, camouflage=camouflage)
        shares += scene_box_shares(scene)
        alike = alike_in_colour(scene.image)
        colour += counted(alike, scene.masks)
        ordinary += counted(alike, scene.masks * ~scene.camouflaged[:, None, None])
        camouflaged += counted(alike, scene.masks * scene.camouflaged[:, None, None])
        depth += counted(alike_in_depth(scene.inverse_depth), scene.masks)
        instances += len(scene.labels)
        hidden += int(scene.camouflaged.sum())
    return {
        "colour_in_boxes": summary(shares),
        "colour": pair_summary(colour),
        "colour_ordinary": pair_summary(ordinary),
        "colour_camouflaged": pair_summary(camouflaged),
        "exact_depth": pair_summary(depth),
        "shapes_per_scene": round(instances / count, 2),
        "camouflaged_share": round(hidden / instances, 3),
    }


def main(
    photos: Annotated[
        Path | None, typer.Option(help="Folder of photographs in COCO's layout.")
    ] = None,
    scenes: Annotated[int, typer.Option(help="Scenes to draw.", min=1)] = 300,
    height: Annotated[int, typer.Option(min=48)] = 192,
    width: Annotated[int, typer.Option(min=48)] = 256,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    short_side: Annotated[
        int | None, typer.Option(help="Resize photographs so; else their own size.")
    ] = None,
    camouflage: Annotated[
        float, typer.Option(min=0, max=1, help="Share of shapes coloured like what is behind them.")
    ] = 0.4,
    limit: Annotated[int | None, typer.Option(help="Photographs a split, at most.")] = None,
) -> None:
    """Print the figures as JSON."""
    result: dict[str, Any] = {"scenes": measure_scenes(scenes, (height, width), seed, camouflage)}
    if photos is not None:
        result["photos"] = measure_photos(photos, short_side, limit)
    typer.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    typer.run(main)
