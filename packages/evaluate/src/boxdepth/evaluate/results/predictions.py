"""COCO results (a list of detections) as checked columns."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxdepth.evaluate.results.annotations import GroundTruth
from boxdepth.evaluate.results.masks import MaskTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Detections in a canonical order: image, falling score, box, class, mask.

    The order makes every score a function of the set of detections, not of the file's order.

    Attributes:
        source: the file, or a word for a list in memory.
        record: each detection's place in the file.
        image_index, category_index: places in the ground truth's lists.
        scores: as given; any finite number ranks.
        boxes_xywh: in pixels, from the mask where the file has none.
        has_box: which detections came with a box of their own.
        masks: one per detection, absent where the file has boxes alone.
        notes: what was filled in or looks odd, in sentences.
    """

    source: str
    record: Int64[np.ndarray, " n"]
    image_index: Int64[np.ndarray, " n"]
    category_index: Int64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]
    boxes_xywh: Float64[np.ndarray, "n 4"]
    has_box: Bool[np.ndarray, " n"]
    masks: MaskTable
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, order: Int64[np.ndarray, " m"]) -> "Predictions":
        """Detections `order`, in that order."""
        columns = ("record", "image_index", "category_index", "scores", "boxes_xywh", "has_box")
        chosen = {column: getattr(self, column)[order] for column in columns}
        return replace(self, **chosen, masks=self.masks.take(order))


def canonical_order(predictions: Predictions) -> Predictions:
    """The same detections by image, falling score, box, class and mask."""
    boxes, masks = predictions.boxes_xywh, predictions.masks
    keys = (
        masks.areas,
        predictions.category_index,
        *(boxes[:, side] for side in (3, 2, 1, 0)),
        -predictions.scores,
        predictions.image_index,
    )
    order = np.lexsort(keys)
    return predictions.take(_by_string(predictions, order, np.stack(keys, axis=1)))


def _by_string(predictions: Predictions, order: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Put detections equal in every number into the order of their mask strings."""
    if len(order) < 2 or not predictions.masks.present.any():
        return order
    equal = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    if not equal.any():
        return order
    masks = predictions.masks
    group = np.concatenate(([0], np.cumsum(~equal)))
    tied = np.flatnonzero(np.concatenate(([False], equal)) | np.concatenate((equal, [False])))

    def key(place: int) -> tuple[int, bytes]:
        row = int(order[place])
        return int(group[place]), masks.string(row)

    result = order.copy()
    result[tied] = order[sorted(tied.tolist(), key=key)]
    return result


def describe(predictions: Predictions, truth: GroundTruth) -> tuple[str, ...]:
    """What was filled in or looks odd, in sentences."""
    notes = []
    without = len(truth.image_ids) - len(np.unique(predictions.image_index))
    if without:
        notes.append(f"Images without results: {without} of {len(truth.image_ids)}.")
    scores = predictions.scores
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        notes.append(
            f"Scores run from {scores.min():g} to {scores.max():g}, expected [0, 1]: "
            "only their order counts."
        )
    notes.extend(_box_notes(predictions, truth))
    tied = _tied(predictions)
    if tied:
        notes.append(
            f"{tied} detections share their score with another of the same image and class: they "
            "are ordered by box, and a tool that keeps the file's order may differ slightly."
        )
    never = np.setdiff1d(predictions.category_index, truth.category_index)
    if len(never):
        names = ", ".join(truth.category_names[i] for i in never[:5].tolist())
        notes.append(
            f"Classes that are predicted but have no annotation: {len(never)} ({names}"
            f"{', ...' if len(never) > 5 else ''}). COCO AP leaves them out, they cost nothing."
        )
    return tuple(notes)


def _box_notes(predictions: Predictions, truth: GroundTruth) -> Iterator[str]:
    boxed = predictions.has_box
    if not boxed.any():
        return
    missing = int((~boxed).sum())
    if missing:
        yield f"{missing} detections have no bbox: computed from the mask."
    boxes = predictions.boxes_xywh[boxed]
    sizes = truth.image_sizes[predictions.image_index[boxed]]
    leaves = (boxes[:, :2] + boxes[:, 2:] > sizes[:, ::-1] * 1.05 + 2).any(axis=1)
    share = float(leaves.mean())
    if share > 0.2:
        yield (
            f"{share:.0%} of the boxes leave their image: are they [x1, y1, x2, y2] instead of "
            "[x, y, width, height]? `evaluate check` tells."
        )


def _tied(predictions: Predictions) -> int:
    keys = (predictions.scores, predictions.category_index, predictions.image_index)
    order = np.lexsort(keys)
    stacked = np.stack(keys, axis=1)[order]
    equal = (stacked[1:] == stacked[:-1]).all(axis=1)
    return int((np.concatenate(([False], equal)) | np.concatenate((equal, [False]))).sum())
