"""What is to be exported: images, classes and masks, with the ids, names and splits of the user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np

from boxdepth.evaluate.results import (
    DataError,
    GroundTruth,
    MaskTable,
    UsageError,
    load_json,
    read_annotations,
    read_predictions,
)
from boxdepth.evaluate.results.arrays import Bool, Float64, Int64

SPLITS = {
    "train": "train", "train2017": "train", "training": "train",
    "val": "valid", "valid": "valid", "val2017": "valid", "validation": "valid",
    "test": "test", "test2017": "test",
}  # fmt: skip
Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSet:
    """Objects in the order of their images.

    Attributes:
        images: records of the file, by rising id.
        image_names: `file_name` of each.
        image_sizes: (height, width) in pixels.
        splits: "train", "valid", "test" or the user's own word, for each image.
        categories: records of the file, by rising id.
        ids: annotation ids.
        image_index, category_index: places in the lists above.
        boxes_xywh: in pixels.
        crowd: regions that stand for many objects.
        masks: absent where there is a box alone.
        records: each object's record in its file.
        head: keys of the annotation file beside its three tables.
        notes: what was filled in or looks odd, in sentences.
    """

    images: tuple[Record, ...]
    image_names: tuple[str, ...]
    image_sizes: Int64[np.ndarray, "i 2"]
    splits: tuple[str, ...]
    categories: tuple[Record, ...]
    category_names: tuple[str, ...]
    ids: Int64[np.ndarray, " n"]
    image_index: Int64[np.ndarray, " n"]
    category_index: Int64[np.ndarray, " n"]
    boxes_xywh: Float64[np.ndarray, "n 4"]
    crowd: Bool[np.ndarray, " n"]
    masks: MaskTable
    records: tuple[Record, ...]
    head: Mapping[str, Any]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def image_id(self, row: int) -> int:
        """Id of the image of object `row`."""
        return whole(self.images[self.image_index[row]]["id"])


def whole(value: object) -> int:
    """An id that was checked already: a whole number, or its text."""
    return int(float(cast("str", value))) if not isinstance(value, int) else value


def read_source(
    masks: Path,
    *,
    annotations: Path | None = None,
    split: str | None = None,
    least_score: float = 0.0,
) -> ExportSet:
    """Read a COCO annotation file, or COCO results together with the annotations they are for.

    Results that carry the `id` of an annotation (as `trainer predict --boxes` writes them) are the
    masks of those annotations; an annotation that has a mask already keeps it. Results without ids
    are objects of their own.

    Args:
        masks: annotations with masks, or results with masks.
        annotations: where results are given, the file with images, categories and given boxes; by
            default the `.images.json` beside them.
        split: of all images; by default what an image's `split` or the folder of its name says.
        least_score: results with a lower score are left out.

    Raises:
        DataError: names every fault in the files.
        UsageError: results without annotations, or annotations with annotations.
    """
    document = load_json(masks)
    if isinstance(document, dict):
        if annotations is not None:
            raise UsageError(f"{masks} is an annotation file itself: leave out --annotations.")
        return _from_annotations(masks, document, split)
    beside = masks.with_name(f"{masks.name.removesuffix('.json')}.images.json")
    annotations = annotations or (beside if beside.is_file() else None)
    if annotations is None:
        raise UsageError(
            f"{masks} is a list of results: pass --annotations, the file with its images (none is "
            f"beside it as {beside.name}, where `trainer predict` writes it)."
        )
    given = _from_annotations(annotations, load_json(annotations), split)
    return _with_results(given, annotations, masks, cast("list[Record]", document), least_score)


def _from_annotations(path: Path, document: object, split: str | None) -> ExportSet:
    truth = read_annotations(path)
    tables = cast("dict[str, Any]", document)
    images = sorted(tables["images"], key=lambda record: whole(record["id"]))
    categories = sorted(tables["categories"], key=lambda record: whole(record["id"]))
    nameless = [record["id"] for record, name in zip(images, truth.image_names, strict=True)
                if not name]  # fmt: skip
    if nameless:
        raise DataError(f"{path}: image {nameless[0]} has no file_name: other tools go by names")
    by_id = {whole(record["id"]): record for record in tables["annotations"]}
    tabled = ("images", "annotations", "categories")
    return _by_image(
        ExportSet(
            images=tuple(images),
            image_names=truth.image_names,
            image_sizes=truth.image_sizes,
            splits=tuple(split or split_of(record) for record in images),
            categories=tuple(categories),
            category_names=truth.category_names,
            ids=truth.ids,
            image_index=truth.image_index,
            category_index=truth.category_index,
            boxes_xywh=truth.boxes_xywh,
            crowd=truth.crowd,
            masks=truth.masks,
            records=tuple(by_id[i] for i in truth.ids.tolist()),
            head={key: value for key, value in tables.items() if key not in tabled},
            notes=truth.notes,
        )
    )


def _with_results(
    given: ExportSet, annotations: Path, path: Path, raw: Sequence[Record], least_score: float
) -> ExportSet:
    truth: GroundTruth = read_annotations(annotations)
    found = read_predictions(path, truth)
    kept = np.flatnonzero(found.scores >= least_score)
    found = found.take(kept)
    records = [raw[row] for row in found.record.tolist()]
    has_id = [record.get("id") is not None for record in records]
    row_of = {i: row for row, i in enumerate(given.ids.tolist())}
    if any(has_id):
        if not all(has_id):
            raise DataError(f"{path}: {has_id.count(False)} results have no id, others have one")
        strange = [r["id"] for r in records if whole(r["id"]) not in row_of]
        if strange:
            raise DataError(f"{path}: id {strange[0]!r} is no annotation of {annotations}")
        owners = [row_of[whole(record["id"])] for record in records]
        twice = len(owners) - len(set(owners))
        if twice:
            raise DataError(f"{path}: {twice} results carry the id of another result")
        return _filled(given, found.masks, owners, records, least_score)
    first = int(given.ids.max(initial=0)) + 1
    return _by_image(
        ExportSet(
            images=given.images,
            image_names=given.image_names,
            image_sizes=given.image_sizes,
            splits=given.splits,
            categories=given.categories,
            category_names=given.category_names,
            ids=np.arange(first, first + len(found)),
            image_index=found.image_index,
            category_index=found.category_index,
            boxes_xywh=found.boxes_xywh,
            crowd=np.zeros(len(found), dtype=bool),
            masks=found.masks,
            records=tuple(records),
            head=given.head,
            notes=(*truth.notes, *found.notes),
        )
    )


def _filled(
    given: ExportSet,
    masks: MaskTable,
    owners: list[int],
    results: list[Record],
    least_score: float,
) -> ExportSet:
    """The given annotations, those without a mask with that of their result."""
    both = MaskTable.joined((given.masks, masks))
    order = np.arange(len(given))
    records = list(given.records)
    for place, (owner, result) in enumerate(zip(owners, results, strict=True)):
        if not given.masks.present[owner]:
            order[owner] = len(given) + place
            extra: Record = {key: result[key] for key in ("score", "quality") if key in result}
            records[owner] = {**records[owner], **extra, "segmentation": result["segmentation"]}
    notes = list(given.notes)
    still = int((~both.take(order).present).sum())
    if still:
        notes.append(f"{still} annotations have neither a mask nor a result from {least_score:g}.")
    return replace(given, masks=both.take(order), records=tuple(records), notes=tuple(notes))


def _by_image(chosen: ExportSet) -> ExportSet:
    order = np.lexsort((chosen.ids, chosen.image_index))
    columns = ("ids", "image_index", "category_index", "boxes_xywh", "crowd")
    return replace(
        chosen,
        **{column: getattr(chosen, column)[order] for column in columns},
        masks=chosen.masks.take(order),
        records=tuple(chosen.records[row] for row in order.tolist()),
    )


def split_of(image: Record) -> str:
    """What an image's `split`, or else a folder of its name, says; "train" if neither does."""
    said = image.get("split")
    if isinstance(said, str) and said:
        return SPLITS.get(said.lower(), said)
    folders = PurePosixPath(str(image.get("file_name", ""))).parts[:-1]
    return next((SPLITS[f.lower()] for f in folders if f.lower() in SPLITS), "train")
