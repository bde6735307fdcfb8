"""Pins every dependency: `python3 -m uv run --no-project python tools/lock.py [--upgrade]`.

Resolves the workspace with all extras for every platform and writes the outcome down twice,
naming no index: as exact pins in `pyproject.toml`, which `uv` obeys whatever the index has today,
and with hashes in `requirements.lock`, which pip can install from. Without `--upgrade` the pins
that stand are kept, and only what is new is added.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT, LOCK, GENERATED = ROOT / "pyproject.toml", ROOT / "requirements.lock", ROOT / "uv.lock"
PINS = "constraint-dependencies"
BUILD_PINS, BUILD_TOOLS = "build-constraint-dependencies", "hatchling\neditables\n"
EXPORT = (
    "export --quiet --frozen --no-emit-workspace --all-packages --all-extras --no-header "
    "--format requirements.txt"
)


def main(upgrade: bool) -> None:
    """Resolve, write both files, and resolve again to see that the pins hold."""
    if upgrade:
        write(PINS, [])
        compiled = uv(
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--no-annotate",
            "--no-header",
            "-",
            stdin=BUILD_TOOLS,
        )
        write(BUILD_PINS, compiled.split("\n")[:-1])
    GENERATED.unlink(missing_ok=True)
    uv("lock", "--quiet")
    exported = uv(*EXPORT.split())
    pins = [line.removesuffix(" \\") for line in exported.splitlines() if re.match(r"\w", line)]
    write(PINS, pins)
    LOCK.write_text(exported, encoding="utf-8")
    GENERATED.unlink()
    uv("lock", "--quiet")
    if uv(*EXPORT.split()) != exported:
        sys.exit("the pins resolve to other versions than those they were made from")
    print(f"{len(pins)} pins in {PROJECT.name}, hashes in {LOCK.name}")


def write(name: str, pins: list[str]) -> None:
    """Replace one list of pins in the project file."""
    rows = "".join(f'  "{pin}",\n' for pin in pins)
    text = PROJECT.read_text(encoding="utf-8")
    block = re.compile(rf"^{name} = \[\n.*?^\]\n", re.MULTILINE | re.DOTALL)
    if not block.search(text):
        sys.exit(f"{PROJECT} has no list {name} to write to")
    PROJECT.write_text(block.sub(lambda _: f"{name} = [\n{rows}]\n", text), encoding="utf-8")


def uv(*arguments: str, stdin: str = "") -> str:
    """Run uv in the project and return what it prints."""
    found = os.environ.get("UV") or shutil.which("uv")
    command = [found] if found else [sys.executable, "-m", "uv"]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"uv {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main(upgrade="--upgrade" in sys.argv[1:])
