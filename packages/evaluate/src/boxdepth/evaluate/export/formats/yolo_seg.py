"""YOLO segmentation labels, in the folders that Ultralytics and RF-DETR both read.

`<split>/images/a.jpg` and `<split>/labels/a.txt`, a line for each object: class and x y x y ... as
fractions of the image, and `data.yaml`. Class numbers count from 0 in the order of category ids.
"""

import json
from pathlib import Path, PurePosixPath

import numpy as np

from boxdepth.evaluate.export.job import (
    Found,
    Job,
    Written,
    distinct_stems,
    place_image,
    plain_name,
    write_text,
)
from boxdepth.evaluate.export.shapes import Part, rasterise

# A hundred-thousandth of a pixel: less moves pixels that an outline just touches.
DIGITS = 9


def write(job: Job) -> Written:
    """Labels, links to images, data.yaml."""
    classes = class_numbers(job)
    labels = label_files(job)
    written = {}
    for image, rows in job.by_image():
        height, width = job.size(image)
        lines = []
        for row in rows:
            for part in job.outline(row).parts:
                points = np.clip(part.outer[:-1] / (width, height), 0.0, 1.0)
                numbers = " ".join(f"{v:.{DIGITS}f}" for v in points.reshape(-1).tolist())
                lines.append(f"{classes[int(job.items.category_index[row])]} {numbers}\n")
            written[row] = labels[image]
        write_text(job.out / labels[image], "".join(lines))
        place_image(job, image, job.out / image_file(job, image, labels[image]))
    write_text(job.out / "data.yaml", data_yaml(job, classes))
    return written


def read(job: Job) -> Found:
    """Line by line, as the writer put them."""
    labels = label_files(job)
    for image, rows in job.by_image():
        height, width = job.size(image)
        lines = (job.out / labels[image]).read_text("utf-8").splitlines()
        for row, line in zip(rows, lines, strict=True):
            numbers = np.array(line.split()[1:], dtype=np.float64).reshape(-1, 2)
            points = (numbers * (width, height)).round(4)  # undoes the division exactly
            yield row, rasterise([Part(outer=points)], (height, width))


def class_numbers(job: Job) -> dict[int, int]:
    """Number of each category, by its place; a root class (see `root_category`) has none."""
    root = root_category(job)
    kept = [place for place in range(len(job.items.categories)) if place != root]
    return {place: number for number, place in enumerate(kept)}


def root_category(job: Job) -> int | None:
    """Place of a category that only heads the others, as Roboflow's exports have it, or None."""
    categories = job.items.categories
    used = set(job.items.category_index.tolist())
    for place, category in enumerate(categories):
        others = [c for other, c in enumerate(categories) if other != place]
        heads = all(c.get("supercategory") == category.get("name") for c in others)
        if (
            place not in used
            and others
            and heads
            and category.get("supercategory") in ("none", None)
        ):
            return place
    return None


def label_files(job: Job) -> list[str]:
    """Label file of each image; images whose names differ in the suffix alone keep it."""
    paths = [
        PurePosixPath(split) / "labels" / plain_name(name, drop=split)
        for split, name in zip(job.items.splits, job.items.image_names, strict=True)
    ]
    return [f"{stem}.txt" for stem in distinct_stems(paths)]


def image_file(job: Job, image: int, label: str) -> str:
    """Where the image of a label file belongs."""
    head, tail = label.split("/labels/", 1)
    suffix = PurePosixPath(job.items.image_names[image]).suffix
    return f"{head}/images/{tail[: -len('.txt')]}{suffix}"


def data_yaml(job: Job, classes: dict[int, int]) -> str:
    """Splits and class names."""
    there = {path.parent.name for path in job.out.glob("*/labels")} | set(job.items.splits)
    usual = [split for split in ("train", "valid", "test") if split in there]
    splits = [*usual, *sorted(there.difference(usual))]
    folders = {split: f"{split}/images" for split in splits}
    train = folders.get("train", folders[splits[0]] if splits else "train/images")
    lines = [f"path: {json.dumps(str(job.out.resolve()), ensure_ascii=False)}", f"train: {train}"]
    if "valid" in folders:
        lines.append(f"val: {folders['valid']}")
    else:
        lines += ["# no validation split was given: this one says nothing about new images",
                  f"val: {train}"]  # fmt: skip
    if "test" in folders:
        lines.append(f"test: {folders['test']}")
    lines += [f"nc: {len(classes)}", "names:"]
    names = job.items.category_names
    lines += [
        f"  {n}: {json.dumps(names[place], ensure_ascii=False)}" for place, n in classes.items()
    ]
    return "\n".join(lines) + "\n"


def commands(out: Path) -> list[str]:
    """What trains on it."""
    return [
        f"yolo segment train data={out / 'data.yaml'} model=yolo26n-seg.pt imgsz=640",
        'python -c "from rfdetr import RFDETRSegMedium; '
        f"RFDETRSegMedium().train(dataset_dir='{out}')\"",
    ]
