"""The house itself: format, lint, types, who may import whom, and what the README promises."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
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


MOST_LINES, MOST_PARAMETERS = 60, 6
LONG_SIGNATURES = {
    "depthgen/datasets/sample/write.py:write_sample",  # what a data set is drawn with
    "depthgen/exchange/depth_import.py:import_depth",  # what a store is made of, and how
    "depthgen/store/plan.py:plan_store",  # all that decides a store's bytes
    "depthgen/store/write.py:write_store",  # the same, and what is in memory
    "evaluate/report/content.py:collect",  # what a report is made of
    "trainer/model/condinst.py:__init__",  # the parts of the network
}
"""Functions of seven parameters or more that are no commands."""


def functions(repository: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of the packages, nested ones and methods too, as ``package/file.py:name``."""
    for path in sorted((repository / "packages").glob("*/src/boxdepth/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.as_posix().rpartition('src/boxdepth/')[2]}:{node.name}", node


def test_no_function_is_longer_than_sixty_lines(repository: Path) -> None:
    """From ``def`` to the last line, docstring included."""
    lines = {
        name: node.end_lineno - node.lineno + 1
        for name, node in functions(repository)
        if node.end_lineno is not None
    }
    assert len(lines) > 1000
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_signatures_are_short(repository: Path) -> None:
    """Commands are exempt: their parameters are options, each declared once with its help."""
    long = set()
    for name, node in functions(repository):
        own = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = sum(argument.arg not in ("self", "cls") for argument in own)
        is_command = any("command(" in ast.unparse(how) for how in node.decorator_list)
        if count > MOST_PARAMETERS and not is_command:
            long.add(name)
    assert long == LONG_SIGNATURES


def test_a_default_that_changes_results_has_one_home(repository: Path) -> None:
    trainer = repository / "packages" / "trainer" / "src"
    found = [
        f"{path.name}:{number}"
        for path in sorted(trainer.rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"dilation.*= 2", line)
    ]
    assert len(found) == 1, found
