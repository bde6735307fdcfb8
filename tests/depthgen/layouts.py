"""One set of boxes in three layouts: COCO's file, YOLO's folders, Pascal VOC's folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .conftest import encode, photo

NAMES = ["ape", "bus", "cup"]


def write_image(
    path: Path, seed: int = 0, size: tuple[int, int] = (48, 64), **options: Any
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF"}
    path.write_bytes(encode(photo(seed, *size), kind[path.suffix.lower()], **options))


def write_coco(root: Path) -> tuple[Path, dict[str, Any]]:
    """Five images in two folders, one without objects, boxes of whole pixels, some outlines."""
    random = np.random.default_rng(0)
    document: dict[str, Any] = {
        "images": [], "annotations": [],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)],
    }  # fmt: skip
    for k, name in enumerate(["a.jpg", "b.png", "sub/c.jpg", "sub/d.webp", "z z.jpg"]):
        size = (48, 64) if k % 2 else (80, 40)
        write_image(root / "images" / "train" / name, k, size)
        document["images"].append(
            {"id": k + 1, "file_name": name, "height": size[0], "width": size[1]}
        )
        for number in range(0 if k == 3 else 1 + k % 3):
            x, y, w, h = (int(v) for v in (*random.integers(0, 20, 2), *random.integers(4, 20, 2)))
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1, "image_id": k + 1,
                    "category_id": 1 + (k + number) % 3, "bbox": [x, y, w, h], "area": w * h,
                    "segmentation": [outline],
                }
            )  # fmt: skip
    file = root / "coco.json"
    file.write_text(json.dumps(document))
    return file, document


def by_image(document: dict[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    return [
        (image, [a for a in document["annotations"] if a["image_id"] == image["id"]])
        for image in document["images"]
    ]


def write_yolo(root: Path, document: dict[str, Any], *, outlines: bool) -> None:
    for image, annotations in by_image(document):
        h, w = image["height"], image["width"]
        lines = []
        for item in annotations:
            x, y, bw, bh = item["bbox"]
            values = [(x + bw / 2) / w, (y + bh / 2) / h, bw / w, bh / h]
            if outlines:
                values = [
                    v / (w if k % 2 == 0 else h) for k, v in enumerate(item["segmentation"][0])
                ]
            lines.append(" ".join([str(item["category_id"] - 1), *map(repr, values)]))
        if lines:
            file = (root / "labels" / "train" / image["file_name"]).with_suffix(".txt")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n")
    names = "\n".join(f"  {k}: {name}" for k, name in enumerate(NAMES))
    (root / "data.yaml").write_text(
        f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}"
    )


def write_voc(root: Path, document: dict[str, Any]) -> None:
    for image, annotations in by_image(document):
        objects = "".join(
            f"<object><name>{NAMES[a['category_id'] - 1]}</name><difficult>0</difficult><bndbox>"
            f"<xmin>{a['bbox'][0]}</xmin><ymin>{a['bbox'][1]}</ymin>"
            f"<xmax>{a['bbox'][0] + a['bbox'][2]}</xmax><ymax>{a['bbox'][1] + a['bbox'][3]}</ymax>"
            "</bndbox></object>"
            for a in annotations
        )
        file = (root / "Annotations" / "train" / image["file_name"]).with_suffix(".xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"<annotation><filename>x.jpg</filename><size><width>{image['width']}</width>"
            f"<height>{image['height']}</height><depth>3</depth></size>{objects}</annotation>"
        )
