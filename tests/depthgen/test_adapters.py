"""Models outside transformers, by a small module each."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from boxdepth.depthgen.adapters import da3mono, moge2
from boxdepth.depthgen.models import find_model
from boxdepth.depthgen.predictor import load_predictor, predict_depth
from boxdepth.depthgen.store import ConfigError, DataError, open_store
from boxdepth.depthgen.store.errors import MissingExtraError

from .conftest import photo, run_cli

_RED_IS_NEAR = """
import numpy as np

KIND = "{kind}"


class Model:
    def __init__(self, scale):
        self.scale = scale

    def predict(self, images):
        return [image[..., 0].astype(np.float32) * self.scale for image in images]


def load(folder, *, device):
    return Model(float((folder / "scale.pt").read_text()))
"""


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., str]:
    def write(kind: str = "inverse", code: str = _RED_IS_NEAR) -> str:
        module, folder = tmp_path / "red.py", tmp_path / "weights"
        module.write_text(code.replace("{kind}", kind))
        folder.mkdir(exist_ok=True)
        (folder / "scale.pt").write_text("2.0")
        return f"adapter:{module}:{folder}"

    return write


def test_its_depth_is_brought_to_the_grid(adapter: Callable[..., str]) -> None:
    predictor = load_predictor(find_model(adapter()), device="cpu")
    images = [photo(k, 37, 1000) for k in range(3)]
    together = predict_depth(predictor, images, grid=(37, 1000))
    assert (predictor.kind, predictor.sign) == ("inverse_relative", "near_is_large")
    for depth, image in zip(together.depth, images, strict=True):
        np.testing.assert_allclose(depth, 2.0 * image[..., 0])
    (alone,) = predict_depth(predictor, images[1:2], grid=(8, 8)).depth
    np.testing.assert_array_equal(alone, predict_depth(predictor, images, grid=(8, 8)).depth[1])


def test_a_store_is_made_with_it_as_typed(
    adapter: Callable[..., str],
    coco_root: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = ["run", "--dataset", "coco", "--data-root", coco_root(3), "--store", tmp_path / "s.zarr",
           "--model", adapter("metric")]  # fmt: skip
    assert run_cli(run, monkeypatch) == 0
    attributes = open_store(tmp_path / "s.zarr").attributes
    assert (attributes.depth.kind, attributes.depth.sign) == ("metric", "far_is_large")
    assert attributes.generator["model"] == "red:weights"
    assert len(attributes.generator["weights_sha256"]) == 64
    assert run_cli([*run, "--precision", "fp16", "--overwrite"], monkeypatch) == 2


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("KIND = 'inverse'", ConfigError, r"load\(folder, \*, device\) expected"),
        ("KIND = 'depth'\ndef load(folder, *, device): ...", ConfigError, "KIND"),
        ("import nothing_of_that_name", MissingExtraError, "needs nothing_of_that_name"),
        ("KIND = 'metric'\ndef load(folder, *, device): return 3", ConfigError, "no predict"),
        (
            "KIND = 'metric'\ndef load(folder, *, device): raise OSError('x')",
            DataError,
            "cannot load",
        ),
    ],
)
def test_modules_that_are_no_adapters_are_refused(
    adapter: Callable[..., str], code: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_predictor(find_model(adapter(code=code)), device="cpu")


def test_names_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    for model in ("adapter:x", f"adapter:x:{tmp_path}/none", f"adapter::{tmp_path}"):
        with pytest.raises(ConfigError, match="adapter:MODULE:FOLDER is expected"):
            find_model(model)
    for module in ("no_such_module", str(tmp_path / "none.py")):
        with pytest.raises(ConfigError, match="no such"):
            load_predictor(find_model(f"adapter:{module}:{tmp_path}"), device="cpu")


def test_maps_of_a_wrong_shape_are_refused(adapter: Callable[..., str]) -> None:
    code = _RED_IS_NEAR.replace("image[..., 0]", "image")
    predictor = load_predictor(find_model(adapter(code=code)), device="cpu")
    with pytest.raises(DataError, match=r"1 maps \(\(48, 64, 3\)\) for 1 images"):
        predict_depth(predictor, [photo(0)], grid=(8, 8))


def _pretend(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> None:
    """A package with the interface that its authors document."""
    parts = name.split(".")
    for k in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:k]), ModuleType(parts[k - 1]))
    for key, value in attributes.items():
        setattr(sys.modules[name], key, value)


class _Network(torch.nn.Module):
    @classmethod
    def from_pretrained(cls, _: str) -> "_Network":
        return cls()

    def infer(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        depth = 1 + 9 * image[0]
        depth[0, 0] = float("inf")
        return {"depth": depth}

    def inference(self, images: list[np.ndarray]) -> SimpleNamespace:
        return SimpleNamespace(
            depth=np.stack([1 + image[..., 0].astype(float) for image in images])
        )


def test_moge_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _pretend(monkeypatch, "moge.model.v2", MoGeModel=_Network)
    image = photo(0)
    (depth,) = moge2.load(tmp_path, device="cpu").predict([image])
    expected = 1 + 9 * (image[..., 0] / 255)
    expected[0, 0] = expected.ravel()[1:].max()  # sky is as far as the farthest
    np.testing.assert_allclose(depth, expected, rtol=1e-5)


def test_depth_anything_3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _pretend(monkeypatch, "depth_anything_3.api", DepthAnything3=_Network)
    image = photo(0)
    (inverse,) = da3mono.load(tmp_path, device="cpu").predict([image])
    np.testing.assert_allclose(inverse, 1 / (1 + image[..., 0].astype(float)), rtol=1e-5)


def test_without_their_packages_they_say_what_is_missing(tmp_path: Path) -> None:
    for name, package in (("moge2", "moge"), ("da3mono", "depth_anything_3")):
        files = find_model(f"adapter:boxdepth.depthgen.adapters.{name}:{tmp_path}")
        with pytest.raises(MissingExtraError, match=f"needs {package}"):
            load_predictor(files, device="cpu")
