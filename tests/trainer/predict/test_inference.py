"""Pictures of any size: who else is in the batch changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.trainer.distill.test_pseudo import MODEL

from boxdepth.trainer.build import build_model, mask_head_spec
from boxdepth.trainer.geometry.grid import equally_padded, padded_size
from boxdepth.trainer.model.condinst import CondInst
from boxdepth.trainer.model.rules import Inference
from boxdepth.trainer.predict.inference import InferenceSpec, Picture, predict_pictures

SIZES = ((64, 80), (96, 64), (70, 130), (60, 90), (64, 64), (50, 120))


@pytest.fixture(scope="module")
def network() -> CondInst:
    torch.manual_seed(0)
    model = build_model(MODEL)
    torch.nn.init.constant_(model.head.ltrb.bias, 1.5)
    torch.nn.init.normal_(model.controller.weight, std=0.05)
    return model


def pictures(*, given: bool) -> list[Picture]:
    random = np.random.default_rng(0)
    boxes = np.array([[4, 6, 40, 44], [10, 3, 30, 60]], np.float32) if given else None
    return [
        Picture(rgb=random.integers(0, 256, (*size, 3), dtype=np.uint8), boxes_xyxy=boxes)
        for size in SIZES
    ]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("mates", [2, 3, 6])
def test_batch_mates_change_no_result(network: CondInst, mates: int, given: bool) -> None:
    """Group norms look at the padding too: a larger mate must not add any."""

    def found(batch_size: int) -> list:
        spec = InferenceSpec(
            mask_head=mask_head_spec(MODEL),
            settings=Inference(
                short_side=64,
                max_size=128,
                score_threshold=0.01,
                max_detections=10,
                batch_size=batch_size,
            ),
        )
        return list(predict_pictures(network, pictures(given=given), spec))

    for alone, together, size in zip(found(1), found(mates), SIZES, strict=True):
        assert alone.size == together.size == size
        assert len(alone.scores)
        np.testing.assert_allclose(together.scores, alone.scores, rtol=1e-5)
        np.testing.assert_allclose(together.boxes_xyxy, alone.boxes_xyxy, atol=1e-3)
        assert together.masks == alone.masks


def test_images_that_are_padded_alike_stay_together() -> None:
    assert padded_size([(64, 96)]) == (64, 96)
    assert padded_size([(65, 1), (1, 97)]) == (96, 128)
    assert equally_padded([(64, 80), (96, 64), (33, 96), (64, 97)]) == [[0, 2], [1], [3]]


def test_a_spec_takes_single_settings_by_name() -> None:
    spec = InferenceSpec(mask_head=mask_head_spec(MODEL), short_side=64, quality=True)
    assert (spec.settings.short_side, spec.settings.max_size) == (64, 1333)
    other = replace(spec, batch_size=3)  # type: ignore[call-arg]
    assert (other.settings.short_side, other.settings.batch_size) == (64, 3)
    assert (other.quality, other.mask_head) == (True, spec.mask_head)
    with pytest.raises(ValidationError, match="shortside"):
        InferenceSpec(mask_head=mask_head_spec(MODEL), shortside=64)
