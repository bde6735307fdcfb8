"""What there is to say about a store in a few numbers."""

from typing import Any

import numpy as np

from boxdepth.depthgen.store import Store


def summarise_store(store: Store) -> dict[str, Any]:
    """Counts, sizes, provenance and statistics of a store, as JSON.

    ``box_side`` is the square root of a box's area in pixels; ``boxes_per_class`` counts what is
    not a crowd.
    """
    attributes = store.attributes
    boxes = [store.boxes(i) for i in range(len(store))]
    # A store of an earlier version may hold no usable image at all.
    labels = np.concatenate([np.zeros(0, np.int64), *(b.label for b in boxes)])
    crowd = np.concatenate([np.zeros(0, bool), *(b.crowd for b in boxes)])
    xyxy = np.concatenate([np.zeros((0, 4), np.float32), *(b.xyxy for b in boxes)])
    sides = np.sqrt(np.prod(xyxy[:, 2:] - xyxy[:, :2], axis=1))
    counts = np.bincount(labels[~crowd], minlength=len(attributes.categories))
    return {
        "store": str(store.path),
        "dataset": attributes.dataset,
        "split": attributes.split,
        "images": len(store),
        "skipped": len(store.skipped),
        "images_without_boxes": sum(1 for b in boxes if not len(b.label)),
        "boxes": len(labels),
        "crowds": int(crowd.sum()),
        "masks": attributes.masks,
        "classes": len(attributes.categories),
        "depth_invalid": int((~store.depth_valid).sum()),
        "depth": {
            "kind": attributes.depth.kind,
            "sign": attributes.depth.sign,
            "grid": "x".join(str(side) for side in attributes.depth.grid),
            "bits": attributes.depth.bits,
        },
        "generator": dict(attributes.generator),
        "bytes": store.nbytes,
        "unit": attributes.unit,
        "shards": attributes.units,
        "image_height": _spread(store.image_sizes[:, 0]),
        "image_width": _spread(store.image_sizes[:, 1]),
        "box_side": _spread(sides),
        "boxes_per_class": {
            category.name: int(count)
            for category, count in zip(attributes.categories, counts, strict=True)
            if count
        },
        "fingerprint": store.fingerprint,
    }


def _spread(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    low, middle, high = np.percentile(values, (0, 50, 100))
    return {"min": float(low), "median": float(middle), "max": float(high)}
