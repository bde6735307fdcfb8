"""Weights of the backbone: asked for by name, and missing in words."""

import pytest

from boxdepth.trainer import config
from boxdepth.trainer.build import build_model
from boxdepth.trainer.errors import DownloadError


def test_weights_that_cannot_be_downloaded_are_named_with_the_cure() -> None:
    """The suite runs offline (HF_HUB_OFFLINE), as many clusters do."""
    model = config.Model(num_classes=3, backbone=config.Backbone(weights="timm"))
    with pytest.raises(DownloadError, match=r"weights of resnet50 .*model\.backbone\.weights=FILE"):
        build_model(model)


def test_the_word_timm_and_a_path_are_told_apart() -> None:
    read = config.Backbone.model_validate_json('{"weights": "resnet50.safetensors"}')
    assert read.weights is not None
    assert read.weights != "timm"
    assert config.Backbone.model_validate_json('{"weights": "timm"}').weights == "timm"
