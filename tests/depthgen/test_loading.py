"""Weights from ``pytorch_model.bin``: tensors and nothing else."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from boxdepth.depthgen.models import find_model
from boxdepth.depthgen.predictor import load_predictor, predict_depth
from boxdepth.depthgen.preprocess import resize_image
from boxdepth.depthgen.store import DataError

from .conftest import photo


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model without its weights."""
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    (copy / "model.safetensors").unlink()
    return copy


def _load(folder: Path) -> Any:
    return load_predictor(find_model(str(folder)), device="cpu")


@pytest.mark.parametrize("shards", [1, 2])
def test_depth_is_that_of_the_same_weights_as_safetensors(
    folder: Path, tiny_model: Path, shards: int
) -> None:
    weights = load_file(tiny_model / "model.safetensors")
    names = sorted(weights)
    for k in range(shards):
        part = {name: weights[name] for name in names[k::shards]}
        name = "pytorch_model.bin" if shards == 1 else f"pytorch_model-0000{k + 1}-of-00002.bin"
        torch.save(part, folder / name)
    ours, theirs = _load(folder), _load(tiny_model)
    pixels = [resize_image(photo(0), theirs.preprocessing)]
    np.testing.assert_allclose(
        predict_depth(ours, pixels, grid=(16, 16)).depth,
        predict_depth(theirs, pixels, grid=(16, 16)).depth,
        rtol=1e-3,
        atol=1e-3,
    )
    assert len(ours.files.weights_sha256) == 64


def test_safetensors_come_first(folder: Path, tiny_model: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    shutil.copy(tiny_model / "model.safetensors", folder)
    assert [file.suffix for file in _load(folder).files.weights] == [".safetensors"]


def test_missing_and_nan_weights_are_named_there_too(folder: Path, tiny_model: Path) -> None:
    weights = load_file(tiny_model / "model.safetensors")
    kept = weights.pop("head.head.4.weight")
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"missing: head\.head\.4\.weight"):
        _load(folder)
    weights["head.head.4.weight"] = torch.full_like(kept, float("nan"))
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"not finite: head\.head\.4\.weight"):
        _load(folder)


class _Touch:
    """What a hostile file would be: unpickling it calls a function."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_the_file_does_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    for variable in (None, "1"):
        if variable:
            monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", variable)
        torch.save({"w": _Touch(canary)}, folder / "pytorch_model.bin")
        with pytest.raises(DataError, match=r"is damaged \(it asks for getattr\)"):
            _load(folder)
    assert not canary.exists()


@pytest.mark.parametrize("value", [[1, 2], {"w": 3}, torch.zeros(3)])
def test_other_values_are_refused(folder: Path, value: object) -> None:
    torch.save(value, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="no table of tensors"):
        _load(folder)


def test_compressed_and_damaged_files_are_refused(folder: Path) -> None:
    file = folder / "pytorch_model.bin"
    torch.save({"w": torch.zeros(1000)}, file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(DataError, match="is compressed"):
        _load(folder)
    file.write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(DataError, match="damaged"):
        _load(folder)
