"""Fixtures for the whole suite, and the hook that makes every shape annotation a check."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

PACKAGES = ("boxdepth.depthgen", "boxdepth.trainer", "boxdepth.evaluate")
_hook = install_import_hook(PACKAGES, "typeguard.typechecked")
_hook.__enter__()

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("BOXDEPTH_SHARED", REPOSITORY.parent / "shared"))


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs {name}/ of the project's shared folder (set BOXDEPTH_SHARED to have it)")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and small pretrained backbones; never part of the repository."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """The folder of recorded reference numbers."""
    return _shared("golden")


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY
