"""A store as one HDF5 file, and back, without loss."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from boxdepth.depthgen.exchange.extras import need
from boxdepth.depthgen.store import (
    DataError,
    DepthInfo,
    ImageRecord,
    Store,
    UnitRows,
    open_writer,
    plan_store,
)
from boxdepth.depthgen.store.depth import Quantised
from boxdepth.depthgen.store.schema import attributes_from_json

FORMAT: Final = "boxdepth.hdf5"
VERSION: Final = 1
Progress = Callable[[int, int], None]


def export_hdf5(store: Store, out: Path, progress: Progress | None) -> None:
    """One row an image in every data set; what the attributes of the store say is the root's
    attribute ``store``, as JSON."""
    h5py = need("h5py", extra="hdf5", purpose="HDF5")
    count, (rows, columns) = len(store), store.attributes.depth.grid
    with h5py.File(out, "w") as file:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        file.attrs["store"] = json.dumps(store.attributes.to_json())
        text, raw = h5py.string_dtype(), h5py.vlen_dtype(np.uint8)
        file["image/id"], file["image/size"] = store.image_ids, store.image_sizes
        file.create_dataset("image/name", data=np.array(store.image_names, object), dtype=text)
        files = file.create_dataset("image/file", (count,), dtype=raw)
        shape = (count, rows, columns)
        maps = {"chunks": (1, rows, columns), "compression": "gzip", "shuffle": True}
        q = file.create_dataset("depth/q", shape, dtype="u2", **maps)
        measured = (
            file.create_dataset("depth/measured", shape, dtype="u1", **maps)
            if store.attributes.depth.holes
            else None
        )
        for i in range(count):
            files[i] = np.frombuffer(store.image_bytes(i), np.uint8)
            q[i] = store.quantised_depth(i)
            if measured is not None:
                measured[i] = store.depth_measured(i)
            if progress:
                progress(i + 1, count)
        scales = np.array([store.depth_scale(i) for i in range(count)], np.float32)
        file["depth/scale"], file["depth/offset"] = scales[:, 0], scales[:, 1]
        file["depth/valid"] = store.depth_valid.astype(np.uint8)
        _write_boxes(file, store, text)


def _write_boxes(file: Any, store: Store, text: Any) -> None:
    boxes = [store.boxes(i) for i in range(len(store))]
    file["boxes/ptr"] = np.cumsum([0, *(len(b.label) for b in boxes)]).astype(np.int64)
    for name in ("xyxy", "label", "id", "crowd", "area"):
        file[f"boxes/{name}"] = np.concatenate([getattr(b, name) for b in boxes])
    if store.attributes.masks:
        counts = [m["counts"] if m else "" for i in range(len(store)) for m in store.masks(i)]
        file.create_dataset("masks/counts", data=np.array(counts, object), dtype=text)


def is_exchange_file(path: Path) -> bool:
    """True for a file that ``export_hdf5`` wrote."""
    if not path.is_file() or path.suffix.lower() not in (".h5", ".hdf5"):
        return False
    h5py = need("h5py", extra="hdf5", purpose="HDF5")
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        return bool(file.attrs.get("format") == FORMAT)


def import_hdf5(
    source: Path,
    store: Path | str,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """A store out of the file that ``export_hdf5`` wrote: equal images, depth, boxes, masks.

    Returns:
        Images.

    Raises:
        DataError: Not such a file, or damaged.
    """
    h5py = need("h5py", extra="hdf5", purpose="HDF5")
    try:
        with h5py.File(source, "r") as file:
            if file.attrs.get("format") != FORMAT or file.attrs.get("version") != VERSION:
                raise DataError(f"{source}: not a file of `depthgen export --to hdf5`")
            return _import(file, source, store, overwrite=overwrite, progress=progress)
    except (KeyError, OSError) as error:
        raise DataError(f"{source}: damaged ({error}); export it again") from error


def _import(
    file: Any, source: Path, store: Path | str, *, overwrite: bool, progress: Progress | None
) -> int:
    given = attributes_from_json(json.loads(file.attrs["store"]), path=source)
    records = _records(file, masks=given.masks)
    files = file["image/file"]
    attributes = plan_store(
        records,
        dataset=given.dataset,
        split=given.split,
        categories=given.categories,
        image_nbytes=np.array([len(files[i]) for i in range(len(records))], np.int64),
        depth=DepthInfo(**{n: getattr(given.depth, n) for n in DepthInfo.__dataclass_fields__}),
        generator=given.generator,
        unit=given.unit,
        masks=given.masks,
    )
    with open_writer(store, attributes, records, overwrite=overwrite) as writer:
        for unit in writer.pending():
            rows = writer.rows(unit)
            writer.write_unit(unit, _unit_rows(file, rows, holes=given.depth.holes))
            if progress:
                progress(rows.stop, len(records))
        writer.finish()
    return len(records)


def _unit_rows(file: Any, rows: range, *, holes: bool) -> UnitRows:
    depth = file["depth"]
    valid = depth["valid"][rows.start : rows.stop]
    return UnitRows(
        images=[file["image/file"][i].tobytes() for i in rows],
        depth=[
            Quantised(depth["q"][i], depth["scale"][i], depth["offset"][i]) if here else None
            for i, here in zip(rows, valid, strict=True)
        ],
        measured=[depth["measured"][i].astype(bool) for i in rows] if holes else None,
    )


def _records(file: Any, *, masks: bool) -> list[ImageRecord]:
    ids, sizes = file["image/id"][...], file["image/size"][...]
    names = file["image/name"].asstr()[...]
    boxes = {name: item[...] for name, item in file["boxes"].items()}
    counts = file["masks/counts"].asstr()[...] if masks else None
    records = []
    for i, (number, name) in enumerate(zip(ids, names, strict=True)):
        part = slice(int(boxes["ptr"][i]), int(boxes["ptr"][i + 1]))
        size = [int(side) for side in sizes[i]]
        texts = [] if counts is None else counts[part]
        records.append(
            ImageRecord(
                id=int(number),
                name=name,
                path=None,
                height=size[0],
                width=size[1],
                boxes_xyxy=boxes["xyxy"][part],
                labels=boxes["label"][part].astype(np.int64),
                box_ids=boxes["id"][part],
                crowd=boxes["crowd"][part].astype(bool),
                areas=boxes["area"][part],
                masks=tuple({"size": size, "counts": t} if t else None for t in texts)
                if counts is not None
                else None,
            )
        )
    return records
