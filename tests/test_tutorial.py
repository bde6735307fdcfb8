"""The tutorials' own command lines, on their own photos, at a small size."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

SMALL = ("--max-iterations", "2", "--set", "data.workers=0", "--set", "data.batch_size=1")


@pytest.fixture
def fruits(shared_data: Path, tmp_path: Path) -> dict[str, Any]:
    """Three photos, a backbone's weights, and the annotations of the photos with their masks."""
    source = shared_data / "fruitnuts"
    weights = shared_data / "weights" / "tf_efficientnet_lite2_imagenet.safetensors"
    if not source.is_dir() or not weights.is_file():
        pytest.skip("needs fruitnuts and a backbone's weights of the project's shared folder")
    shutil.copy(weights, tmp_path)
    document: dict[str, Any] = json.loads((source / "annotations" / "instances.json").read_text())
    document["images"] = document["images"][:3]
    kept = {image["id"] for image in document["images"]}
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in kept]
    (tmp_path / "photos").mkdir()
    for image in document["images"]:
        shutil.copy(source / "images" / image["file_name"], tmp_path / "photos")
    return document


def without_masks(annotations: list[dict[str, Any]], *, but: int = 0) -> list[dict[str, Any]]:
    """The same without masks, but for every so manieth."""
    return [
        a if but and k % but == 0 else {key: a[key] for key in a if key != "segmentation"}
        for k, a in enumerate(annotations)
    ]


def lines_of(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)[
        0
    ].splitlines()


def run(lines: list[str], folder: Path) -> None:
    for line in lines:
        name, *arguments = shlex.split(line)
        more = SMALL if arguments[0] == "fit" else ()
        program = f"from boxdepth.{name}.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments, *more],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def check_first_masks(folder: Path, document: dict[str, Any]) -> None:
    masks = json.loads((folder / "masks.json").read_text())
    assert [mask["id"] for mask in masks] == [a["id"] for a in document["annotations"]]
    assert all(0 <= mask["quality"] <= 1 for mask in masks)
    assert list((folder / "labels").rglob("*.txt"))
    assert "<html" in (folder / "review.html").read_text("utf-8")


def test_first_masks(repository: Path, fruits: dict[str, Any], tmp_path: Path) -> None:
    """Boxes alone go in; masks with a quality, YOLO labels and a review page come out."""
    boxes = {**fruits, "annotations": without_masks(fruits["annotations"])}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    run(lines_of(repository / "docs" / "tutorials" / "first-masks.md"), tmp_path)
    check_first_masks(tmp_path, fruits)


@pytest.mark.slow
def test_first_masks_as_a_notebook(
    repository: Path, fruits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notebook has the page's commands and no output, and runs."""
    boxes = {**fruits, "annotations": without_masks(fruits["annotations"])}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    tutorials = repository / "docs" / "tutorials"
    notebook = nbformat.read(tutorials / "first-masks.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    commands = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.source for cell in commands] == [
        f"%%bash\n{line}" for line in lines_of(tutorials / "first-masks.md")
    ]
    assert all(not cell.outputs and cell.execution_count is None for cell in commands)
    commands[0].source += " " + shlex.join(SMALL)
    scripts = sysconfig.get_path("scripts")
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{os.environ['PATH']}")
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    check_first_masks(tmp_path, fruits)


@pytest.mark.slow
def test_a_tenth_has_masks(repository: Path, fruits: dict[str, Any], tmp_path: Path) -> None:
    """Masks that are there are learnt from and come out as they were; the others are made."""
    annotations = without_masks(fruits["annotations"], but=10)
    (tmp_path / "mixed.json").write_text(json.dumps({**fruits, "annotations": annotations}))
    run(lines_of(repository / "docs" / "tutorials" / "a-tenth-has-masks.md"), tmp_path)
    config = json.loads((tmp_path / "runs" / "auto" / "config.json").read_text())
    assert config["data"]["supervision"] == "mixed"
    [complete] = (tmp_path / "complete").rglob("_annotations.coco.json")
    found = {a["id"]: a for a in json.loads(complete.read_text())["annotations"]}
    assert set(found) == {a["id"] for a in annotations}
    assert all(a["segmentation"] for a in found.values())
    truth = COCO()
    truth.dataset = fruits
    truth.createIndex()
    given = [a["id"] for a in annotations if "segmentation" in a]
    assert len(given) == -(-len(annotations) // 10)
    for place in given:
        expected = truth.annToMask(truth.anns[place])
        np.testing.assert_array_equal(coco_mask.decode(found[place]["segmentation"]), expected)
