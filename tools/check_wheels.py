"""Build the three wheels, install each into an environment of its own, and see that it works there.

    python3 -m uv run --no-project python tools/check_wheels.py

Each environment holds one package with what it declares, in the versions of `requirements.lock`.
What must not come along is checked, too: `evaluate` and `depthgen` without torch, `trainer` without
transformers. Needs the package index (or a warm cache) and about 5 GB of disk.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
UV = (sys.executable, "-m", "uv")
WITHOUT = {
    "evaluate": ("torch", "torchvision", "transformers", "zarr", "boxdepth.depthgen"),
    "depthgen": ("torch", "torchvision", "transformers", "boxdepth.trainer"),
    "trainer": ("transformers", "boxdepth.evaluate"),
}
SMOKE = {
    "evaluate": "import boxdepth.evaluate as e; e.evaluate_coco; e.RunningEvaluation({1: 'cup'})",
    "depthgen": "import boxdepth.depthgen as d; d.open_store; d.StoreDataset",
    "trainer": "import boxdepth.trainer as t; t.fit; t.load_predictor; t.preset('scenes_tiny')",
}
ABSENT = "from importlib.util import find_spec; import sys; sys.exit(find_spec({!r}) is not None)"


def run(*command: str | Path) -> None:
    """Run a command and show it; end with its exit code if it fails."""
    print("$", *command, flush=True)
    done = subprocess.run([str(part) for part in command], cwd=REPOSITORY, check=False)
    if done.returncode:
        sys.exit(f"ends with {done.returncode}")


def check(name: str, wheels: Path, folder: Path) -> None:
    """Install one wheel alone, import it, ask its command for help."""
    environment = folder / name
    run(*UV, "venv", "--quiet", environment)
    scripts = environment / ("Scripts" if sys.platform == "win32" else "bin")
    python = scripts / "python"
    where = ("--find-links", wheels, "--constraint", "requirements.lock", "--no-compile-bytecode")
    run(*UV, "pip", "install", "--quiet", "--python", python, *where, f"boxdepth-{name}")
    for module in WITHOUT[name]:
        run(python, "-c", ABSENT.format(module))
    run(python, "-c", SMOKE[name])
    run(scripts / name, "--version")
    run(scripts / name, "--help")


def main(names: Sequence[str]) -> None:
    """Check the packages of these names, or all."""
    with tempfile.TemporaryDirectory() as folder:
        wheels = Path(folder) / "wheels"
        run(*UV, "build", "--all-packages", "--wheel", "--quiet", "--out-dir", wheels)
        for name in names or WITHOUT:
            check(name, wheels, Path(folder))
    print(f"fine: {', '.join(names or WITHOUT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
