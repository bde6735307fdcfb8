"""The tutorial's own command lines, on its own photos, at a small size."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = ("--max-iterations", "2", "--set", "data.workers=0", "--set", "data.batch_size=1")


def test_first_masks(repository: Path, shared_data: Path, tmp_path: Path) -> None:
    """Boxes alone go in; masks with a quality, YOLO labels and a review page come out."""
    fruits = shared_data / "fruitnuts"
    weights = shared_data / "weights" / "tf_efficientnet_lite2_imagenet.safetensors"
    if not fruits.is_dir() or not weights.is_file():
        pytest.skip("needs fruitnuts and a backbone's weights of the project's shared folder")
    shutil.copy(weights, tmp_path)
    document = json.loads((fruits / "annotations" / "instances.json").read_text())
    document["images"] = document["images"][:3]
    kept = {image["id"] for image in document["images"]}
    document["annotations"] = [
        {key: value for key, value in annotation.items() if key != "segmentation"}
        for annotation in document["annotations"]
        if annotation["image_id"] in kept
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    (tmp_path / "photos").mkdir()
    for image in document["images"]:
        shutil.copy(fruits / "images" / image["file_name"], tmp_path / "photos")
    page = (repository / "docs" / "tutorials" / "first-masks.md").read_text("utf-8")
    lines = re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[0].splitlines()
    for line in lines:
        name, *arguments = shlex.split(line)
        more = SMALL if arguments[0] == "fit" else ()
        program = f"from boxdepth.{name}.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments, *more],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    masks = json.loads((tmp_path / "masks.json").read_text())
    assert [mask["id"] for mask in masks] == [a["id"] for a in document["annotations"]]
    assert all(0 <= mask["quality"] <= 1 for mask in masks)
    assert list((tmp_path / "labels").rglob("*.txt"))
    assert "<html" in (tmp_path / "review.html").read_text("utf-8")
