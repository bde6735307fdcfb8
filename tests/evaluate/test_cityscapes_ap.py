"""Official Cityscapes AP: equal to cityscapesScripts, from folders and from COCO results."""

import gc
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxdepth.evaluate.cityscapes_ap import cityscapes_to_coco, evaluate_cityscapes
from boxdepth.evaluate.results import DataError, rle

SETS = 100
LABELS = (24, 25, 26, 27, 28, 31, 32, 33)
OTHER = (0, 1, 3, 4, 7, 11, 23, 29, 30, 29001, 30002)


def random_truth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Blocks of stuff, void, caravans, groups and objects of all sizes, later ones on top."""
    pixels = np.full((height, width), int(rng.choice(OTHER)), dtype=np.uint16)
    for number in range(int(rng.integers(3, 12))):
        h, w = rng.integers(3, 28, 2)
        y, x = rng.integers(0, height - 3), rng.integers(0, width - 3)
        label = int(rng.choice(LABELS[:4]))
        kind = rng.random()
        value = label if kind < 0.15 else label * 1000 + number
        pixels[y : y + h, x : x + w] = int(rng.choice(OTHER)) if kind > 0.85 else value
    return pixels


def random_masks(
    rng: np.random.Generator, truth: np.ndarray
) -> list[tuple[int, float, np.ndarray]]:
    """Shifted objects (twice, sometimes), wrong classes, empty masks and noise."""
    found = []
    for value in np.unique(truth[truth >= 24]):
        label = int(value if value < 1000 else value // 1000)
        for _ in range(int(rng.integers(0, 3))):
            mask = np.roll(truth == value, tuple(rng.integers(-2, 3, 2)), axis=(0, 1))
            mask &= rng.random(mask.shape) < rng.choice([1.0, 0.9])
            label = label if rng.random() < 0.9 else int(rng.choice(LABELS[:4]))
            found.append((label, round(float(rng.random()), 1), mask))
    for _ in range(int(rng.integers(0, 4))):
        mask = np.zeros(truth.shape, dtype=bool)
        y, x = rng.integers(0, truth.shape[0]), rng.integers(0, truth.shape[1])
        mask[y : y + 20, x : x + 20] = rng.random() < 0.9
        found.append((int(rng.choice([*LABELS[:5], 7, 29, -1])), float(rng.random()), mask))
    return found


def write_set(root: Path, rng: np.random.Generator, *, frames: int = 3) -> tuple[Path, Path]:
    """A gtFine folder and an official results folder with random content."""
    truth, results = root / "gtFine" / "val" / "town", root / "results"
    truth.mkdir(parents=True)
    results.mkdir()
    for number in range(frames):
        name = f"town_{number:06d}_000019"
        pixels = random_truth(rng, 48, 64)
        Image.fromarray(pixels).save(truth / f"{name}_gtFine_instanceIds.png")
        lines = []
        for place, (label, score, mask) in enumerate(random_masks(rng, pixels)):
            Image.fromarray(mask.astype(np.uint8) * 255).save(results / f"{name}_{place}.png")
            lines.append(f"{name}_{place}.png {label} {score}")
        (results / f"{name}_pred.txt").write_text("".join(f"{line}\n" for line in lines))
    return truth.parent, results


def official_scores(gt_fine: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """cityscapesScripts' own answer."""
    if not hasattr(np, "in1d"):  # the script was written for an older NumPy
        monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as official

    settings = official.args
    settings.quiet = True
    settings.predictionPath = str(results)
    settings.predictionWalk = None
    official.setInstanceLabels(settings)
    truths = sorted(map(str, gt_fine.rglob("*_instanceIds.png")))
    predictions = [official.getPrediction(path, settings) for path in truths]
    instances = official.instances2dict(truths, verbose=False)
    matches = official.matchGtWithPreds(predictions, truths, instances, settings)
    scores = official.evaluateMatches(matches, settings)
    return official.computeAverages(scores, settings)


def same(ours: float | None, theirs: float) -> bool:
    return np.isnan(theirs) if ours is None else abs(ours - theirs) <= 1e-9


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the script leaves its images open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("block", range(10))
def test_a_hundred_random_sets_score_as_in_cityscapesscripts(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared, seed = 0, 1000 * block
    while compared < SETS // 10:
        seed += 1
        gt_fine, results = write_set(tmp_path / str(seed), np.random.default_rng(seed))
        ours = evaluate_cityscapes(results, gt_fine)
        try:
            theirs = official_scores(gt_fine, results, monkeypatch)
        except IndexError:  # the script stops where every detection of a class is ignored
            continue
        compared += 1
        assert same(ours.ap, theirs["allAp"]), seed
        assert same(ours.ap50, theirs["allAp50%"]), seed
        for name, (ap, ap50) in ours.per_class.items():
            assert same(ap, theirs["classes"][name]["ap"]), (seed, name)
            assert same(ap50, theirs["classes"][name]["ap50%"]), (seed, name)
    gc.collect()


def test_coco_results_score_as_the_official_folders_do(tmp_path: Path) -> None:
    gt_fine, results = write_set(tmp_path, np.random.default_rng(4))
    annotations, predictions = tmp_path / "annotations.json", tmp_path / "predictions.json"
    document = cityscapes_to_coco(gt_fine)
    annotations.write_text(json.dumps(document))
    image_ids = {
        image["file_name"].split("/")[-1][:18]: image["id"] for image in document["images"]
    }
    found = []
    for path in sorted(results.glob("*.txt")):
        for line in path.read_text().splitlines():
            name, label, score = line.split()
            mask = np.asarray(Image.open(results / name)) != 0
            if int(label) in LABELS:
                counts = rle.encode(rle.from_mask(mask)).decode()
                found.append({
                    "image_id": image_ids[path.name[:18]], "category_id": int(label),
                    "score": float(score),
                    "segmentation": {"size": list(mask.shape), "counts": counts},
                })  # fmt: skip
    predictions.write_text(json.dumps(found))
    official = evaluate_cityscapes(results, gt_fine)
    coco = evaluate_cityscapes(predictions, gt_fine, annotations=annotations)
    assert coco.ap == official.ap
    assert coco.per_class == official.per_class


def test_conversion_keeps_groups_as_crowd_and_objects_as_they_are_seen(tmp_path: Path) -> None:
    gt_fine, _ = write_set(tmp_path, np.random.default_rng(0))
    document = cityscapes_to_coco(gt_fine)
    for image in document["images"]:
        path = gt_fine / image["file_name"].replace("leftImg8bit", "gtFine_instanceIds")
        pixels = np.asarray(Image.open(path))
        values = [v for v in np.unique(pixels) if (v if v < 1000 else v // 1000) in LABELS]
        objects = [a for a in document["annotations"] if a["image_id"] == image["id"]]
        assert [a["iscrowd"] for a in objects] == [int(v < 1000) for v in values]
        assert [a["area"] for a in objects] == [int((pixels == v).sum()) for v in values]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../../mask.png 24 0.5", "outside the results folder"),
        ("/etc/hostname 24 0.5", "outside the results folder"),
        ("missing.png 24 0.5", "is not there"),
        ("{mask} 24 nan", "not finite"),
        ("{mask} 99 0.5", "no Cityscapes label id"),
        ("{mask} person 0.5", "could not convert"),
        ("{mask} 24", "expected: mask.png labelId score"),
    ],
)
def test_a_faulty_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    gt_fine, results = write_set(tmp_path, np.random.default_rng(1))
    mask = next(results.glob("*.png")).name
    listing = sorted(results.glob("*.txt"))[0]
    listing.write_text(line.format(mask=mask) + "\n")
    with pytest.raises(DataError, match=f"line 1: .*{message}"):
        evaluate_cityscapes(results, gt_fine)


def test_results_of_another_split_are_refused(tmp_path: Path) -> None:
    gt_fine, results = write_set(tmp_path, np.random.default_rng(1))
    (results / "elsewhere_000000_000019.txt").write_text("")
    with pytest.raises(DataError, match="Do they belong to another split"):
        evaluate_cityscapes(results, gt_fine)


def test_frames_without_results_count_as_missed_and_are_counted(tmp_path: Path) -> None:
    gt_fine, results = write_set(tmp_path, np.random.default_rng(1))
    whole = evaluate_cityscapes(results, gt_fine)
    sorted(results.glob("*.txt"))[0].unlink()
    part = evaluate_cityscapes(results, gt_fine)
    assert part.warnings == ("Images without results: 1 of 3.",)
    assert part.ap < whole.ap


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    gt_fine, results = write_set(tmp_path, np.random.default_rng(1))
    path = sorted(results.glob("*_0.png"))[0]
    Image.new("L", (10, 10), 255).save(path)
    listing = next(results.glob(path.name[:18] + "*.txt"))
    listing.write_text(f"{path.name} 24 0.5\n")
    with pytest.raises(DataError, match="10 x 10 pixels, the image has 64 x 48"):
        evaluate_cityscapes(results, gt_fine)
