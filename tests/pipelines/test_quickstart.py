"""The first command of the README at its smallest, and what is left of a second call."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = (
    "schedule.iterations=2",
    "schedule.steps=[]",
    "schedule.warmup_iterations=0",
    "losses.warmup_iterations=1",
    "data.batch_size=2",
    "data.workers=0",
)


def quickstart(repository: Path, out: Path) -> dict:
    script = repository / "pipelines" / "quickstart.py"
    chosen = [part for setting in SMALL for part in ("--set", setting)]
    counts = ("--train", "3", "--val", "2", "--json")
    done = subprocess.run(
        [sys.executable, str(script), "--out", str(out), *counts, *chosen],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_from_nothing_to_a_report(repository: Path, tmp_path: Path) -> None:
    result = quickstart(repository, tmp_path / "out")
    assert 0 <= result["segm"]["ap"] <= 1
    page = Path(result["report"]).read_text("utf-8")
    commands = ("depthgen sample", "depthgen run", "trainer fit", "trainer predict", "evaluate ap")
    assert all(command in page for command in commands)
    assert page.count("data:image/png;base64,") == 2 + 1, "a picture a scene, and the curves"
    assert "http" not in page.replace("http://www.w3.org", "")
    scenes = tmp_path / "out" / "scenes" / "annotations" / "instances_val2017.json"
    images = {image["id"] for image in json.loads(scenes.read_text())["images"]}
    predicted = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {row["image_id"] for row in predicted} <= images
