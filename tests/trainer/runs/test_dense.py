"""Hundreds of small boxes in one image: no limit bites without a word."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.trainer.predict.test_predict import SIZES, outputs

from boxdepth.evaluate import evaluate_coco
from boxdepth.evaluate.cli import main as evaluate_main
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.data.collate import collate
from boxdepth.trainer.data.store_dataset import TrainingSet
from boxdepth.trainer.data.validation_set import ValidationSet
from boxdepth.trainer.engine.log import read_metrics
from boxdepth.trainer.geometry.grid import padded_size
from boxdepth.trainer.model.detections import detect
from boxdepth.trainer.model.rules import DetectionLimits
from boxdepth.trainer.predict.job import Outcome
from boxdepth.trainer.runs.evaluation import scorer
from boxdepth.trainer.structures import FPN_STRIDES
from boxdepth.trainer.targets.assign import assign_targets

SIDE, STEP, BOX = 256, 16, 12
MANY = (SIDE // STEP) ** 2
"""Boxes in the image: 256, four times as many as masks of an image are trained elsewhere."""


def boxes_in_rows(index: int, height: int, width: int) -> np.ndarray:
    """A box of 12 pixels in each cell of 16."""
    y, x = np.mgrid[0 : height // STEP, 0 : width // STEP] * STEP + 2
    corner = np.stack([x.ravel(), y.ravel()], axis=1)
    return np.concatenate([corner, corner + BOX], axis=1).astype(np.float32)


@pytest.fixture
def dense(make_store):
    return make_store("dense", sizes=[(SIDE, SIDE)], boxes=boxes_in_rows, masks=True)


@pytest.fixture
def dense_run(tiny_run: RunConfig) -> RunConfig:
    """As `fit auto` chooses it: the input as large as the image, room for all boxes."""
    return apply_overrides(
        tiny_run,
        [
            f'data.augmentation={{"short_sides": [{SIDE}], "max_size": {SIDE}, "flip": 0}}',
            "data.batch_size=1",
            "data.bottom_rows_removed=0",
            'schedule={"iterations": 2, "steps": [], "warmup_iterations": 0}',
            f'inference={{"short_side": {SIDE}, "max_size": {SIDE}, "max_detections": 600}}',
        ],
    )


def test_every_box_has_a_location_and_every_one_trains_a_mask(
    dense, dense_run: RunConfig, tmp_path: Path
) -> None:
    from boxdepth.trainer.runs import fit

    batch = collate([TrainingSet(dense, dense_run.data, seed=0).load(0, epoch=0)])
    height, width = padded_size([(SIDE, SIDE)])
    shapes = [(-(-height // s), -(-width // s)) for s in FPN_STRIDES]
    rule = dense_run.model.fcos
    targets = assign_targets(batch.ground_truth, shapes, rule, num_classes=2)
    assert len(targets.box_index[targets.positives].unique()) == MANY
    data = dense_run.data.changed(train=dense.path, val=dense.path)
    fitted = fit(dense_run.changed(data=data), out=tmp_path / "run", device="cpu")
    watched = [row["monitors"] for row in read_metrics(tmp_path / "run") if "monitors" in row]
    assert [row["mask_samples"] for row in watched] == [MANY] * 2
    assert fitted.scores is not None
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "ar_600" in report["segm"]
    assert not [said for said in report["warnings"] if "cannot be found" in said]


def test_the_boxes_get_a_mask_each(trainer, dense, tiny_checkpoint: Path) -> None:
    assert trainer("predict", tiny_checkpoint, "--store", dense.path, "--boxes", "store")[0] == 0
    found = json.loads(Path("predictions.json").read_text())
    assert [mask["id"] for mask in found] == dense.boxes(0).id.tolist()


def test_a_limit_that_bites_is_said_with_the_cure(trainer, dense, tiny_checkpoint: Path) -> None:
    command = ("predict", tiny_checkpoint, "--store", dense.path, "--overwrite")
    code, _, said = trainer(*command, "--max-detections", 5)
    assert code == 0
    assert "1 of 1 pictures hold more detections than the 5" in said
    assert "--max-detections 10" in said
    assert 0 < len(json.loads(Path("predictions.json").read_text())) <= 5
    code, _, said = trainer(*command, "--max-detections", 100_000)
    assert (code, "more detections" in said) == (0, False)


def test_more_than_the_limits_let_through_is_known() -> None:
    free = detect(outputs(), SIZES, DetectionLimits(max_detections=10_000))
    assert [found.cut for found in free] == [False, False]
    survivors = len(free[0].scores)
    limits = DetectionLimits(max_detections=survivors)
    assert not detect(outputs(), SIZES, limits)[0].cut
    limits = DetectionLimits(max_detections=survivors - 1)
    assert detect(outputs(), SIZES, limits)[0].cut


def test_candidates_grow_with_what_may_be_found() -> None:
    assert DetectionLimits().candidates == 1000
    assert DetectionLimits(max_detections=1350).candidates == 5400
    # 8 x 12 locations x 3 classes of the first level, of which eight are looked at
    few = DetectionLimits(pre_nms=8, max_detections=2, score_threshold=0.0, nms_iou=0.01)
    found = detect(outputs(), SIZES, few)
    assert all(len(one.scores) == 2 and one.cut for one in found)
    none_left_out = DetectionLimits(pre_nms=288, max_detections=72, score_threshold=0.0)
    kept = detect(outputs(), SIZES, none_left_out)[0]
    everything = detect(outputs(), SIZES, DetectionLimits(max_detections=72, score_threshold=0.0))
    assert torch.equal(kept.scores, everything[0].scores)


def test_a_score_threshold_that_leaves_some_out_says_nothing_of_limits() -> None:
    outcome = Outcome(of=3, cut=["a.jpg"], images=[{}, {}, {}])
    assert "1 of 3 pictures" in outcome.notes(100)[0]
    assert "a.jpg" in outcome.notes(100)[0]


def test_scores_in_training_count_as_many_as_may_be_found(dense) -> None:
    """The truth itself, found: 1 where all may be found, less where 100 of a class count."""
    images = ValidationSet(dense)
    truth = images.ground_truth()
    results = [
        {key: a[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 1}
        for a in truth["annotations"]
    ]
    wide, narrow = scorer(images, None, max_detections=600), scorer(images, None)
    assert wide is not None
    assert narrow is not None
    assert wide(results)["segm"]["ap"] == pytest.approx(1.0)
    limited = narrow(results)
    assert limited["segm"]["ap"] < 0.85  # 100 of the 128 of each class
    assert any("100 detections that count" in said for said in limited["warnings"])


def test_the_word_on_crowded_images_names_the_fullest() -> None:
    image = {"id": 7, "height": 400, "width": 400}
    boxes = [[float(20 * (k % 20)), float(20 * (k // 20)), 9.0, 9.0] for k in range(150)]
    truth = {
        "images": [image],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": k, "image_id": 7, "category_id": 1, "bbox": box, "area": 81.0, "iscrowd": 0}
            for k, box in enumerate(boxes)
        ],
    }
    results = [{"image_id": 7, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes]
    report = evaluate_coco(results, truth, iou_types=("bbox",))
    [said] = [text for text in report.warnings if "cannot be found" in text]
    assert said.startswith("1 image with more")
    assert "image 7: 150 of cell" in said
    assert "--max-detections 1,10,100,230" in said
    assert report.bbox is not None
    assert report.bbox.ap < 0.7
    wide = evaluate_coco(results, truth, iou_types=("bbox",), max_detections=(1, 10, 100, 230))
    assert wide.bbox is not None
    assert wide.bbox.ap == pytest.approx(1.0)
    assert not [text for text in wide.warnings if "cannot be found" in text]


def test_the_command_counts_as_many_as_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    box = {"image_id": 1, "category_id": 1, "bbox": [2.0, 2.0, 9.0, 9.0]}
    truth = {
        "images": [{"id": 1, "height": 20, "width": 20}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{**box, "id": 1, "area": 81.0, "iscrowd": 0}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps([{**box, "score": 0.9}]))
    command = ["ap", "--predictions", "found.json", "--annotations", "truth.json", "--json"]
    monkeypatch.chdir(tmp_path)
    for text, code in (("1,10,1350", 0), ("500", 0), ("0,10", 2), ("many", 2)):
        monkeypatch.setattr(sys, "argv", ["evaluate", *command, "--max-detections", text])
        with pytest.raises(SystemExit) as ended:
            evaluate_main()
        assert int(ended.value.code or 0) == code, text
        said = capsys.readouterr().out
        if code == 0:
            largest = text.split(",")[-1]
            assert json.loads(said)["bbox"][f"ar_{largest}"] == pytest.approx(1.0)
