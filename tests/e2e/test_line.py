"""The line as a user types it: separate processes, defaults, a tiny subset."""

import json
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(sysconfig.get_path("scripts"))


def line(*command: object, cwd: Path) -> dict[str, Any]:
    """Run a command of ours; the last line of its stdout is its JSON result."""
    done = subprocess.run(
        [str(SCRIPTS / str(command[0])), *map(str, command[1:])],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "CI": "1"},
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def metrics(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "losses" in row]


def assert_coco_results(path: Path, annotations: Path) -> None:
    """Every result is on a listed image, of a listed category, with a mask of the image's size."""
    truth, rows = json.loads(annotations.read_text()), json.loads(path.read_text())
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for row in rows:
        assert row["segmentation"]["size"] == sizes[row["image_id"]]
        assert isinstance(row["segmentation"]["counts"], str)
        assert row["category_id"] in categories
        assert 0 <= row["score"] <= 1
        assert len(row["bbox"]) == 4


@pytest.mark.slow
def test_scenes_from_drawing_to_ap(tmp_path: Path) -> None:
    line("depthgen", "sample", "--out", "scenes", "--train", 8, "--val", 4, "--json", cwd=tmp_path)
    for split in ("train2017", "val2017"):
        made = line(
            "depthgen", "run", "--dataset", "coco", "--data-root", "scenes",
            "--split", split, "--json", cwd=tmp_path,
        )  # fmt: skip
        assert made["store"].endswith(f"stores/coco-{split}.zarr")
    fitted = line(
        "trainer", "fit", "scenes_tiny", "--train", "stores/coco-train2017.zarr",
        "--val", "stores/coco-val2017.zarr", "--max-iterations", 4,
        "--val-annotations", "scenes/annotations/instances_val2017.json", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert (fitted["run"], fitted["iterations"]) == ("runs/scenes_tiny", 4)
    predicted = line(
        "trainer", "predict", "runs/scenes_tiny", "--store", "stores/coco-val2017.zarr",
        "--overlay", "overlays", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert predicted["images"] == 4
    assert len(list((tmp_path / "overlays").glob("*.png"))) == 4
    annotations = tmp_path / "scenes/annotations/instances_val2017.json"
    assert_coco_results(tmp_path / "predictions.json", annotations)
    named = line(
        "evaluate", "ap", "--predictions", "predictions.json", "--annotations", annotations,
        "--json", cwd=tmp_path,
    )  # fmt: skip
    newest = line("evaluate", "ap", "--json", cwd=tmp_path)
    assert named["segm"]["ap"] == newest["segm"]["ap"] == fitted["ap"]["segm"]["ap"]


@pytest.mark.slow
@pytest.mark.data
def test_photos_from_boxes(shared_data: Path, tmp_path: Path) -> None:
    """A few dozen steps on real photos with a pretrained backbone: losses fall, files are valid."""
    source = json.loads((shared_data / "coco-dev/annotations/instances_val2017.json").read_text())
    boxes = {a["image_id"] for a in source["annotations"] if not a["iscrowd"]}
    images = [image for image in source["images"] if image["id"] in boxes][:4]
    ids = {image["id"] for image in images}
    few = {**source, "images": images}
    few["annotations"] = [a for a in source["annotations"] if a["image_id"] in ids]
    annotations = tmp_path / "few.json"
    annotations.write_text(json.dumps(few))
    line(
        "depthgen", "run", "--dataset", "custom", "--images", shared_data / "coco-dev/val2017",
        "--annotations", annotations, "--store", "few.zarr", "--json", cwd=tmp_path,
    )  # fmt: skip
    weights = shared_data / "weights/mobilenetv2_100_imagenet.safetensors"
    fitted = line(
        "trainer", "fit", "coco_photos_mobilenet", "--train", "few.zarr", "--val", "few.zarr",
        "--val-annotations", annotations, "--max-iterations", 24, "--out", "run",
        "--set", f"model.backbone.weights={weights}", "--set", "checkpoints.log_every=4",
        "--set", "data.augmentation.short_sides=[160]", "--set", "inference.short_side=160",
        "--json", cwd=tmp_path,
    )  # fmt: skip
    rows = metrics(tmp_path / "run")
    assert rows[-1]["losses"]["projection"] < rows[0]["losses"]["projection"]
    assert rows[-1]["losses"]["classification"] < rows[0]["losses"]["classification"]
    assert fitted["losses"].keys() >= {"projection", "color", "consistency", "depth"}
    assert_coco_results(tmp_path / "run" / "predictions.json", annotations)
    scored = line("evaluate", "ap", "--run", "run", "--json", cwd=tmp_path)
    assert scored["images"] == 4
