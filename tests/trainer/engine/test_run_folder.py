"""What is written is looked at before the work, not after it."""

from pathlib import Path

import pytest

from boxdepth.trainer.engine.run_folder import make_folder, require_writable
from boxdepth.trainer.errors import ConfigError


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b" / "out.json", overwrite=False)
    assert (tmp_path / "a" / "b").is_dir()


def test_what_is_there_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(ConfigError, match="--overwrite replaces it"):
        require_writable(tmp_path / "out.json", overwrite=False)
    require_writable(tmp_path / "out.json", overwrite=True)
    assert (tmp_path / "out.json").read_text() == "mine"


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        require_writable(tmp_path, overwrite=True)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="can't be a folder"):
            make_folder(path)
