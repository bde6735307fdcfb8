"""Predictions on all images of a store."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from boxdepth.trainer.data.validation_set import ValidationSet
from boxdepth.trainer.predict.inference import InferenceSpec, Picture, predict_pictures
from boxdepth.trainer.predict.results import to_coco_results
from boxdepth.trainer.predict.tiled import predict_tiled


def predict_store(
    model: nn.Module,
    images: ValidationSet,
    spec: InferenceSpec,
    *,
    category_ids: Sequence[int | None],
) -> list[dict[str, Any]]:
    """COCO results for every image of a store, in its order.

    Args:
        category_ids: id of each class of the network; None: it is left out.
    """

    def pictures() -> Iterator[Picture]:
        for row in range(len(images)):
            yield Picture(rgb=images.rgb(row))

    results = []
    tiling = spec.settings.tiling
    found = (
        predict_pictures(model, pictures(), spec)
        if tiling is None
        else (predict_tiled(model, picture, spec, tiling) for picture in pictures())
    )
    for row, instances in enumerate(found):
        results += to_coco_results(
            instances, image_id=images.image_id(row), category_ids=category_ids
        )
    return results
