"""Each kind of model against transformers' own processor and model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from boxdepth.depthgen.models import find_model
from boxdepth.depthgen.predictor import Predictor, load_predictor, predict_depth
from boxdepth.depthgen.preprocess import input_size, resize_image
from boxdepth.depthgen.processor import PROCESSORS
from boxdepth.depthgen.store import ConfigError, DataError

from .conftest import photo
from .depth_models import KINDS, pipeline_depth, save_model

GRID = (18, 24)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("kinds")
    return {kind: save_model(kind, root / kind) for kind in KINDS}


def _load(folder: Path, **options: Any) -> Predictor:
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] == "dpt":
        options = {"kind": "inverse"} | options
    return load_predictor(find_model(str(folder)), device="cpu", **options)


def _depth(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    pixels = resize_image(image, predictor.preprocessing)
    size = (image.shape[0], image.shape[1])
    return predict_depth(predictor, [pixels], grid=GRID, sizes=[size]).depth[0]


def _expected(folder: Path, image: np.ndarray) -> np.ndarray:
    reference = pipeline_depth(folder, Image.fromarray(image))
    resized = torch.nn.functional.interpolate(
        reference[None, None], size=GRID, mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0, 0].numpy()


def _agree(folder: Path, image: np.ndarray, *, at_least: float = 0.99) -> None:
    ours, theirs = _depth(_load(folder), image), _expected(folder, image)
    assert np.ptp(theirs) > 1e-3 * np.abs(theirs).max(), "the model's depth is flat: no test"
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > at_least
    slope, _ = np.polyfit(theirs.ravel(), ours.ravel(), 1)
    assert slope == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("size", [(75, 100), (100, 75), (56, 70)])
@pytest.mark.parametrize("kind", KINDS)
def test_depth_is_what_transformers_computes(
    saved: dict[str, Path], kind: str, size: tuple[int, int]
) -> None:
    _agree(saved[kind], photo(3, *size))


_VARIANTS: list[dict[str, Any]] = [
    {"do_rescale": False, "image_mean": [123.7, 116.3, 103.5], "image_std": [58.4, 57.1, 57.4]},
    {"do_normalize": False},
    {"do_rescale": False, "do_normalize": False},
    {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
    {"image_mean": [0.1, 0.5, 0.9], "image_std": [0.2, 0.3, 1.0]},
    {"do_resize": False},
    {"do_resize": False, "do_pad": True, "size_divisor": 32},
    {"do_pad": True, "size_divisor": 56},
    {"resample": 0},
    {"resample": 1},
    {"resample": 2},
    {"keep_aspect_ratio": False},
    {"keep_aspect_ratio": False, "size": {"height": 42, "width": 98}},
    {"size": {"height": 98, "width": 42}, "ensure_multiple_of": 28},
    {"ensure_multiple_of": 1},
    {"size": 56},
    {"do_center_crop": False, "crop_size": {"height": 9, "width": 9}},
    {"do_normalize": None, "do_rescale": None, "image_mean": None, "do_center_crop": None},
]


@pytest.mark.parametrize("changes", _VARIANTS, ids=json.dumps)
def test_every_setting_of_dpts_processor_is_followed(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    _agree(save_model("depth-anything", tmp_path, **changes), photo(4, 72, 100))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("zoedepth", {"do_pad": False}),
        ("zoedepth", {"keep_aspect_ratio": False}),
        ("zoedepth", {"do_rescale": False, "do_normalize": False}),
        ("zoedepth", {"resample": 3}),
        ("glpn", {"size_divisor": 64}),
        ("glpn", {"do_rescale": False}),
        ("glpn", {"do_resize": False}),
        ("depth-pro", {"do_normalize": False}),
        ("depth-pro", {"resample": 3}),
    ],
    ids=str,
)
def test_settings_of_the_other_processors_are_followed(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    size = (64, 96) if "do_resize" in changes else (75, 100)
    _agree(save_model(kind, tmp_path, **changes), photo(5, *size))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("depth-anything", {"do_center_crop": True}, "do_center_crop is true, and that step"),
        ("depth-anything", {"do_flip_channel_order": True}, "that step is not handled"),
        ("depth-anything", {"do_rescale": "false"}, "do_rescale is 'false', true or false"),
        ("depth-anything", {"do_pad": True}, "size_divisor is None"),
        ("depth-anything", {"resample": 9}, "resample is 9"),
        ("depth-anything", {"resample": "bicubic"}, "resample is 'bicubic'"),
        ("depth-anything", {"size": {"shortest_edge": 70}}, "height and width are expected"),
        ("depth-anything", {"size": {"height": 0, "width": 70}}, "sides of 1 to 8192"),
        ("depth-anything", {"ensure_multiple_of": 0}, "ensure_multiple_of is 0"),
        ("depth-anything", {"image_std": [0.5, 0, 0.5]}, "image_std is"),
        ("depth-anything", {"image_mean": [0.5]}, "image_mean is"),
        ("depth-anything", {"image_mean": None}, "image_mean is None"),
        ("depth-anything", {"resample": None}, "resample is None"),
        ("depth-anything", {"rescale_factor": float("nan")}, "rescale_factor is nan"),
        ("depth-anything", {"image_processor_type": "ViTImageProcessor"}, "processor 'ViTImage"),
        ("zoedepth", {"do_resize": False}, "do_resize is false"),
        ("zoedepth", {"resample": 1}, "resample is 1"),
        ("dpt-vit", {"do_resize": False}, "takes square inputs only, and its"),
    ],
    ids=str,
)
def test_what_is_not_handled_is_refused(
    tmp_path: Path, kind: str, changes: dict[str, Any], message: str
) -> None:
    folder = save_model(kind, tmp_path, **changes)
    with pytest.raises(DataError, match=message) as error:
        _load(folder)
    assert "preprocessor_config.json" in str(error.value)


@pytest.mark.parametrize("name", PROCESSORS)
def test_missing_settings_mean_what_the_class_means(name: str) -> None:
    own = getattr(hf, f"{name}ImageProcessor")()
    for key, value in PROCESSORS[name].items():
        theirs = getattr(own, key, None)
        if key == "size":
            theirs = {k: theirs[k] for k in ("height", "width")} if theirs else None
        if name == "GLPN" and key.startswith("image_"):
            continue  # it has none, and does not normalise
        assert (theirs or value) == value or list(theirs) == value, key


def test_older_names_of_the_processors_are_known(tmp_path: Path) -> None:
    folder = save_model("depth-anything", tmp_path)
    plain = _load(folder).preprocessing
    file = folder / "preprocessor_config.json"
    for name in ("DPTImageProcessorFast", "DPTImageProcessorPil", "DPTFeatureExtractor", None):
        settings = json.loads(file.read_text())
        del settings["image_processor_type"]
        key = "feature_extractor_type" if name and "Extractor" in name else "image_processor_type"
        file.write_text(json.dumps(settings | ({key: name} if name else {})))
        assert _load(folder).preprocessing == plain
        file.write_text(json.dumps(settings | {"image_processor_type": "DPTImageProcessor"}))


def test_the_aspect_is_the_processors_own_unless_given(saved: dict[str, Path]) -> None:
    folder = saved["depth-anything"]
    assert _load(folder).preprocessing.aspect == "keep"
    assert _load(folder, aspect="square").preprocessing.aspect == "square"
    assert _load(saved["dpt-swinv2"]).preprocessing.aspect == "square"
    for kind in ("glpn", "dpt-dinov2"):
        assert _load(saved[kind]).preprocessing.aspect == "native"
        with pytest.raises(ConfigError, match="leave --aspect out"):
            _load(saved[kind], aspect="square")


EXTREME = [(37, 1000), (1000, 37), (1, 1), (2, 300), (75, 100)]


@pytest.mark.parametrize("kind", KINDS)
def test_alone_is_as_in_a_batch_with_odd_mates(saved: dict[str, Path], kind: str) -> None:
    """Black, white, noise and a constant beside a photo: each comes out as it does alone."""
    predictor = _load(saved[kind])
    noise = np.random.default_rng(0).integers(0, 256, (56, 70, 3), dtype=np.uint8)
    images = [photo(1, 56, 70), np.zeros_like(noise), np.full_like(noise, 255), noise]
    pixels = [resize_image(image, predictor.preprocessing) for image in images]
    sizes = [(56, 70)] * 4
    together = predict_depth(predictor, pixels, grid=GRID, sizes=sizes).depth
    for number in range(4):
        (alone,) = predict_depth(
            predictor, pixels[number : number + 1], grid=GRID, sizes=sizes[:1]
        ).depth
        np.testing.assert_allclose(together[number], alone, rtol=1e-3, atol=1e-4)
        assert np.isfinite(alone).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", EXTREME, ids=str)
def test_extreme_shapes_have_finite_depth_over_the_whole_grid(
    saved: dict[str, Path], kind: str, size: tuple[int, int]
) -> None:
    predictor = _load(saved[kind])
    image = photo(2, *size)
    pixels = resize_image(image, predictor.preprocessing)
    assert pixels.shape[:2] == input_size(*size, predictor.preprocessing)
    depth = _depth(predictor, image)
    assert depth.shape == GRID
    assert np.isfinite(depth).all()


def test_margins_of_images_of_one_input_size_differ(saved: dict[str, Path]) -> None:
    """ZoeDepth's margin follows from the size before resizing, also inside one batch."""
    predictor = _load(saved["zoedepth"])
    small, large = photo(6, 60, 80), photo(6, 240, 320)
    pixels = [resize_image(image, predictor.preprocessing) for image in (small, large)]
    assert pixels[0].shape == pixels[1].shape
    both = predict_depth(predictor, pixels, grid=GRID, sizes=[(60, 80), (240, 320)]).depth
    np.testing.assert_allclose(both[0], _depth(predictor, small), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(both[1], _depth(predictor, large), rtol=1e-3, atol=1e-4)


class TestMeaning:
    """Near and far must not be swapped: known, said, or refused."""

    @pytest.mark.parametrize(
        ("kind", "meaning"),
        [
            ("depth-anything", ("inverse_relative", "near_is_large")),
            ("depth-anything-metric", ("metric", "far_is_large")),
            ("zoedepth", ("metric", "far_is_large")),
            ("glpn", ("metric", "far_is_large")),
            ("depth-pro", ("inverse_relative", "near_is_large")),
        ],
    )
    def test_is_taken_from_the_model_where_it_says_so(
        self, saved: dict[str, Path], kind: str, meaning: tuple[str, str]
    ) -> None:
        predictor = load_predictor(find_model(str(saved[kind])), device="cpu")
        assert (predictor.kind, predictor.sign) == meaning

    def test_is_not_guessed_for_a_dpt_of_unknown_origin(self, saved: dict[str, Path]) -> None:
        files = find_model(str(saved["dpt-dinov2"]))
        with pytest.raises(ConfigError, match="--kind inverse or --kind metric"):
            load_predictor(files, device="cpu")
        with pytest.raises(ConfigError, match="--kind inverse or --kind metric"):
            load_predictor(files, device="cpu", sign="far-large")
        metric = load_predictor(files, device="cpu", kind="metric")
        assert (metric.kind, metric.sign) == ("metric", "far_is_large")
        inverse = load_predictor(files, device="cpu", kind="inverse")
        assert (inverse.kind, inverse.sign) == ("inverse_relative", "near_is_large")
        turned = load_predictor(files, device="cpu", kind="inverse", sign="far-large")
        assert (turned.kind, turned.sign) == ("inverse_relative", "far_is_large")

    @pytest.mark.parametrize(("said", "kind"), [("relative", "inverse_relative"), ("metric",) * 2])
    def test_may_stand_in_the_configuration(self, tmp_path: Path, said: str, kind: str) -> None:
        folder = save_model("dpt-vit", tmp_path)
        file = folder / "config.json"
        config = json.loads(file.read_text()) | {"depth_estimation_type": said}
        file.write_text(json.dumps(config))
        assert load_predictor(find_model(str(folder)), device="cpu").kind == kind

    def test_metres_are_never_large_when_near(self, saved: dict[str, Path]) -> None:
        with pytest.raises(ConfigError, match="metres are large when far"):
            load_predictor(find_model(str(saved["glpn"])), device="cpu", sign="near-large")
