"""What is wrong with a dataset, or will surprise, said before the first step."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool

from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.data.augment import resize_shape
from boxdepth.trainer.data.categories import differences, listed, shown
from boxdepth.trainer.geometry.grid import padded_size
from boxdepth.trainer.runs.auto.facts import Facts, in_tiles
from boxdepth.trainer.structures import FPN_STRIDES, MASK_FEATURE_STRIDE, GroundTruth
from boxdepth.trainer.targets.assign import assign_targets

LOOKED_AT = 2000
"""Images whose boxes are put on the pyramid; of larger sets, that many evenly spread ones."""
SHAPELESS = 3 * MASK_FEATURE_STRIDE
"""Pixels of the input; masks of shorter boxes were worse than filled boxes (docs/lab-log.md)."""
FEW_COARSE = 0.1
"""Share of such boxes that is not worth a word."""
FEW_BOXES = 10
"""Of a class: fewer can't be learnt."""

Twice = tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to know: what it is, and the cure."""

    kind: str
    """For scripts: a word that stays."""
    text: str


def find_problems(
    train: Facts, val: Facts | None, config: RunConfig, *, twice: Twice | None
) -> list[Finding]:
    """Everything worth a word, in the order in which a person would want to know.

    Args:
        config: the run as it would be, for sizes and levels.
        twice: what `duplicate_images` found.
    """
    return [
        *_splits(train, val),
        *_classes(train),
        *_between(train, val),
        *_copies(train, twice),
        *_size(train, config),
    ]


def unseen_boxes(facts: Facts, config: RunConfig) -> Bool[np.ndarray, " k"]:
    """Boxes that no location learns at any of the run's input sizes: those looked at, in order.

    A location learns a box if it lies in the box's sampling region and the box belongs to its
    level, and no smaller box takes it (condinst.md 2.1). A box none learns adds nothing.
    """
    rows = np.flatnonzero(facts.boxes_per_image)
    rows = rows[:: max(-(-len(rows) // LOOKED_AT), 1)]
    parts = [_unseen_in(facts, int(row), config) for row in rows]
    return np.concatenate([np.zeros(0, dtype=bool), *parts])


def _unseen_in(facts: Facts, row: int, config: RunConfig) -> Bool[np.ndarray, " b"]:
    height, width = (int(side) for side in facts.image_sizes[row])
    boxes = torch.from_numpy(facts.boxes_xyxy[facts.image_index == row])
    augmentation, unseen = config.data.augmentation, np.ones(len(boxes), dtype=bool)
    for short_side in sorted(set(augmentation.short_sides)):
        new = resize_shape(height, width, short_side=short_side, max_size=augmentation.max_size)
        scale = torch.tensor([new[1] / width, new[0] / height] * 2, dtype=torch.float32)
        placed = boxes * scale
        padded = padded_size([new])
        targets = assign_targets(
            GroundTruth(
                boxes_xyxy=placed,
                labels=torch.zeros(len(boxes), dtype=torch.int64),
                image_index=torch.zeros(len(boxes), dtype=torch.int64),
                centers_xy=(placed[:, :2] + placed[:, 2:]) / 2,
                num_images=1,
            ),
            [(-(-padded[0] // stride), -(-padded[1] // stride)) for stride in FPN_STRIDES],
            config.model.fcos,
            num_classes=1,
        )
        unseen[targets.box_index[targets.positives].numpy()] = False
    return unseen


def _splits(train: Facts, val: Facts | None) -> Iterator[Finding]:
    without = train.images - train.images_with_boxes
    if without:
        yield Finding(
            kind="images_without_boxes",
            text=f"{without} of {train.images} images have no box and are left out (--set "
            "data.keep_empty=true learns from them that nothing is there)",
        )
    if train.images_without_depth:
        yield Finding(
            kind="images_without_depth",
            text=f"{train.images_without_depth} images have no usable depth: they teach with boxes "
            "and colour alone",
        )
    if val is None:
        yield Finding(
            kind="no_val",
            text="no val split: nothing says when it is good enough, and nothing stops it early "
            "(--val DATA)",
        )
    elif not val.boxes:
        yield Finding(kind="empty_val", text=f"{val.where} has no box: nothing can be scored on it")
    if train.masks_are_boxes:
        yield Finding(
            kind="filled_boxes",
            text=f"the masks of {train.filled_boxes} of {train.boxes} boxes are the boxes "
            "themselves, as some exporters write them: no mask is learnt from",
        )


def _classes(train: Facts) -> Iterator[Finding]:
    counts = train.boxes_per_class
    root = [
        row
        for row, category in enumerate(train.categories)
        if category.id == 0 and not counts[row] and counts.sum() and len(counts) > 1
    ]
    empty = [
        c.name for row, c in enumerate(train.categories) if not counts[row] and row not in root
    ]
    for row in root:
        yield Finding(
            kind="root_category",
            text=f"category 0 {shown(train.categories[row].name)} has no box: it looks like the "
            "root that Roboflow writes above its classes; it costs a useless output, no more",
        )
    if empty:
        yield Finding(
            kind="class_without_boxes",
            text=f"no box of {listed([shown(name) for name in empty])}: never predicted; delete "
            "the class or label some",
        )
    few = [
        f"{shown(c.name)} ({counts[row]})"
        for row, c in enumerate(train.categories)
        if 0 < counts[row] < FEW_BOXES
    ]
    if few:
        yield Finding(
            kind="class_with_few_boxes",
            text=f"fewer than {FEW_BOXES} boxes of {listed(few)}: do not expect it to be found",
        )


def _between(train: Facts, val: Facts | None) -> Iterator[Finding]:
    if val is None:
        return
    for text in differences(train.categories, val.categories, where=val.where):
        yield Finding(kind="categories_differ", text=text)
    learnt = {c.name for c, n in zip(train.categories, train.boxes_per_class, strict=True) if n}
    unknown = [
        c.name
        for c, count in zip(val.categories, val.boxes_per_class, strict=True)
        if count and c.name not in learnt
    ]
    if unknown:
        yield Finding(
            kind="class_only_in_val",
            text=f"{listed([shown(name) for name in unknown])}: boxes in val and none to learn "
            "from; its AP will be 0",
        )


def _copies(train: Facts, twice: Twice | None) -> Iterator[Finding]:
    if twice is None:
        yield Finding(
            kind="not_looked_for_copies",
            text="too many images to look for copies among them, and between train and val",
        )
        return
    groups, shared = twice
    if groups:
        names = listed([" = ".join(group) for group in groups])
        yield Finding(
            kind="duplicate_images",
            text=f"{len(groups)} images occur more than once ({names}): they count double, and "
            "their boxes may contradict one another",
        )
    if shared:
        yield Finding(
            kind="shared_images",
            text=f"{len(shared)} images are in train and in val "
            f"({listed([name for name, _ in shared])}): the score will flatter",
        )
    if repeats := _repeated_boxes(train):
        yield Finding(
            kind="duplicate_boxes",
            text=f"{repeats} boxes repeat another of the same image and class, side for side",
        )


def _repeated_boxes(facts: Facts) -> int:
    rows = np.column_stack([facts.image_index, facts.labels, facts.boxes_xyxy.astype(np.float64)])
    return len(rows) - len(np.unique(rows, axis=0))


def _size(train: Facts, config: RunConfig) -> Iterator[Finding]:
    tiling = config.data.augmentation.tiling
    seen = train if tiling is None else in_tiles(train, tiling)
    unseen = unseen_boxes(seen, config)
    if unseen.any():
        what = "boxes" if tiling is None else "boxes (and parts of boxes, in tiles)"
        share = f"{int(unseen.sum())} of the {len(unseen)} {what} looked at"
        yield Finding(
            kind="unseen_boxes",
            text=f"{share} are too small, or lie too close, for any location at this input size: "
            "nothing is learnt from them; a larger input sees more (--set "
            "data.augmentation.short_sides=[...] --set inference.short_side=...)",
        )
    sides = seen.long_sides() / seen.image_short_sides() * config.inference.short_side
    coarse = sides < SHAPELESS
    if coarse.mean() > FEW_COARSE:
        yield Finding(
            kind="coarse_boxes",
            text=f"{int(coarse.sum())} of {len(coarse)} boxes are shorter than {SHAPELESS} px in "
            f"the input ({config.inference.short_side} px): a mask is drawn in cells of "
            f"{MASK_FEATURE_STRIDE} px, so expect theirs to be no better than the box itself",
        )
