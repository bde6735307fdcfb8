"""The trainer as Python code uses it: what `boxdepth.trainer` exports."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import boxdepth.trainer
from boxdepth.trainer import Predictor, RunConfig, Start, fit, load_predictor, preset, saved_config
from boxdepth.trainer.errors import (
    ConfigError,
    ImageTypeError,
    InputError,
    MachineError,
    PicturesError,
    RunExistsError,
    StoppedError,
    UsageError,
    WriteError,
)


def test_importing_the_library_and_every_command_brings_no_torch() -> None:
    script = (
        "import sys, boxdepth.trainer\n"
        "heavy = {'torch', 'pydantic', 'zarr', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, f'boxdepth.trainer brings {heavy}'\n"
        "from boxdepth.trainer.cli import fit, inspect, predict, weights\n"
        "heavy = {'torch', 'timm', 'scipy', 'zarr', 'torchvision'} & set(sys.modules)\n"
        "assert not heavy, f'the commands bring {heavy}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["--help"], 0),
        (["fit", "--help"], 0),
        (["predict", "--help"], 0),
        (["presets"], 0),
        (["schema"], 0),
        (["fit", "scenes_tin"], 2),
        (["fit", "scenes_tiny", "--set", "optimizer.lr=1"], 2),
        (["fit", "--resume", "--overwrite"], 2),
    ],
    ids=str,
)
def test_a_command_that_needs_no_torch_brings_none(command: list[str], code: int) -> None:
    script = (
        "import sys\n"
        "from boxdepth.trainer.cli.main import _run\n"
        "code = _run()\n"
        "heavy = {'torch', 'timm', 'scipy', 'zarr', 'torchvision'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr


def test_every_public_name_is_there() -> None:
    for name in boxdepth.trainer.__all__:
        assert getattr(boxdepth.trainer, name) is not None
    assert dir(boxdepth.trainer) == sorted(boxdepth.trainer.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = boxdepth.trainer.nonsense


def test_the_library_does_not_know_its_command(repository: Path) -> None:
    """Nor do the pipelines."""
    package = repository / "packages/trainer/src/boxdepth/trainer"
    inside = [p for p in package.rglob("*.py") if p.parent.name != "cli"]
    for path in [*inside, *(repository / "pipelines").rglob("*.py")]:
        assert "import boxdepth.trainer.cli" not in path.read_text(), path
        assert "from boxdepth.trainer.cli" not in path.read_text(), path


class Notes:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []

    def on_step(self, step: int) -> None:
        self.steps.append(step)

    def on_report(self, step: int, numbers: Mapping[str, float]) -> None:
        pass

    def on_note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def config(tiny_run: RunConfig, make_store) -> RunConfig:
    train = make_store("train", masks=True).path
    val = make_store("val", sizes=[(64, 96), (50, 70)], masks=True).path
    return tiny_run.changed(data=tiny_run.data.changed(train=train, val=val))


def test_fit_trains_evaluates_and_says_nothing(
    config: RunConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told = Notes()
    fitted = fit(config, out=tmp_path / "run", device="cpu", listener=told)
    assert (fitted.folder, fitted.iterations, fitted.skipped) == (tmp_path / "run", 6, 0)
    assert told.steps == [1, 2, 3, 4, 5, 6]
    assert fitted.scores is not None
    assert fitted.scores.keys() == {"segm", "bbox"}
    assert capfd.readouterr() == ("", "")
    assert saved_config(tmp_path / "run").data.train == config.data.train
    with pytest.raises(RunExistsError, match="holds a run already"):
        fit(config, out=tmp_path / "run", device="cpu")
    again = fit(config, out=tmp_path / "run", device="cpu", start=Start.new(overwrite=True))
    assert again.losses == fitted.losses


def test_a_resumed_run_and_a_forked_one_go_on_where_it_stood(
    config: RunConfig, tmp_path: Path
) -> None:
    whole = fit(config, out=tmp_path / "whole", device="cpu")
    half = fit(config, out=tmp_path / "run", device="cpu", max_iterations=3)
    assert half.iterations == 3
    told = Notes()
    forked = fit(
        config,
        out=tmp_path / "fork",
        device="cpu",
        start=Start.fork(tmp_path / "run"),
        listener=told,
    )
    assert told.steps == [4, 5, 6]
    assert "iteration 3" in " ".join(told.notes)
    settings = saved_config(tmp_path / "run")
    resumed = fit(settings, out=tmp_path / "run", device="cpu", start=Start.resume())
    assert resumed.losses == forked.losses == whole.losses


def test_a_start_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        Start(resumes=True, overwrites=True)
    with pytest.raises(ConfigError, match="already says where the run starts"):
        Start(forked=tmp_path, weights=tmp_path)


def test_a_preset_takes_settings_by_path() -> None:
    run = preset("scenes_tiny", {"data.train": Path("a.zarr"), "data.batch_size": 2})
    assert (run.data.train, run.data.batch_size) == (Path("a.zarr"), 2)
    assert preset("scenes_tiny").data.batch_size == 4
    with pytest.raises(ConfigError, match=r"did you mean 'optimizer\.learning_rate'"):
        preset("scenes_tiny", {"optimizer.lr": 1})
    with pytest.raises(ConfigError, match="did you mean 'scenes_tiny'"):
        preset("scenes_tin")


@pytest.fixture
def predictor(tiny_checkpoint: Path) -> Predictor:
    return load_predictor(tiny_checkpoint, device="cpu")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def test_an_image_may_be_an_array_a_picture_or_a_path(
    predictor: Predictor, pixels: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = predictor(pixels)
    assert len(found) > 0
    assert found.size == (40, 56)
    assert (np.diff(found.scores) <= 0).all()
    for other in (Image.fromarray(pixels), tmp_path / "a.png", str(tmp_path / "a.png")):
        same = predictor(other)
        np.testing.assert_array_equal(same.boxes_xyxy, found.boxes_xyxy)
        assert same.masks == found.masks
    grey = predictor(pixels[..., 0])
    np.testing.assert_array_equal(
        grey.scores, predictor(np.repeat(pixels[..., :1], 3, axis=2)).scores
    )


def test_masks_come_as_bitmaps_too(predictor: Predictor, pixels: np.ndarray) -> None:
    found = predictor(pixels)
    bitmaps = found.bitmaps()
    assert bitmaps.shape == (len(found), 40, 56)
    assert bitmaps.dtype == bool
    assert bitmaps.sum(axis=(1, 2)).tolist() == coco_mask.area(list(found.masks)).tolist()
    assert str(found).startswith(f"{len(found)} instances on 56 x 40 pixels, scores 0.")


def test_each_given_box_has_its_mask_inside_it(predictor: Predictor, pixels: np.ndarray) -> None:
    boxes = [(30, 4, 50, 30), (2, 3, 20, 24)]
    found = predictor(pixels, boxes=boxes)
    np.testing.assert_allclose(found.boxes_xyxy, boxes, atol=1e-3)
    for bitmap, (x1, y1, x2, y2) in zip(found.bitmaps(), boxes, strict=True):
        assert bitmap.sum() == bitmap[y1:y2, x1:x2].sum()
    assert len(predictor(pixels, boxes=[])) == 0
    assert len(predictor(pixels, boxes=np.zeros((0, 4)))) == 0


def test_a_threshold_is_on_the_final_score(tiny_checkpoint: Path, pixels: np.ndarray) -> None:
    every = load_predictor(tiny_checkpoint, device="cpu")(pixels)
    least = float(np.median(every.scores))
    some = load_predictor(tiny_checkpoint, device="cpu", score_threshold=least)(pixels)
    assert len(some) == int((every.scores >= least).sum())
    assert 0 < len(some) < len(every)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 5, 3), np.float32), r"array of float32 \[4, 5, 3\]: expected uint8"),
        (np.zeros((4, 5, 4), np.uint8), r"uint8 \[4, 5, 4\]"),
        (np.zeros((0, 5, 3), np.uint8), r"uint8 \[0, 5, 3\]"),
        (Image.new("F", (8, 8)), "mode 'F': expected 8 bits a channel"),
        (7, "type int: expected a NumPy array, a PIL image or a path"),
    ],
)
def test_an_image_that_cannot_be_used_is_described(
    predictor: Predictor, image: object, words: str
) -> None:
    with pytest.raises(ImageTypeError, match=words):
        predictor(image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([1, 2, 3, 4], r"boxes of shape \[4\]: expected \[n 4\]"),
        ([[1, 2, 3]], r"boxes of shape \[1, 3\]"),
        ([[1, 2, 9, 9], [5, 5, 5, 9]], "box 1, .*: expected finite"),
        ([[1, 2, float("nan"), 9]], "box 0"),
        ([[0, 0, 1e39, 9]], "box 0"),
        ([[60, 2, 70, 9]], "inside the image of 56 x 40"),
        ("here", "expected numbers"),
    ],
)
def test_a_box_that_cannot_be_used_is_named(
    predictor: Predictor, pixels: np.ndarray, boxes: object, words: str
) -> None:
    with pytest.raises(ImageTypeError, match=words):
        predictor(pixels, boxes=boxes)


def test_what_cannot_be_meant_is_refused(tiny_checkpoint: Path, config: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"score_threshold 2\.0: expected 0 to 1"):
        load_predictor(tiny_checkpoint, device="cpu", score_threshold=2.0)
    with pytest.raises(ConfigError, match="device 'gpu': expected auto"):
        load_predictor(tiny_checkpoint, device="gpu")
    with pytest.raises(ConfigError, match="max_iterations 0: expected at least 1"):
        fit(config, device="cpu", max_iterations=0)


def test_every_family_of_errors_has_its_exit_code() -> None:
    assert (UsageError("").exit_code, InputError("").exit_code) == (2, 3)
    assert (MachineError("").exit_code, StoppedError(15, 3).exit_code) == (6, 143)
    mine = PicturesError([("a", ValueError("x"))], kept=None)
    machines = PicturesError([("a", WriteError("x"))], kept=None)
    assert (mine.exit_code, machines.exit_code) == (3, 6)
