"""What `trainer fit auto` chooses, what it says of a dataset, and where its store comes from."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boxdepth.depthgen.store import Category
from boxdepth.trainer import build
from boxdepth.trainer.config import Backbone
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.config.presets import PRESETS
from boxdepth.trainer.config.schedule_notes import schedule_notes
from boxdepth.trainer.errors import ConfigError, WeightsError
from boxdepth.trainer.geometry.tiles import Tiling
from boxdepth.trainer.runs.auto import (
    BackboneChoice,
    Facts,
    Machine,
    choose_backbone,
    duplicate_images,
    find_problems,
    pick,
    read_facts,
    unseen_boxes,
)
from boxdepth.trainer.runs.auto.backbones import model_of_file
from boxdepth.trainer.runs.auto.facts import in_tiles
from boxdepth.trainer.runs.auto.picker import pick_tiling
from boxdepth.trainer.runs.auto.probe import probe
from boxdepth.trainer.runs.auto.sources import DepthgenFailedError, find_source, make_store

BACKBONE = BackboneChoice(backbone=Backbone(name="resnet18", weights="timm"), why="for the test")
CPU, GPU = Machine(device="cpu"), Machine(device="cuda")


def facts(
    images: int = 300,
    *,
    boxes: int = 5,
    size: tuple[int, int] = (600, 800),
    box: float = 120.0,
    categories: tuple[tuple[int, str], ...] = ((1, "cup"), (2, "bowl")),
) -> Facts:
    """Images of one size, each with boxes of one size in rows that do not touch."""
    height, width = size
    per_row = max(int(width // (box + 8)), 1)
    corners = np.array(
        [((k % per_row) * (box + 8) + 3, (k // per_row) * (box + 8) + 3) for k in range(boxes)]
    ).reshape(-1, 2)
    one = np.concatenate([corners, corners + box], axis=1)
    assert one.size == 0 or one[:, 3].max() <= height
    return Facts(
        where="train.zarr",
        categories=tuple(Category(id=i, name=name) for i, name in categories),
        image_names=tuple(f"{k}.jpg" for k in range(images)),
        image_sizes=np.tile(np.array([size], dtype=np.int64), (images, 1)),
        boxes_xyxy=np.tile(one, (images, 1)).astype(np.float32),
        labels=(np.arange(images * boxes) % len(categories)).astype(np.int64),
        image_index=np.repeat(np.arange(images, dtype=np.int64), boxes),
    )


@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("images", [1, 12, 300, 20_000])
def test_every_choice_is_a_run_that_does_all_it_was_told(images: int, machine: Machine) -> None:
    choice = pick(facts(images), BACKBONE, machine, has_val=True)
    config = apply_overrides(choice.config, [])  # validates what was picked as if typed
    assert config.name == "auto"
    assert schedule_notes(config) == []
    assert list(config.schedule.steps) == sorted(config.schedule.steps)
    assert config.schedule.steps[-1] < config.schedule.iterations
    assert all(reason.value and reason.why for reason in choice.reasons)
    again = pick(facts(images), BACKBONE, machine, has_val=True)
    assert again.config == choice.config


def test_more_images_are_seen_longer_and_each_of_them_less_often() -> None:
    runs = [pick(facts(n), BACKBONE, GPU, has_val=False).config for n in (30, 300, 3000, 118_287)]
    steps = [run.schedule.iterations for run in runs]
    assert steps == sorted(steps)
    # COCO's 1x schedule: 90,000 steps of 16 images
    assert steps[-1] == pytest.approx(90_000, rel=0.02)
    passes = [16 * s / n for s, n in zip(steps, (30, 300, 3000, 118_287), strict=True)]
    assert passes == sorted(passes, reverse=True)


def test_minutes_shorten_the_run_and_say_so() -> None:
    machine = Machine(device="cpu", seconds_per_step=0.5, minutes=5)
    choice = pick(facts(300), BACKBONE, machine, has_val=False)
    assert choice.config.schedule.iterations == 600  # 5 * 60 / 0.5
    assert (choice.config.schedule.minutes, choice.config.schedule.at_most) == (5, 3460)
    free = pick(facts(300), BACKBONE, CPU, has_val=False).config.schedule
    assert (free.iterations, free.minutes) == (3460, None)
    assert any("5 minutes" in reason.why for reason in choice.reasons)
    assert schedule_notes(choice.config) == []


def test_a_slow_machine_gets_a_smaller_input_rather_than_hardly_a_step() -> None:
    """Boxes of 40 px in 600 want 480 px; 10 minutes at 4.8 s a step are 125 steps, of 250."""
    slow = Machine(device="cpu", seconds_per_step=4.8, measured_at=480, minutes=10)
    choice = pick(facts(box=40), BACKBONE, slow, has_val=False)
    assert choice.config.inference.short_side == 352  # 480 / sqrt(2) = 339, in steps of 32
    # 4.8 (352 / 480)^2 = 2.58 s a step
    assert choice.config.schedule.iterations == 230
    assert any("fewer than 250 steps" in reason.why for reason in choice.reasons)
    crawling = replace(slow, seconds_per_step=48.0)
    assert pick(facts(box=40), BACKBONE, crawling, has_val=False).config.inference.short_side == 256
    quick = replace(slow, seconds_per_step=1.0)
    assert pick(facts(box=40), BACKBONE, quick, has_val=False).config.inference.short_side == 480


def test_pairs_reach_no_farther_than_a_sixth_of_the_median_box() -> None:
    """Eight pixels: of a box of 120 px in 600, which is 51 px long at 256; 20 px are 17 at 512."""
    dilations = {
        box: pick(facts(box=box), BACKBONE, CPU, has_val=False).config.losses.pairs.dilation
        for box in (120, 20)
    }
    assert dilations == {120: 2, 20: 1}


def test_small_boxes_enlarge_the_input_and_lower_the_levels() -> None:
    large = pick(facts(box=200, boxes=3), BACKBONE, CPU, has_val=False).config
    small = pick(facts(box=40), BACKBONE, CPU, has_val=False).config
    assert large.inference.short_side == 256
    # 32 px of the input for boxes of 40 px in 600: 480
    assert small.inference.short_side == 480
    assert pick(facts(box=20), BACKBONE, CPU, has_val=False).config.inference.short_side == 512
    # on an accelerator 16 px: 480 for boxes of 20 px, which is less than usual
    assert pick(facts(box=20), BACKBONE, GPU, has_val=False).config.inference.short_side == 800
    assert small.model.fcos.level_ranges[0] < large.model.fcos.level_ranges[0]
    tiny = pick(facts(box=20, boxes=4, size=(100, 140)), BACKBONE, CPU, has_val=False).config
    assert tiny.inference.short_side <= 200


def test_dense_images_raise_the_number_of_detections() -> None:
    assert pick(facts(), BACKBONE, CPU, has_val=False).config.inference.max_detections == 100
    dense = pick(facts(4, boxes=900, box=14, size=(1000, 1000)), BACKBONE, CPU, has_val=False)
    assert dense.config.inference.max_detections == 1350
    assert dense.config.inference.pre_nms == 5400
    assert any("900 boxes" in reason.why for reason in dense.reasons)


def test_boxes_too_small_for_any_input_are_learnt_in_tiles() -> None:
    dense = facts(4, boxes=900, box=14, size=(1000, 1000))
    tiling = pick_tiling(dense, CPU)
    # 256 px of input at 16 for a box of 14 are 224 px of the image
    assert tiling == Tiling(size=224, overlap=16)
    assert pick_tiling(facts(box=120), CPU) is None
    assert pick_tiling(facts(box=120), GPU) is None
    config = pick(dense, BACKBONE, CPU, has_val=False, tiling=tiling).config
    assert config.data.augmentation.tiling == config.inference.tiling == tiling
    assert config.inference.short_side == 448  # twice the pixels that there are
    assert config.inference.max_detections < 400  # of a tile
    seen = in_tiles(dense, tiling)
    # five tiles a side, 194 px apart; the boxes end at 20 rows of 22 px, in the third row of tiles
    assert seen.images_with_boxes == 4 * 3 * 5
    assert not unseen_boxes(seen, config).any()
    whole = pick(dense, BACKBONE, CPU, has_val=False).config
    assert whole.inference.short_side == 512  # the most that a CPU is given


def test_a_depth_map_too_coarse_for_the_boxes_brings_no_pairs() -> None:
    """Boxes of 14 px in 1000, a map of 128: 1.8 cells; boxes of 120 px in 600 x 800: 19 or more."""
    coarse = replace(facts(4, boxes=900, box=14, size=(1000, 1000)), depth_grid=(128, 128))
    assert coarse.depth_cells() == pytest.approx(14 * 128 / 1000)
    choice = pick(coarse, BACKBONE, CPU, has_val=False)
    assert choice.config.losses.consistency == 0
    assert any("1.8 cells of the depth map" in reason.why for reason in choice.reasons)
    fine = replace(facts(10), depth_grid=(128, 128))
    assert fine.depth_cells() == pytest.approx(120 * 128 / 600)
    assert pick(fine, BACKBONE, CPU, has_val=False).config.losses.consistency == 1
    assert pick(facts(10), BACKBONE, CPU, has_val=False).config.losses.consistency == 1


def test_nothing_is_learnt_of_depth_by_a_model_that_does_not_know_such_images() -> None:
    warned = replace(facts(10), depth_grid=(128, 128), depth_warning="drawn scenes only")
    choice = pick(warned, BACKBONE, CPU, has_val=False)
    assert (choice.config.losses.consistency, choice.config.losses.depth) == (0, 0)
    assert choice.config.model.mask_head.depth == "off"
    assert any(r.what == "depth" and "drawn scenes only" in r.why for r in choice.reasons)
    known = pick(facts(10), BACKBONE, CPU, has_val=False).config
    assert (known.losses.depth, known.model.mask_head.depth) == (1, "product")


def test_features_of_a_frozen_backbone_are_kept_within_the_memory() -> None:
    frozen = replace(BACKBONE, backbone=Backbone(name="resnet18", weights="timm", frozen_stages=5))

    def megabytes(choice: BackboneChoice, machine: Machine) -> int:
        return pick(facts(), choice, machine, has_val=False).config.model.backbone.cache_mb

    assert megabytes(frozen, CPU) == 2048
    assert megabytes(frozen, replace(CPU, memory_bytes=4 << 30)) == 512
    assert megabytes(BACKBONE, CPU) == 0, "two frozen stages only"
    assert megabytes(frozen, GPU) == 0


def test_masks_are_learnt_from_unless_they_are_boxes_drawn_as_masks() -> None:
    def supervision(masks: int, filled: int) -> str:
        known = replace(facts(10), masks=masks, filled_boxes=filled)
        return pick(known, BACKBONE, CPU, has_val=False).config.data.supervision

    assert supervision(0, 0) == "boxes"
    assert supervision(7, 0) == "mixed"
    assert supervision(40, 2) == "mixed"
    assert supervision(7, 43) == "boxes"
    known = replace(facts(10), filled_boxes=50)
    config = pick(known, BACKBONE, CPU, has_val=False).config
    kinds = [f.kind for f in find_problems(known, None, config, twice=((), ()))]
    assert "filled_boxes" in kinds


def test_without_a_box_there_is_nothing_to_pick() -> None:
    with pytest.raises(ValueError, match="no image with a usable box"):
        pick(facts(3, boxes=0), BACKBONE, CPU, has_val=False)


def test_the_early_stop_needs_a_val_split() -> None:
    with_val = pick(facts(), BACKBONE, CPU, has_val=True).config.checkpoints
    without = pick(facts(), BACKBONE, CPU, has_val=False).config.checkpoints
    assert with_val.patience
    assert with_val.evaluate_every
    assert (without.patience, without.evaluate_every) == (0, 0)


def test_boxes_that_no_location_learns_are_counted() -> None:
    """At stride 8 locations lie at 8k + 4: a box between two of them is seen by none."""
    base = pick(facts(1), BACKBONE, CPU, has_val=False).config
    config = apply_overrides(
        base,
        ['data.augmentation={"short_sides": [256], "max_size": 256, "flip": 0}',
         'model.fcos={"level_ranges": [16, 32, 64, 128]}'],
    )  # fmt: skip
    boxes = np.array(
        [[5, 5, 11, 11], [5, 5, 13, 13], [100, 100, 160, 160]], dtype=np.float32
    )  # between (4, 4) and (12, 12); around (12, 12); large
    known = replace(
        facts(1, boxes=3, size=(256, 256), box=20), boxes_xyxy=boxes, labels=np.zeros(3, np.int64)
    )
    assert unseen_boxes(known, config).tolist() == [True, False, False]
    said = find_problems(known, None, config, twice=((), ()))
    assert any(f.kind == "unseen_boxes" and "1 of the 3 boxes" in f.text for f in said)


def test_boxes_that_are_a_few_cells_large_are_told_before_they_disappoint() -> None:
    """Boxes of 20 px in 600 are 17 px at 512, two cells of the features; those of 120 px are 51."""

    def said(box: float) -> list[str]:
        known = facts(box=box)
        config = pick(known, BACKBONE, CPU, has_val=False).config
        found = find_problems(known, None, config, twice=((), ()))
        return [finding.text for finding in found if finding.kind == "coarse_boxes"]

    assert said(120) == []
    [text] = said(20)
    assert text.startswith("1500 of 1500 boxes are shorter than 24 px in the input (512 px)")


def test_findings_name_what_is_wrong() -> None:
    train = facts(4, categories=((0, "fruits"), (1, "cup"), (2, "bowl")))
    train = replace(train, labels=np.full(train.boxes, 1, dtype=np.int64))
    val = facts(2, categories=((1, "cup"), (2, "bowl"), (7, "plate")))
    config = pick(train, BACKBONE, CPU, has_val=True).config
    said = find_problems(train, val, config, twice=((("0.jpg", "3.jpg"),), (("1.jpg", "0.jpg"),)))
    kinds = {finding.kind for finding in said}
    assert kinds >= {
        "root_category", "class_without_boxes", "categories_differ", "class_only_in_val",
        "duplicate_images", "shared_images",
    }  # fmt: skip
    text = " ".join(finding.text for finding in said)
    assert "'fruits'" in text
    assert "0.jpg = 3.jpg" in text
    assert "'bowl'" in text
    empty = find_problems(train, replace(facts(2, boxes=0)), config, twice=None)
    assert {f.kind for f in empty} >= {"empty_val", "not_looked_for_copies"}
    assert "no_val" in {f.kind for f in find_problems(train, None, config, twice=((), ()))}


def test_a_repeated_box_is_found() -> None:
    train = facts(1, boxes=2)
    boxes = train.boxes_xyxy.copy()
    boxes[1] = boxes[0]
    train = replace(train, boxes_xyxy=boxes, labels=np.zeros(2, np.int64))
    config = pick(train, BACKBONE, CPU, has_val=False).config
    said = find_problems(train, None, config, twice=((), ()))
    assert [f.text for f in said if f.kind == "duplicate_boxes"] == [
        "1 boxes repeat another of the same image and class, side for side"
    ]


def test_facts_and_copies_of_a_store(make_store) -> None:
    train = make_store("a", sizes=[(64, 96)] * 3, masks=True)
    val = make_store("b", sizes=[(64, 96)] * 4)
    known = read_facts(train)
    assert (known.images, known.boxes, known.masks, known.filled_boxes) == (3, 6, 6, 0)
    assert known.boxes_per_image.tolist() == [2, 2, 2]
    assert known.boxes_per_class.tolist() == [3, 3]
    expected = np.concatenate([train.boxes(row).xyxy for row in range(3)])
    np.testing.assert_allclose(known.boxes_xyxy, np.clip(expected, 0, [96, 64, 96, 64]), rtol=1e-6)
    found = duplicate_images(train, val)
    assert found is not None
    # the fixture's pixels depend on the number of the image alone
    assert found == ((), tuple((f"{k:04d}.png", f"{k:04d}.png") for k in range(3)))


def test_a_file_is_known_by_its_name(tmp_path: Path) -> None:
    assert model_of_file(Path("tf_efficientnet_lite2_imagenet.safetensors")) == (
        "tf_efficientnet_lite2"
    )
    assert model_of_file(Path("resnet50.a1_in1k.safetensors")) == "resnet50"
    with pytest.raises(WeightsError, match="no model of timm's"):
        model_of_file(Path("weights.safetensors"))
    with pytest.raises(WeightsError, match="no weights file"):
        choose_backbone(on_cpu=True, weights=tmp_path / "resnet18.safetensors")
    (tmp_path / "resnet18_x.safetensors").touch()
    chosen = choose_backbone(on_cpu=True, weights=tmp_path / "resnet18_x.safetensors")
    assert chosen.backbone.name == "resnet18"
    assert chosen.missing is None
    assert chosen.backbone.pixel_mean == pytest.approx((123.675, 116.28, 103.53))


def test_missing_weights_come_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxdepth.trainer.runs.auto.backbones.weights_at_hand", lambda name: False)
    chosen = choose_backbone(on_cpu=True)
    assert chosen.missing is not None
    assert "model.backbone.weights=" in chosen.missing
    assert "timm.create_model" in chosen.missing


def test_a_probe_makes_real_steps_and_keeps_nothing(make_store) -> None:
    store = make_store(sizes=[(64, 96)] * 3)
    config = apply_overrides(PRESETS["scenes_tiny"](), [*_tiny(), "data.batch_size=2"])
    config = build.with_classes(config, 2)
    dataset = build.training_set(config, Path(store.path))
    found = probe(config, dataset, torch.device("cpu"))
    assert found.accumulate == 1
    assert found.seconds_per_step > 0
    assert found.memory_bytes > found.peak_bytes > 0


def _tiny() -> tuple[str, ...]:
    from tests.trainer.conftest import TINY

    return TINY


def _touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_layout_of_what_the_user_has_is_recognised(tmp_path: Path) -> None:
    def command(data: Path, split: str = "train", images: Path | None = None) -> list[str]:
        source = find_source(data, split=split, images=images, stores=tmp_path / "stores")  # type: ignore[arg-type]
        assert source.command is not None
        return list(source.command[: source.command.index("--store")])

    coco = _touch(tmp_path / "boxes.json", "{}")
    assert command(coco, images=tmp_path / "photos") == [
        "run", "--dataset", "custom", "--images", str(tmp_path / "photos"),
        "--annotations", str(coco), "--split", "train",
    ]  # fmt: skip
    _touch(tmp_path / "yolo/data.yaml")
    yolo = tmp_path / "yolo"
    assert command(yolo) == [
        "run",
        "--dataset",
        "yolo",
        "--data-root",
        str(yolo),
        "--split",
        "train",
    ]
    assert command(yolo / "data.yaml", "val")[3:] == [
        "--annotations", str(yolo / "data.yaml"), "--split", "val",
    ]  # fmt: skip
    _touch(tmp_path / "voc/Annotations/a.xml")
    assert command(tmp_path / "voc")[2] == "voc"
    _touch(tmp_path / "robo/valid/_annotations.coco.json")
    assert command(tmp_path / "robo", "val")[-2:] == ["--split", "valid"]
    _touch(tmp_path / "official/annotations/instances_val2017.json")
    assert command(tmp_path / "official", "val")[1:3] == ["--dataset", "coco"]
    store = tmp_path / "some.zarr"
    assert find_source(store, split="train", images=None, stores=tmp_path).command is None


def test_two_datasets_of_one_name_have_two_stores(tmp_path: Path) -> None:
    first, second = _touch(tmp_path / "a/boxes.json"), _touch(tmp_path / "b/boxes.json")
    names = {
        find_source(data, split="train", images=None, stores=tmp_path).store.name
        for data in (first, second)
    }
    assert len(names) == 2
    assert all(name.startswith("boxes-train-") and name.endswith(".zarr") for name in names)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: root / "absent", "not there"),
        (lambda root: _touch(root / "notes.txt"), "expected a COCO-format .json"),
        (lambda root: _touch(root / "d/boxes.json").parent, "give the file itself, and --images"),
    ],
)
def test_what_is_no_dataset_is_told_with_what_would_be(tmp_path: Path, make, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        find_source(make(tmp_path), split="train", images=None, stores=tmp_path)


def test_images_belong_to_a_file(tmp_path: Path) -> None:
    _touch(tmp_path / "yolo/data.yaml")
    for data in (tmp_path / "yolo", tmp_path / "x.zarr"):
        with pytest.raises(ConfigError, match="--images belongs to a JSON file"):
            find_source(data, split="train", images=tmp_path, stores=tmp_path)


def test_a_depthgen_that_fails_lends_its_exit_code(tmp_path: Path, capfd) -> None:
    data = _touch(tmp_path / "boxes.json", "[]")
    source = find_source(data, split="train", images=tmp_path, stores=tmp_path / "stores")
    with pytest.raises(DepthgenFailedError, match="the same command goes on") as caught:
        make_store(source)
    assert caught.value.exit_code == 3
    assert "boxes.json" in capfd.readouterr().err


CPU_RUN = (
    "--device", "cpu", "--set", "data.workers=0", "--set", "model.backbone.weights=null",
    "--set", "model.backbone.name=resnet10t", "--set", "model.backbone.frozen_stages=0",
    "--set", "model.backbone.frozen_norm=false", "--set", "model.fpn_channels=16",
    "--set", 'model.mask_branch={"channels": 8, "convs": 1, "out_channels": 4}',
)  # fmt: skip
"""A network of a second, which needs no weights."""


def test_the_command_says_what_and_why_and_stops_there(trainer, make_store) -> None:
    store = make_store(sizes=[(64, 96)] * 3)
    code, out, said = trainer(
        "fit", "auto", "--train", store.path, *CPU_RUN, "--out", "run", "--dry-run", "--json"
    )
    assert code == 0, said
    result = json.loads(out.splitlines()[-1])
    assert result["config"]["name"] == "auto"
    assert result["config"]["data"]["train"] == str(store.path)
    assert {choice["what"] for choice in result["choices"]} >= {"schedule", "levels", "input size"}
    assert "no_val" in {finding["kind"] for finding in result["findings"]}
    assert result["seconds"] > 0
    assert not Path("run").exists()
    assert "to the end" in said
    assert "no val split" in said


@pytest.mark.parametrize(
    ("able", "told", "precision"),
    [(True, (), "bf16"), (False, (), "fp32"), (True, ("--precision", "fp32"), "fp32")],
)
def test_a_machine_that_multiplies_bf16_trains_in_it(
    trainer, make_store, monkeypatch: pytest.MonkeyPatch, able: bool, told, precision: str
) -> None:
    monkeypatch.setattr("boxdepth.trainer.runs.auto.recipe.multiplies_bf16", lambda device: able)
    store = make_store(sizes=[(64, 96)] * 3)
    code, out, said = trainer(
        "fit", "auto", "--train", store.path, *CPU_RUN, *told, "--dry-run", "--json"
    )
    assert code == 0, said
    result = json.loads(out.splitlines()[-1])
    assert result["config"]["precision"] == precision
    assert ("precision" in {choice["what"] for choice in result["choices"]}) == (
        precision == "bf16"
    )


def test_the_command_trains_what_it_chose_and_goes_on_with_it(trainer, make_store) -> None:
    store = make_store(sizes=[(64, 96)] * 3)
    few = ("--minutes", "0.1", "--batch", "2", "--max-iterations", "2")
    code, _, said = trainer("fit", "auto", "--train", store.path, *CPU_RUN, *few, "--out", "run")
    assert code == 0, said
    saved = json.loads(Path("run/config.json").read_text())
    assert (saved["name"], saved["data"]["batch_size"]) == ("auto", 2)
    code, out, said = trainer(
        "fit", "auto", "--resume", "--out", "run", "--max-iterations", "3", "--json"
    )
    assert code == 0, said
    assert json.loads(out.splitlines()[-1])["iterations"] == min(3, saved["schedule"]["iterations"])


def test_the_command_makes_the_store_that_is_missing(trainer, make_store, tmp_path: Path) -> None:
    """From a COCO file: depthgen runs as a process, its command is shown, its store is kept."""
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(1).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 96}],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 30]}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    code, out, said = trainer(
        "fit", "auto", "--train", tmp_path / "boxes.json", "--images", photos, *CPU_RUN,
        "--dry-run", "--json", "--batch", "1",
    )  # fmt: skip
    assert code == 0, said
    assert "$ depthgen run --dataset custom" in said
    made = Path(json.loads(out.splitlines()[-1])["train"])
    assert made.is_dir()
    assert made.parent == Path("stores")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("auto",), "give --train DATA"),
        (("auto", "--train", "absent"), "absent: not there"),
        (("auto", "--train", "absent", "--batch", "many"), "expected auto, or a number"),
        (("scenes_tiny", "--minutes", "3"), "--minutes: trainer fit auto takes them"),
        (("scenes_tiny", "--images", "x", "--depth-model", "y"), "--images, --depth-model"),
    ],
)
def test_what_does_not_belong_together_is_refused(trainer, arguments, said: str) -> None:
    code, _, words = trainer("fit", *arguments)
    assert code == 2
    assert said in words


def test_a_preset_divides_its_batch_too(fit) -> None:
    code, out, said = fit("--batch", "auto", "--dry-run", "--json")
    assert code == 0, said
    assert json.loads(out.splitlines()[-1])["config"]["data"]["accumulate"] == 1
    assert "a real step of 2 images" in said
