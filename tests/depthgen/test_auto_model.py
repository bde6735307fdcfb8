"""``--model auto``: chosen by the data, said aloud, remembered by the store."""

from collections.abc import Callable
from pathlib import Path

import pytest

from boxdepth.depthgen import models
from boxdepth.depthgen.datasets.cityscapes import read_cityscapes
from boxdepth.depthgen.datasets.coco import read_coco
from boxdepth.depthgen.datasets.sample import write_sample
from boxdepth.depthgen.models import SCENES_ONLY, choose_model
from boxdepth.depthgen.store import EnvironmentFailure, open_store

from .conftest import run_cli

Build = Callable[..., Path]


def _nobody(*_: object, **__: object) -> Path:
    raise EnvironmentFailure("no network")


def test_photographs_take_the_recommended_model_where_it_can_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(models, "is_here", lambda _: False)
    monkeypatch.setattr(models, "_fetch", _nobody)
    assert choose_model(drawn=False) == "dpt-scenes-tiny"
    assert choose_model(drawn=True) == "dpt-scenes-tiny"
    monkeypatch.setattr(models, "_fetch", lambda *_, **__: tmp_path)
    assert choose_model(drawn=False) == "da2-small"
    assert choose_model(drawn=True) == "dpt-scenes-tiny"
    monkeypatch.setattr(models, "_fetch", _nobody)
    monkeypatch.setattr(models, "is_here", lambda _: True)
    assert choose_model(drawn=False) == "da2-small"


@pytest.mark.parametrize("layout", ["coco", "cityscapes"])
def test_drawn_scenes_are_known_as_such(tmp_path: Path, layout: str, coco_root: Build) -> None:
    write_sample(tmp_path / "s", layout=layout, train=1, val=0, size=(96, 128), seed=0)
    if layout == "coco":
        assert read_coco(tmp_path / "s", split="train2017").drawn
        assert not read_coco(coco_root(1), split="train2017").drawn
    else:
        assert read_cityscapes(tmp_path / "s", split="train").drawn


def test_the_warning_is_said_and_stays_in_the_store(
    coco_root: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(models, "is_here", lambda _: False)
    monkeypatch.setattr(models, "_fetch", _nobody)
    write_sample(tmp_path / "drawn", layout="coco", train=2, val=0, size=(96, 128), seed=0)
    for root, warned in ((coco_root(2), True), (tmp_path / "drawn", False)):
        store = tmp_path / f"{warned}.zarr"
        run = ["run", "--dataset", "coco", "--data-root", root, "--store", store]
        assert run_cli([*run, "--device", "cpu"], monkeypatch) == 0
        err = capsys.readouterr().err
        assert "model dpt-scenes-tiny (--model names another one" in err
        assert (SCENES_ONLY in err) == warned
        generator = open_store(store).attributes.generator
        assert generator.get("warning") == (SCENES_ONLY if warned else None)
        assert run_cli(["info", store], monkeypatch) == 0
        assert ("generator.warning" in capsys.readouterr().err) == warned
