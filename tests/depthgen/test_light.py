"""What works without torch and transformers: everything but the depth models."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_WITHOUT = """
import sys
for name in ("torch", "torchvision", "transformers", "huggingface_hub", "safetensors"):
    sys.modules[name] = None
from boxdepth.depthgen.cli import main
sys.argv = ["depthgen", *sys.argv[1:]]
main()
"""


def _depthgen(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip


def test_a_store_is_read_checked_drawn_and_exchanged(store_path: Path, tmp_path: Path) -> None:
    for command in (
        ["info", store_path],
        ["verify", store_path, "--deep"],
        ["preview", store_path, "--out", tmp_path / "p", "--count", "1"],
        ["export", store_path, tmp_path / "boxes.json", "--to", "coco"],
        ["models", "--json"],
        ["sample", "--out", tmp_path / "scenes", "--train", "1", "--val", "0"],
    ):
        done = _depthgen(*command)
        assert done.returncode == 0, done.stderr
    names = [row["name"] for row in json.loads(done.stdout or "{}").get("models", [])]
    assert names == [] or "da2-small" in names


def test_a_depth_model_names_the_extra(tmp_path: Path) -> None:
    assert (
        _depthgen("sample", "--out", tmp_path / "d", "--train", "1", "--val", "0").returncode == 0
    )
    run = ["run", "--dataset", "coco", "--data-root", tmp_path / "d", "--store", tmp_path / "s"]
    done = _depthgen(*run)
    assert done.returncode == 5
    assert "pip install 'boxdepth-depthgen[predict]'" in done.stderr
    assert not (tmp_path / "s").exists()


def _needs(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Every distribution that installing ``name`` brings, by what the installed ones declare."""
    found: set[str] = set()
    todo = [(canonicalize_name(name), extras)]
    seen = set()
    while todo:
        current, wanted = todo.pop()
        if (current, wanted) in seen:
            continue
        seen.add((current, wanted))
        found.add(current)
        try:
            declared = requires(current) or []
        except PackageNotFoundError:  # for another platform
            continue
        for text in declared:
            item = Requirement(text)
            applies = item.marker is None or any(
                item.marker.evaluate({"extra": extra}) for extra in (wanted or {""})
            )
            if applies:
                todo.append((canonicalize_name(item.name), frozenset(item.extras)))
    return found


def test_the_package_alone_brings_no_torch() -> None:
    alone = _needs("boxdepth-depthgen")
    assert {"numpy", "zarr", "pillow", "simplejpeg", "typer", "pyyaml", "defusedxml"} <= alone
    heavy = {"torch", "torchvision", "transformers", "huggingface-hub", "safetensors"}
    assert not heavy & alone
    assert heavy <= _needs("boxdepth-depthgen", frozenset({"predict"}))


def test_the_trainer_brings_no_transformers() -> None:
    assert "transformers" not in _needs("boxdepth-trainer")
