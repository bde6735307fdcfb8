"""Which settings a run has: a preset's, a file's, or those of the run that is gone on with."""

from pathlib import Path

import pytest

from boxdepth.trainer import PRESETS, saved_config
from boxdepth.trainer.errors import ConfigError
from boxdepth.trainer.runs.auto.recipe import Wishes
from boxdepth.trainer.runs.settings import chosen_config
from boxdepth.trainer.runs.start import CONFIG


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = PRESETS["scenes_tiny"]().changed(seed=7)
    (tmp_path / CONFIG).write_text(run.model_dump_json())
    return tmp_path


def test_nothing_said_is_the_papers_run() -> None:
    assert chosen_config() == PRESETS["coco_r50_1x"]()


def test_a_resumed_run_has_its_own_settings_unless_others_are_named(folder: Path) -> None:
    assert chosen_config(resumed=folder) == saved_config(folder)
    assert chosen_config(resumed=folder).seed == 7
    assert chosen_config("scenes_tiny", resumed=folder).seed == 0
    assert chosen_config(file=folder / CONFIG).seed == 7
    assert chosen_config(resumed=folder / "none").name == "coco_r50_1x"


def test_a_preset_and_a_file_are_one_too_many(folder: Path) -> None:
    with pytest.raises(ConfigError, match="not both"):
        chosen_config("scenes_tiny", folder / CONFIG)


@pytest.mark.parametrize(("typed", "batch"), [(None, None), ("auto", None), ("12", 12)])
def test_a_batch_as_it_is_typed(typed: str | None, batch: int | None) -> None:
    assert Wishes.typed(["seed=1"], minutes=None, batch=typed).batch == batch


@pytest.mark.parametrize("typed", ["0", "-3", "4.5", "many", ""])
def test_a_batch_that_is_no_number_is_refused(typed: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, or a number"):
        Wishes.typed(None, minutes=None, batch=typed)
