"""The command as a person uses it: what it writes, what it says, and how it ends."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from boxdepth.trainer.engine.checkpoint import load_checkpoint, save_checkpoint
from boxdepth.trainer.engine.log import read_metrics


def test_fit_leaves_a_whole_run_folder_and_says_where(fit) -> None:
    code, out, said = fit("--out", "run", "--json")
    assert code == 0, said
    result = json.loads(out.splitlines()[-1])
    assert result.keys() == {"run", "iterations", "images_seen", "seconds", "losses", "ap"}
    assert (result["run"], result["iterations"], result["images_seen"]) == ("run", 6, 12)
    assert result["ap"]["segm"].keys() >= {"ap", "ap50"}
    names = {path.name for path in Path("run").iterdir()}
    assert names >= {
        "config.json", "run.json", "metrics.jsonl", "checkpoints", "latest", "best",
        "predictions.json", "report.json",
    }  # fmt: skip
    about = json.loads(Path("run/run.json").read_text())
    assert about["command"].startswith("trainer fit scenes_tiny")
    assert about["data"]["train_fingerprint"]
    assert about["versions"]["torch"]
    assert [row["iteration"] for row in read_metrics(Path("run")) if "losses" in row] == [
        *range(1, 7)
    ]
    assert len(list(Path("run/checkpoints").iterdir())) <= 3
    assert "12" in said
    assert "trainer predict run" in said


def test_a_checkpoint_tells_nothing_of_this_machine(fit, tmp_path: Path) -> None:
    fit("--out", "run")
    for path in Path("run/checkpoints").glob("*/run.json"):
        assert str(tmp_path) not in path.read_text()


def test_fit_does_not_overwrite_and_resume_finds_nothing_left(fit) -> None:
    fit("--out", "run", "--max-iterations", 2)
    code, _, said = fit("--out", "run")
    assert code == 2
    assert "run holds a run already: --resume goes on with it, --overwrite replaces it" in said
    code, out, _ = fit("--out", "run", "--resume", "--json")
    assert (code, json.loads(out.splitlines()[-1])["iterations"]) == (0, 6)
    code, _, said = fit("--out", "run", "--resume")
    assert code == 0
    assert "nothing left to train" in said
    code, _, said = fit("--out", "run", "--overwrite", "--max-iterations", 1)
    assert code == 0
    assert len(list(Path("run/checkpoints").iterdir())) == 1


def test_resume_takes_the_runs_own_settings_and_refuses_others(fit, trainer) -> None:
    fit("--out", "run", "--max-iterations", 2)
    code, _, said = trainer("fit", "--resume", "--out", "run", "--set", "optimizer.momentum=0.5")
    assert code == 2
    assert "optimizer.momentum: 0.9 then, 0.5 now" in said
    code, _, said = trainer("fit", "--resume", "--out", "run")
    assert code == 0, said


def test_a_run_killed_before_its_evaluation_is_evaluated_when_resumed(fit) -> None:
    fit("--out", "run")
    Path("run/evaluation.json").unlink()
    Path("run/predictions.json").write_text("[]")
    code, out, _ = fit("--out", "run", "--resume", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["ap"]["segm"].keys() >= {"ap"}
    assert json.loads(Path("run/evaluation.json").read_text())["step"] == 6


@pytest.mark.parametrize(("able", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_precision_auto_is_what_the_machine_multiplies(
    fit, monkeypatch: pytest.MonkeyPatch, able: bool, chosen: str
) -> None:
    monkeypatch.setattr("boxdepth.trainer.engine.device.multiplies_bf16", lambda device: able)
    code, out, _ = fit("--out", "run", "--precision", "auto", "--dry-run", "--json")
    assert (code, json.loads(out)["config"]["precision"]) == (0, chosen)
    code, _, said = fit("--out", "run", "--precision", "best", "--dry-run")
    assert code == 2
    assert "precision" in said


def test_a_dry_run_writes_nothing(fit) -> None:
    code, out, said = fit("--out", "run", "--dry-run", "--json")
    assert code == 0
    assert not Path("run").exists()
    assert json.loads(out)["parameters"] > 0
    assert "nothing was written" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fit", "scenes_tin"], 2, "no preset 'scenes_tin'; did you mean 'scenes_tiny'?"),
        (["fit", "scenes_tiny", "--set", "optimizer.lr=1"], 2, "mean 'optimizer.learning_rate'?"),
        (["fit", "scenes_tiny", "--train", "no.zarr"], 3, "no.zarr: no such store"),
        (["fit", "scenes_tiny", "--config", "no.json"], 2, "give a preset or --config, not both"),
        (["fit", "--config", "no.json"], 2, "no.json: cannot read the config"),
        (["fit", "scenes_tiny", "--nonsense"], 2, "No such option"),
        (["fit", "scenes_tiny", "--resume", "--overwrite"], 2, "exclude each other"),
        (["predict", "nowhere", "a.jpg"], 3, "a.jpg: no such image or folder"),
        (["predict", "."], 2, "nothing to predict on"),
        (["check-data", "nowhere.zarr"], 3, "nowhere.zarr: no such store"),
        (["summary", "."], 3, "no metrics.jsonl"),
    ],
)
def test_a_mistake_is_one_line_with_the_right_code(
    trainer, arguments: list[str], code: int, words: str
) -> None:
    ended, out, said = trainer(*arguments)
    assert (ended, out) == (code, "")
    assert words in said
    assert "Traceback" not in said


def test_weights_that_are_not_here_leave_the_run_that_is(fit) -> None:
    assert fit("--out", "run")[0] == 0
    before = Path("run/run.json").read_bytes()
    missing = ("--set", "model.backbone.weights=timm")
    code, _, said = fit("--out", "run", "--overwrite", *missing)
    assert code == 6
    assert "model.backbone.weights=FILE" in said
    assert Path("run/run.json").read_bytes() == before


def test_frozen_random_weights_are_refused_with_the_cure(fit) -> None:
    code, _, said = fit("--out", "run", "--set", "model.backbone.frozen_stages=2")
    assert code == 2
    assert "model.backbone.weights=timm" in said
    assert not Path("run").exists()


def test_an_unfinished_store_is_refused(fit, trainer, make_store) -> None:
    path = make_store("half").path
    (path / ".boxdepth" / "MANIFEST.json").unlink()
    code, _, said = trainer("fit", "scenes_tiny", "--train", path, "--out", "run")
    assert code == 3
    assert "unfinished" in said
    assert not Path("run").exists()


def test_masks_without_masks_in_the_store_are_refused(trainer, make_store) -> None:
    path = make_store("boxes").path
    code, _, said = trainer(
        "fit", "scenes_tiny", "--train", path, "--set", "data.supervision=masks"
    )
    assert code == 3
    assert "depthgen run --with-masks" in said


def test_the_variable_that_opens_pickles_is_refused(
    trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    code, _, said = trainer("presets")
    assert code == 2
    assert "unset it" in said


def image_file(path: Path, size: tuple[int, int] = (60, 80)) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_predict_writes_coco_results_and_pictures(fit, trainer) -> None:
    fit("--out", "run", "--set", "inference.score_threshold=0.0", "--max-iterations", 2)
    Path("photos").mkdir()
    image_file(Path("photos/a.jpg"))
    image_file(Path("photos/b.png"), (50, 40))
    code, out, said = trainer(
        "predict", "run", "photos", "--out", "p.json", "--overlay", "pictures", "--json"
    )
    assert code == 0, said
    result = json.loads(out)
    assert (result["images"], result["weights"]) == (2, "student")
    rows = json.loads(Path("p.json").read_text())
    assert len(rows) == result["instances"] > 0
    assert {row["category_id"] for row in rows} <= {3, 9}
    assert {tuple(row["segmentation"]["size"]) for row in rows} == {(60, 80), (50, 40)}
    assert {row["file_name"] for row in rows} == {"a.jpg", "b.png"}
    assert len(list(Path("pictures").glob("*.png"))) == 2
    code, _, said = trainer("predict", "run", "photos", "--out", "p.json")
    assert code == 2
    assert "--overwrite" in said
    code, _, said = trainer("predict", "run", "photos", "--out", "q.json", "--weights", "teacher")
    assert code == 3
    assert "has no teacher" in said


def test_predict_in_given_boxes_gives_one_mask_a_box(fit, trainer) -> None:
    fit("--out", "run", "--max-iterations", 1)
    image_file(Path("a.jpg"))
    boxes = [
        {"id": 7, "image_id": 1, "category_id": 9, "bbox": [5, 5, 30, 40], "file_name": "a.jpg"},
        {"id": 8, "image_id": 1, "category_id": 3, "bbox": [40, 10, 39, 45], "file_name": "a.jpg"},
    ]
    Path("boxes.json").write_text(json.dumps(boxes))
    code, _, said = trainer("predict", "run", "a.jpg", "--boxes", "boxes.json", "--out", "m.json")
    assert code == 0, said
    rows = json.loads(Path("m.json").read_text())
    assert [(row["id"], row["category_id"]) for row in rows] == [(7, 9), (8, 3)]
    np.testing.assert_allclose([row["bbox"] for row in rows], [b["bbox"] for b in boxes], atol=1e-3)
    masks = [coco_mask.decode(row["segmentation"]) for row in rows]
    for mask, box in zip(masks, boxes, strict=True):
        x, y, w, h = box["bbox"]
        assert mask.sum() == mask[y : y + h, x : x + w].sum()
    uncut = ("--boxes", "boxes.json", "--out", "whole.json", "--no-crop", "--overlay", "drawn")
    code, _, said = trainer("predict", "run", "a.jpg", *uncut)
    assert code == 0, said
    for mask, row in zip(masks, json.loads(Path("whole.json").read_text()), strict=True):
        whole = coco_mask.decode(row["segmentation"])
        assert (mask <= whole).all()
    Path("boxes.json").write_text(json.dumps([{"image_id": 5, "bbox": [0, 0, 1, 1]}]))
    code, _, said = trainer("predict", "run", "a.jpg", "--boxes", "boxes.json", "--out", "n.json")
    assert code == 3
    assert "no box is on a picture that is given (boxes are on image 5; given: a.jpg)" in said


def test_a_truncated_photo_is_named(fit, trainer) -> None:
    fit("--out", "run", "--max-iterations", 1)
    whole = image_file(Path("a.jpg")).read_bytes()
    Path("a.jpg").write_bytes(whole[: len(whole) // 2])
    code, _, said = trainer("predict", "run", "a.jpg", "--out", "p.json")
    assert code == 3
    assert "a.jpg" in said
    assert not Path("p.json").exists()


def test_a_damaged_checkpoint_is_named(fit, trainer) -> None:
    fit("--out", "run", "--max-iterations", 1)
    weights = next(Path("run/checkpoints").glob("*/model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    code, _, said = trainer("predict", "run", image_file(Path("a.jpg")), "--out", "p.json")
    assert code == 3
    assert "damaged" in said


def test_spoilt_weights_are_refused_wherever_they_enter(fit) -> None:
    assert fit("--out", "run", "--max-iterations", 1)[0] == 0
    root = Path("run/checkpoints")
    whole = load_checkpoint(next(root.glob("step-*")))
    whole.model["controller.weight"][0, 0] = float("inf")
    save_checkpoint(root, whole)
    for arguments in (("run", "--resume"), ("b", "--fork", "run"), ("c", "--init", "run")):
        code, _, said = fit("--out", *arguments)
        assert code == 3
        assert "controller.weight (9 of" in said or "controller.weight (1 of" in said


def test_what_a_short_schedule_leaves_out_is_said_before_it_starts(fit) -> None:
    short = ("--set", "schedule.steps=[4, 60]", "--set", "losses.warmup_iterations=5")
    code, _, said = fit("--out", "run", "--dry-run", *short)
    assert code == 0
    assert "drops fewer times: 60 is beyond the last of 6 steps" in said
    assert "the depth consistency reaches 20% of its weight" in said


def test_init_takes_the_weights_of_another_run(fit) -> None:
    fit("--out", "first", "--max-iterations", 1)
    code, _, said = fit("--out", "second", "--init", "first", "--max-iterations", 1)
    assert code == 0
    assert "tensors loaded" in said


def test_a_fork_with_the_same_settings_learns_what_the_run_would_have_learnt(fit) -> None:
    assert fit("--out", "whole")[0] == 0
    assert fit("--out", "stem", "--max-iterations", 3)[0] == 0
    code, _, said = fit("--out", "branch", "--fork", "stem")
    assert code == 0
    assert "iteration 3" in said
    for name, tensor in _newest_weights("whole").items():
        assert torch.equal(tensor, _newest_weights("branch")[name]), name
    assert len(_newest_weights("stem")) == len(_newest_weights("branch"))


def test_a_fork_may_have_other_losses_but_not_another_network(fit) -> None:
    fit("--out", "stem", "--max-iterations", 3)
    code, _, _ = fit("--out", "branch", "--fork", "stem", "--set", "losses.color=0")
    assert code == 0
    code, _, said = fit("--out", "b2", "--fork", "stem", "--set", "model.mask_head.depth=off")
    assert code == 2
    assert "can't go on from there" in said
    assert not Path("b2/run.json").exists()
    code, _, said = fit("--out", "b3", "--fork", "nowhere")
    assert code == 3
    assert "nowhere" in said
    code, _, said = fit("--out", "b4", "--fork", "stem", "--init", "stem")
    assert code == 2
    assert "--fork already says" in said


def _newest_weights(run: str) -> dict[str, torch.Tensor]:
    return load_checkpoint(sorted(Path(run, "checkpoints").glob("step-*"))[-1]).model


def test_check_data_counts_what_is_left_out(trainer, make_store) -> None:
    def two_and_nothing(index: int, height: int, width: int) -> np.ndarray:
        return np.array([[1, 1, 30, 30], [5, 5, 5, 20]], np.float32)

    store = make_store("odd", boxes=two_and_nothing)
    code, out, said = trainer("check-data", store.path, "--deep", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["boxes"], result["boxes_used"], result["boxes_empty"]) == (12, 6, 6)
    assert result["boxes_per_category"] == {"cup": 6, "bowl": 6}
    assert "without area 6" in said


def test_summary_shows_losses_and_ap(fit, trainer) -> None:
    fit("--out", "run")
    code, out, said = trainer("summary", "run", "--json")
    assert code == 0
    assert "projection" in said
    assert "mask AP" in said
    assert json.loads(out)["iterations"] == 6


def test_summary_reads_a_folder_that_somebody_touched(trainer) -> None:
    Path("r [").mkdir()
    run = Path("r [/x]")
    run.mkdir()
    good = {"iteration": 4, "losses": {"[red]box[/red]": 0.5}, "learning_rate": 0.1}
    lines = [json.dumps(good), "[]", '{"iteration": "x"}', '{"iteration": 9, "losses": 3}', "{"]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    (run / "evaluation.json").write_text('{"step": 2, "of": "", "scores": null}')
    (run / "run.json").write_text('{"config": {"name": "a [b]", "losses": []}}')
    code, _, said = trainer("summary", run)
    assert code == 0, said
    for words in ("a [b], iteration 4", "[red]box[/red]", "are of iteration 2"):
        assert words in said
    (run / "run.json").write_text("{")
    code, _, said = trainer("summary", run)
    assert code == 2
    assert "run.json: not readable as JSON" in said


def test_presets_and_schema_are_machine_readable(trainer) -> None:
    code, out, _ = trainer("presets", "--json")
    assert code == 0
    assert {"scenes_tiny", "coco_r50_1x"} <= {row["name"] for row in json.loads(out)["presets"]}
    code, out, _ = trainer("schema")
    assert code == 0
    assert "optimizer" in json.loads(out)["properties"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")
def test_a_device_that_is_not_there_is_named(fit) -> None:
    code, _, said = fit("--device", "cuda", "--out", "run")
    assert code == 2
    assert "no CUDA" in said
