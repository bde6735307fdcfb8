"""The embedded depth model is whole, small, explicit, and better than a guess."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DPTForDepthEstimation

import boxdepth.depthgen
from boxdepth.depthgen.datasets.sample import Scene, render_scene, scene_seed
from boxdepth.depthgen.datasets.sample.pairs import NO_PAIRS, PairCounts
from study import scene_pairs

FOLDER = Path(boxdepth.depthgen.__file__).parent / "weights" / "dpt-scenes-tiny"
SIZE = (192, 256)


@pytest.fixture(scope="module")
def model() -> DPTForDepthEstimation:
    return DPTForDepthEstimation.from_pretrained(FOLDER, dtype=torch.float32)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(scene_seed(0, "depth-test", index), SIZE) for index in range(24)]


@pytest.fixture(scope="module")
def mean_map() -> np.ndarray:
    """The trivial baseline: what a scene looks like on average, whatever is in the image."""
    scenes = [render_scene(scene_seed(0, "depth-train", index), SIZE) for index in range(40)]
    return np.mean([_units(scene.inverse_depth) for scene in scenes], axis=0)


def _units(inverse_depth: np.ndarray) -> np.ndarray:
    low, high = inverse_depth.min(), inverse_depth.max()
    return (inverse_depth - low) / (high - low)


def _predicted(model: DPTForDepthEstimation, scene: Scene) -> np.ndarray:
    """Prepared by the letter of the shipped preprocessor_config.json."""
    settings = json.loads((FOLDER / "preprocessor_config.json").read_text())
    size = (settings["size"]["width"], settings["size"]["height"])
    resized = Image.fromarray(scene.image).resize(size, Image.Resampling(settings["resample"]))
    pixels = np.asarray(resized) * settings["rescale_factor"]
    pixels = (pixels - settings["image_mean"]) / settings["image_std"]
    with torch.no_grad():
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        depth = model(tensor).predicted_depth[:, None]
        full = torch.nn.functional.interpolate(depth, SIZE, mode="bilinear", align_corners=False)
    return full[0, 0].numpy()


def _absolute_relative_error(predicted: np.ndarray, scene: Scene) -> float:
    """Of depth, after the best scale and shift of inverse depth; without the sky."""
    true = scene.inverse_depth
    seen = true > 0
    design = np.stack([predicted[seen], np.ones(seen.sum())], axis=1)
    aligned = design @ np.linalg.lstsq(design, true[seen].astype(float), rcond=None)[0]
    aligned = np.maximum(aligned, 0.5 * true[seen].min())
    return float(np.mean(np.abs(true[seen] / aligned - 1)))


def test_no_weight_is_missing_left_over_or_unfinite() -> None:
    model, report = DPTForDepthEstimation.from_pretrained(
        FOLDER, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    for name, value in model.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64), name
        assert torch.isfinite(value).all(), name


def test_it_is_small_and_loads_in_float32_by_default() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5_000_000
    assert json.loads((FOLDER / "config.json").read_text())["dtype"] == "float32"
    assert DPTForDepthEstimation.from_pretrained(FOLDER).dtype == torch.float32


def test_every_step_of_the_preparation_is_spelt_out() -> None:
    settings = json.loads((FOLDER / "preprocessor_config.json").read_text())
    side = json.loads((FOLDER / "config.json").read_text())["image_size"]
    assert settings["do_resize"] is settings["do_rescale"] is settings["do_normalize"] is True
    assert settings["keep_aspect_ratio"] is False
    assert settings["size"] == {"height": side, "width": side}
    assert settings["resample"] == 3


def test_it_beats_the_mean_map_on_unseen_scenes(
    model: DPTForDepthEstimation, scenes: list[Scene], mean_map: np.ndarray
) -> None:
    ours = np.mean([_absolute_relative_error(_predicted(model, scene), scene) for scene in scenes])
    guess = np.mean([_absolute_relative_error(mean_map, scene) for scene in scenes])
    assert ours < 0.75 * guess


def test_larger_is_nearer(model: DPTForDepthEstimation, scenes: list[Scene]) -> None:
    for scene in scenes:
        together = np.corrcoef(_predicted(model, scene).ravel(), scene.inverse_depth.ravel())
        assert together[0, 1] > 0.8


def test_pairs_pass_within_shapes_more_often_than_across(
    model: DPTForDepthEstimation, scenes: list[Scene]
) -> None:
    counts: PairCounts = NO_PAIRS
    for scene in scenes:
        alike = scene_pairs.alike_in_depth(_predicted(model, scene))
        counts += scene_pairs.counted(alike, scene.masks)
    assert counts.across_share < 0.12
    assert counts.within_share > 1.4 * counts.across_share
