"""Resize, flip and boxes against the recorded training mapper (golden ``mapper.npz``)."""

from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from boxdepth.trainer.data.augment import (
    Geometry,
    resize_shape,
    sample_mask,
    transform_boxes,
    transform_image,
)

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
OLD, NEW = (75, 101), (96, 129)
NOT_CROWD = [0, 1, 3, 4]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "mapper.npz"))


def geometry(name: str) -> Geometry:
    return Geometry(old_size=OLD, new_size=NEW, flip=name == "flip")


def test_every_recorded_size_is_resized_alike(golden: dict[str, np.ndarray]) -> None:
    for height, width, short, longest, *expected in golden["resize_table"].tolist():
        assert list(resize_shape(height, width, short_side=short, max_size=longest)) == expected


@pytest.mark.parametrize("name", ["plain", "flip"])
def test_image_bytes_are_equal(golden: dict[str, np.ndarray], name: str) -> None:
    image = transform_image(golden["image_rgb"], geometry(name))
    np.testing.assert_array_equal(image[..., ::-1], golden[f"boxinst/{name}/image"])


@pytest.mark.parametrize("name", ["plain", "flip"])
def test_boxes_are_equal(golden: dict[str, np.ndarray], name: str) -> None:
    xywh = golden["boxes_xywh"][NOT_CROWD]
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    boxes = transform_boxes(xyxy, geometry(name))
    np.testing.assert_allclose(boxes, golden[f"boxinst/{name}/boxes"], rtol=2e-5)


@pytest.mark.parametrize("name", ["plain", "flip"])
def test_masks_lie_where_the_recorded_polygons_lie(
    golden: dict[str, np.ndarray], name: str
) -> None:
    """A mask made before the resize equals one drawn after it, but for cells on the outline."""
    for before, after in zip(
        golden["polygons"][NOT_CROWD], golden[f"condinst/{name}/polygons"], strict=True
    ):
        mask = sample_mask(_drawn(before, OLD), geometry(name), stride=4)
        reference = _drawn(after, NEW)[2::4, 2::4]
        assert mask.shape == reference.shape
        assert (mask ^ reference).mean() < 0.01


def _drawn(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rle = coco_mask.frPyObjects([polygon.astype(float).tolist()], *size)
    return coco_mask.decode(coco_mask.merge(rle)).astype(bool)
