"""A store as files that other tools read."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from boxdepth.depthgen.exchange.extras import need
from boxdepth.depthgen.exchange.hdf5 import export_hdf5
from boxdepth.depthgen.store import ConfigError, Store
from boxdepth.depthgen.store.errors import writing

Progress = Callable[[int, int], None]


def export_store(
    store: Store,
    out: Path,
    *,
    to: str,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write a store as ``hdf5`` (one file, lossless), ``webdataset`` (a folder of tar files),
    ``parquet`` (one file) or ``coco`` (boxes, ids and names as one annotation file).

    Returns:
        Bytes written.

    Raises:
        ConfigError: An unknown format, or ``out`` is there already.
        EnvironmentFailure: The disk is full, or fails.
        MissingExtraError: h5py or pyarrow is not installed.
    """
    if to not in FORMATS:
        raise ConfigError(f"{to!a} is none of {', '.join(FORMATS)}")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} is there already; name another place, or add --overwrite")
    aside = out.with_name(f".{out.name}.partial")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove(aside)
        try:
            FORMATS[to](store, aside, progress)
            nbytes = _nbytes(aside)
            _remove(out)
            aside.replace(out)
        finally:
            _remove(aside)
    return nbytes


def coco_document(store: Store) -> dict[str, Any]:
    """The boxes, ids, names and (where stored) masks of a store in COCO's format."""
    images, annotations = [], []
    categories = store.attributes.categories
    for i, name in enumerate(store.image_names):
        height, width = (int(side) for side in store.image_sizes[i])
        number = int(store.image_ids[i])
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        boxes = store.boxes(i)
        for k, mask in enumerate(store.masks(i)):
            left, top, right, bottom = (float(v) for v in boxes.xyxy[k])
            item = {
                "id": int(boxes.id[k]),
                "image_id": number,
                "category_id": categories[int(boxes.label[k])].id,
                "bbox": [left, top, right - left, bottom - top],
                "area": float(boxes.area[k]),
                "iscrowd": int(boxes.crowd[k]),
            }
            annotations.append(item if mask is None else item | {"segmentation": mask})
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": c.id, "name": c.name} for c in categories],
    }


def _coco(store: Store, out: Path, progress: Progress | None) -> None:
    out.write_text(json.dumps(coco_document(store), allow_nan=False))
    if progress:
        progress(len(store), len(store))


def _webdataset(store: Store, out: Path, progress: Progress | None) -> None:
    """Tar files of one unit each: image, depth as 16-bit PNG, boxes as JSON."""
    out.mkdir()
    per_file = store.attributes.unit
    for first in range(0, len(store), per_file):
        with tarfile.open(out / f"{first // per_file:06d}.tar", "w") as tar:
            for i in range(first, min(first + per_file, len(store))):
                for suffix, data in _sample(store, i).items():
                    # A dot in the key would be read as the beginning of the suffix.
                    info = tarfile.TarInfo(f"{i:09d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                if progress:
                    progress(i + 1, len(store))


def _sample(store: Store, i: int) -> dict[str, bytes]:
    data = store.image_bytes(i)
    suffix = "png" if data.startswith(b"\x89PNG") else "jpg"
    sample = {suffix: data, "json": json.dumps(_facts(store, i)).encode()}
    if store.depth_valid[i]:
        sample["depth.png"] = depth_png(store, i)
    return sample


def _facts(store: Store, i: int) -> dict[str, Any]:
    boxes, (scale, offset) = store.boxes(i), store.depth_scale(i)
    valid = bool(store.depth_valid[i])
    return {
        "id": int(store.image_ids[i]),
        "name": store.image_names[i],
        "size": [int(side) for side in store.image_sizes[i]],
        "boxes_xyxy": boxes.xyxy.astype(float).tolist(),
        "labels": boxes.label.tolist(),
        "box_ids": boxes.id.tolist(),
        "crowd": boxes.crowd.tolist(),
        "areas": boxes.area.astype(float).tolist(),
        "masks": store.masks(i),
        "depth_scale": float(scale) if valid else None,
        "depth_offset": float(offset) if valid else None,
    }


def depth_png(store: Store, i: int) -> bytes:
    """Depth as a 16-bit PNG: ``depth = pixel * scale + offset``."""
    buffer = io.BytesIO()
    Image.fromarray(store.quantised_depth(i).astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def _parquet(store: Store, out: Path, progress: Progress | None) -> None:
    """One row an image, one row group a unit; images as bytes and path, as `datasets` reads
    them."""
    arrow = need("pyarrow", extra="parquet", purpose="Parquet")
    parquet = need("pyarrow.parquet", extra="parquet", purpose="Parquet")
    picture = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    numbers = arrow.list_(arrow.int64())
    schema = arrow.schema(
        [
            ("id", arrow.int64()),
            ("name", arrow.string()),
            ("height", arrow.int32()),
            ("width", arrow.int32()),
            ("image", picture),
            ("depth", picture),
            ("depth_scale", arrow.float32()),
            ("depth_offset", arrow.float32()),
            ("boxes_xyxy", arrow.list_(arrow.list_(arrow.float32()))),
            ("labels", numbers),
            ("box_ids", numbers),
            ("crowd", arrow.list_(arrow.bool_())),
            ("areas", arrow.list_(arrow.float32())),
            ("mask_counts", arrow.list_(arrow.string())),
        ],
        metadata={"boxdepth.store": json.dumps(store.attributes.to_json())},
    )
    per_group = store.attributes.unit
    with parquet.ParquetWriter(out, schema) as writer:
        for first in range(0, len(store), per_group):
            rows = range(first, min(first + per_group, len(store)))
            writer.write_table(arrow.Table.from_pylist([_row(store, i) for i in rows], schema))
            if progress:
                progress(rows.stop, len(store))


def _row(store: Store, i: int) -> dict[str, Any]:
    facts = _facts(store, i)
    height, width = facts.pop("size")
    masks = [mask["counts"] if mask else None for mask in facts.pop("masks")]
    depth = {"bytes": depth_png(store, i), "path": None} if store.depth_valid[i] else None
    image = {"bytes": store.image_bytes(i), "path": facts["name"]}
    return facts | {
        "height": height, "width": width, "image": image, "depth": depth, "mask_counts": masks,
    }  # fmt: skip


def _nbytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


FORMATS: Final[Mapping[str, Callable[[Store, Path, Progress | None], None]]] = {
    "hdf5": export_hdf5,
    "webdataset": _webdataset,
    "parquet": _parquet,
    "coco": _coco,
}
"""What a store can be written as."""
