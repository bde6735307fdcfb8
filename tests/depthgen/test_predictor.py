"""Depth models: found by name, folder or hub id; loaded whole or not at all."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from boxdepth.depthgen.models import MODELS, find_model
from boxdepth.depthgen.predictor import Predictor, load_predictor, predict_depth
from boxdepth.depthgen.preprocess import Preprocessing, input_size, resize_image
from boxdepth.depthgen.store import ConfigError, DataError, EnvironmentFailure

from .conftest import photo, write_processor


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return load_predictor(find_model(str(tiny_model)), device="cpu")


@pytest.fixture
def copied_model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def _change_weights(folder: Path, change: object) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)  # type: ignore[operator]
    save_file(weights, file, metadata={"format": "pt"})


def _settings(aspect: str = "square", side: int = 384, multiple: int = 32) -> Preprocessing:
    return Preprocessing(
        height=side, width=side, multiple=multiple, aspect=aspect, resample=3, rescale=1 / 255,
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )  # fmt: skip


def test_depth_equals_transformers_own_path(predictor: Predictor) -> None:
    """Our preparation, and transformers' processor with the same settings, differ by rounding."""
    from transformers import DPTImageProcessor

    image = photo(3, 200, 300)
    processor = DPTImageProcessor(
        do_resize=True, size={"height": 32, "width": 32}, keep_aspect_ratio=False,
        ensure_multiple_of=1, resample=3, do_rescale=True, rescale_factor=1 / 255,
        do_normalize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_pad=False,
    )  # fmt: skip
    inputs = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
    ours = resize_image(image, predictor.preprocessing)
    theirs = (inputs[0].permute(1, 2, 0).numpy() * 0.5 + 0.5) * 255
    assert np.abs(theirs - ours).max() <= 1.01
    with torch.inference_mode():
        expected = predictor.model(inputs).predicted_depth[0].numpy()
    got = predict_depth(predictor, [ours], grid=expected.shape).depth[0]
    np.testing.assert_allclose(got, expected, atol=0.02 * np.ptp(expected))


def test_the_grid_covers_the_image_with_half_pixel_centres(predictor: Predictor) -> None:
    pixels = resize_image(photo(0), predictor.preprocessing)
    fine = predict_depth(predictor, [pixels], grid=(32, 32)).depth[0]
    coarse = predict_depth(predictor, [pixels], grid=(1, 1)).depth[0]
    assert coarse.shape == (1, 1)
    assert fine.min() < coarse[0, 0] < fine.max()


def test_batching_changes_depth_by_rounding_only(predictor: Predictor) -> None:
    pixels = [resize_image(photo(k), predictor.preprocessing) for k in range(5)]
    together = predict_depth(predictor, pixels, grid=(16, 16)).depth
    alone = [predict_depth(predictor, [item], grid=(16, 16)).depth[0] for item in pixels]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("image", "expected"),
    [((480, 640), (384, 512)), ((640, 480), (512, 384)), ((1024, 2048), (384, 768)),
     ((384, 384), (384, 384)), ((300, 300), (384, 384))],
)  # fmt: skip
def test_kept_aspect_follows_dpts_rule(image: tuple[int, int], expected: tuple[int, int]) -> None:
    assert input_size(*image, _settings("keep")) == expected
    assert input_size(*image, _settings("square")) == (384, 384)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([1, 14, 16, 32]))
def test_input_sides_are_positive_multiples(height: int, width: int, multiple: int) -> None:
    rows, columns = input_size(height, width, _settings("keep", multiple=multiple))
    assert rows % multiple == 0 < rows
    assert columns % multiple == 0 < columns


def test_weights_that_never_matter_may_be_missing(copied_model: Path, predictor: Predictor) -> None:
    """Intel's own DPT files lack the first fusion layer's unused residual unit."""
    prefix = "neck.fusion_stage.layers.0.residual_layer1."

    def drop(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if name.startswith(prefix)]:
            del weights[name]

    _change_weights(copied_model, drop)
    reduced = load_predictor(find_model(str(copied_model)), device="cpu")
    pixels = [resize_image(photo(0), predictor.preprocessing)]
    # Two passes over equal weights may differ in their last bits on a busy machine.
    np.testing.assert_allclose(
        predict_depth(reduced, pixels, grid=(32, 32)).depth,
        predict_depth(predictor, pixels, grid=(32, 32)).depth,
        rtol=1e-3,
        atol=1e-3,
    )


def test_any_other_missing_foreign_or_spoilt_weight_is_refused(copied_model: Path) -> None:
    def load() -> None:
        load_predictor(find_model(str(copied_model)), device="cpu")

    original = (copied_model / "model.safetensors").read_bytes()
    _change_weights(copied_model, lambda w: w.pop("head.head.4.weight"))
    with pytest.raises(DataError, match=r"missing: head\.head\.4\.weight"):
        load()
    (copied_model / "model.safetensors").write_bytes(original)
    _change_weights(copied_model, lambda w: w.update(extra=torch.zeros(1)))
    with pytest.raises(DataError, match="unexpected: extra"):
        load()
    (copied_model / "model.safetensors").write_bytes(original)
    _change_weights(copied_model, lambda w: w["head.head.4.weight"].fill_(float("nan")))
    with pytest.raises(DataError, match=r"not finite: head\.head\.4\.weight"):
        load()
    (copied_model / "model.safetensors").write_bytes(original[:5000])
    with pytest.raises(DataError, match="cannot be loaded"):
        load()


def test_files_that_are_missing_are_named(copied_model: Path) -> None:
    (copied_model / "preprocessor_config.json").unlink()
    with pytest.raises(DataError, match=r"preprocessor_config\.json"):
        find_model(str(copied_model))
    write_processor(copied_model, image_mean=[0.5])
    with pytest.raises(DataError, match=r"image_mean is .* three numbers are expected"):
        load_predictor(find_model(str(copied_model)), device="cpu")
    write_processor(copied_model)
    config = json.loads((copied_model / "config.json").read_text())
    (copied_model / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(DataError, match="model_type 'bert' is not one of dpt"):
        load_predictor(find_model(str(copied_model)), device="cpu")
    (copied_model / "model.safetensors").rename(copied_model / "model.pkl")
    with pytest.raises(DataError, match="other formats can run code"):
        find_model(str(copied_model))


def test_provenance_tells_model_weights_settings_and_versions(predictor: Predictor) -> None:
    import hashlib

    told = predictor.provenance()
    weights = (predictor.files.folder / "model.safetensors").read_bytes()
    assert told["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert told["revision"] == "local"
    assert told["preprocessing"]["mean"] == (0.5, 0.5, 0.5)
    assert set(told["versions"]) == {"torch", "transformers"}
    assert str(predictor.files.folder.parent) not in json.dumps(told)


def test_what_half_precision_loses_is_computed_again(copied_model: Path) -> None:
    """Products beyond 65,504 are infinite in fp16 and fine in fp32."""

    def enlarge(weights: dict[str, torch.Tensor]) -> None:
        weights["head.head.2.weight"] *= 3e4
        weights["head.head.4.weight"] /= 3e4

    _change_weights(copied_model, enlarge)
    files = find_model(str(copied_model))
    pixels = [photo(k, 32, 32) for k in range(2)]
    half = load_predictor(files, device="cpu", precision="fp16")
    full = load_predictor(files, device="cpu")
    prediction = predict_depth(half, pixels, grid=(8, 8))
    assert prediction.redone == (True, True)
    expected = predict_depth(full, pixels, grid=(8, 8)).depth
    np.testing.assert_allclose(prediction.depth, expected, rtol=1e-4, atol=1e-3)


def test_a_licence_that_forbids_commerce_needs_consent() -> None:
    closed = [entry.name for entry in MODELS if not entry.commercial]
    assert closed == ["da2-base", "da2-large", "depth-pro"]
    for name in closed:
        with pytest.raises(ConfigError, match="forbids commercial use; accept"):
            find_model(name)


def test_without_a_network_the_cure_is_named() -> None:
    with pytest.raises(EnvironmentFailure, match="cannot fetch nobody/nothing-here") as error:
        find_model("hf:nobody/nothing-here")
    assert error.value.exit_code == 6
    with pytest.raises(
        EnvironmentFailure, match="cannot fetch depth-anything/Depth-Anything-V2-Ba"
    ):
        find_model("da2-base", allow_noncommercial=True)


def test_a_hub_id_is_never_taken_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'Intel/dpt-large'.*hf:ORGANISATION"):
        find_model("Intel/dpt-large")
    with pytest.raises(ConfigError, match="belongs to hub models"):
        find_model(str(tmp_path), revision="main")


def test_devices_and_aspects_that_cannot_be_are_refused(tiny_model: Path) -> None:
    files = find_model(str(tiny_model))
    with pytest.raises(ConfigError, match="square inputs only"):
        load_predictor(files, aspect="keep", device="cpu")
    with pytest.raises(ConfigError, match="--device 'gpu'"):
        load_predictor(files, device="gpu")
    with pytest.raises(ConfigError, match="no such device"):
        load_predictor(files, device="cuda:77")
