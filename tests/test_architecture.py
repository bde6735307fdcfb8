"""The house itself: format, lint, types, who may import whom, and what the README promises."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


def run(*command: str, cwd: Path) -> None:
    """Run a tool of the environment and show what it says if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


def test_code_is_formatted(repository: Path) -> None:
    run("ruff", "format", "--check", ".", cwd=repository)


def test_code_is_linted(repository: Path) -> None:
    run("ruff", "check", ".", cwd=repository)


@pytest.mark.slow
def test_types_hold(repository: Path) -> None:
    run("mypy", cwd=repository)


def test_imports_follow_the_contracts(repository: Path) -> None:
    script = "import sys; from importlinter.cli import lint_imports_command as c; sys.exit(c())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", ["depthgen", "trainer", "evaluate"])
def test_what_is_declared_is_what_is_imported(repository: Path, package: str) -> None:
    run("deptry", "src", cwd=repository / "packages" / package)


def test_the_architecture_page_has_the_layers_of_the_contracts(repository: Path) -> None:
    contracts = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["importlinter"]
    page = " ".join((repository / "docs" / "architecture.md").read_text().split())
    for contract in contracts["contracts"]:
        if contract["type"] == "layers":
            package = contract["containers"][0].rpartition(".")[2]
            layers = [re.sub(r"[()]", "", layer) for layer in contract["layers"]]
            line = f"{package}: {' > '.join(layers)}"
            assert line in page, f"docs/architecture.md lacks (line breaks do not matter)\n{line}"


def test_ci_runs_the_readmes_test_command(repository: Path) -> None:
    ci_line = (repository / ".ci" / "run").read_text().strip().splitlines()[-1]
    command = ci_line.replace(" --quiet", "")
    assert command in (repository / "README.md").read_text()


def test_evaluate_imports_no_torch(repository: Path) -> None:
    script = (
        "import sys, boxdepth.evaluate.cli\n"
        "heavy = {'torch', 'torchvision', 'transformers', 'zarr', 'timm'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


BANNED = {
    r"torch\.load\((?![^)]*weights_only=True)": "torch.load without weights_only=True",
    r"allow_pickle=True": "np.load with pickles",
    r"yaml\.(load|unsafe_load)\(": "yaml other than safe_load",
    r"trust_remote_code=True": "code from a model hub",
    r"LOAD_TRUNCATED_IMAGES|MAX_IMAGE_PIXELS\s*=\s*None": "Pillow's guards switched off",
    r"extractall\(": "archives unpacked unseen",
    r"0\.0\.0\.0": "listening on every interface",
    r"shell=True": "a shell between us and the command",
}


def test_no_banned_call_stands_in_the_packages(repository: Path) -> None:
    found = [
        f"{path.relative_to(repository)}:{number}: {reason}"
        for path in sorted((repository / "packages").rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for pattern, reason in BANNED.items()
        if re.search(pattern, line)
    ]
    assert not found, "\n".join(found)
