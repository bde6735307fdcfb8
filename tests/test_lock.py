"""The committed versions agree with one another, with what is declared, and with what runs here."""

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CURE = "run tools/lock.py (CONTRIBUTING.md, 'Locking')"


@pytest.fixture(scope="module")
def pins(repository: Path) -> list[Requirement]:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    return [Requirement(text) for text in project["tool"]["uv"]["constraint-dependencies"]]


def test_pins_and_hashes_are_of_the_same_versions(
    repository: Path, pins: list[Requirement]
) -> None:
    lines = (repository / "requirements.lock").read_text(encoding="utf-8").splitlines()
    hashed = [Requirement(line.removesuffix(" \\")) for line in lines if re.match(r"\w", line)]
    assert [str(pin) for pin in hashed] == [str(pin) for pin in pins], CURE


def test_every_pin_is_exact(pins: list[Requirement]) -> None:
    loose = [str(pin) for pin in pins if [clause.operator for clause in pin.specifier] != ["=="]]
    assert not loose


def test_every_declared_dependency_is_pinned(repository: Path, pins: list[Requirement]) -> None:
    declared: set[str] = set()
    for file in [
        repository / "pyproject.toml",
        *(repository / "packages").glob("*/pyproject.toml"),
    ]:
        project = tomllib.loads(file.read_text(encoding="utf-8"))
        texts = list(project["project"]["dependencies"])
        for extra in project["project"].get("optional-dependencies", {}).values():
            texts += extra
        texts += project.get("dependency-groups", {}).get("dev", [])
        declared |= {canonicalize_name(Requirement(text).name) for text in texts}
    ours = {name for name in declared if name.startswith("boxdepth")}
    missing = declared - ours - {canonicalize_name(pin.name) for pin in pins}
    assert not missing, f"not pinned: {sorted(missing)}; {CURE}"


def test_what_runs_here_is_what_is_pinned(pins: list[Requirement]) -> None:
    installed = {canonicalize_name(d.metadata["Name"]): d.version for d in distributions()}
    other = [
        f"{pin.name} {installed[canonicalize_name(pin.name)]} is installed, {pin.specifier} pinned"
        for pin in pins
        if (pin.marker is None or pin.marker.evaluate())
        and canonicalize_name(pin.name) in installed
        and not pin.specifier.contains(installed[canonicalize_name(pin.name)], prereleases=True)
    ]
    assert not other, "\n".join([*other, "the environment is not the locked one: uv sync"])


def test_no_file_that_is_committed_names_an_index(repository: Path) -> None:
    for name in ("pyproject.toml", "requirements.lock"):
        text = (repository / name).read_text(encoding="utf-8")
        assert not re.search(r"--(extra-)?index-url|--find-links|\[\[?tool\.uv\.index", text), name


def test_no_page_names_an_index(repository: Path) -> None:
    pages = [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]
    pages += (repository / "packages").rglob("*.md")
    named = [p.name for p in pages if re.search(r"https?://[\w.-]*py[p]i", p.read_text("utf-8"))]
    assert not named
