"""Sections of ``tests/bench/soak_store.py`` in small; kills and clusters have their own tests."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from boxdepth.depthgen.store import write_store

from .conftest import content

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _soak() -> ModuleType:
    file = Path(__file__).resolve().parents[1] / "bench" / "soak_store.py"
    specification = importlib.util.spec_from_file_location("soak_store", file)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules["soak_store"] = module
    specification.loader.exec_module(module)
    return module


soak = _soak()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    return soak.drawn(tmp_path_factory.mktemp("soak"), 8)


def test_of_two_writers_the_second_ends_with_75(bench) -> None:  # type: ignore[no-untyped-def]
    assert soak.writers(bench, 1)["identical"] == 1


def test_objects_that_may_not_grow(bench) -> None:  # type: ignore[no-untyped-def]
    assert soak.full(bench, 2) == {"ended with 6": 2, "identical": 1}


def test_damages_are_found(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", **content(10), unit=4)
    counted = soak.damages(store, 150)
    print(dict(counted))
    assert counted["found"] + counted["no change"] == 150
    assert counted["found"] > 100


def test_odd_metadata_that_the_manifest_vouches_for(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", **content(10), unit=4)
    counted = soak.odd_metadata(store, 400)
    print(dict(counted))
    assert counted["refused"] > 300
    assert sum(counted.values()) == 400


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's words about damaged TIFF files
def test_hostile_files(tmp_path: Path) -> None:
    counted = soak.fuzz(tmp_path, 300)
    print(dict(counted))
    assert counted["pictures read"] + counted["pictures refused"] == 300
    assert counted["annotations read"] + counted["annotations refused"] == 300
