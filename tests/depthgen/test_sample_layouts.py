"""What is written is COCO and Cityscapes to those who read it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from boxdepth.depthgen.datasets.sample import CLASSES, render_scene, scene_seed, write_sample
from boxdepth.depthgen.datasets.sample.cityscapes import THING_OF_SHAPE
from boxdepth.depthgen.datasets.sample.files import load_inverse_depth
from boxdepth.depthgen.datasets.sample.outline import outlines
from boxdepth.depthgen.store.errors import ConfigError

SIZE = (96, 128)


@pytest.fixture(scope="module")
def coco_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "coco"
    report = write_sample(root, train=6, val=3, size=SIZE, seed=4)
    assert (report.root, report.layout, report.train, report.val) == (root, "coco", 6, 3)
    return root


@pytest.fixture(scope="module")
def cityscapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "cityscapes"
    write_sample(root, layout="cityscapes", train=3, val=2, size=SIZE, seed=4)
    return root


def _bytes(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_same_arguments_write_the_same_bytes(coco_root: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "again", train=6, val=3, size=SIZE, seed=4)
    assert _bytes(tmp_path / "again") == _bytes(coco_root)


def test_a_larger_set_begins_with_the_smaller(coco_root: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "less", train=2, val=1, size=SIZE, seed=4)
    more = _bytes(coco_root)
    for name, content in _bytes(tmp_path / "less").items():
        if not name.startswith("annotations"):
            assert more[name] == content


def test_pycocotools_reads_tight_boxes_areas_and_disjoint_masks(coco_root: Path) -> None:
    for split, count in (("train2017", 6), ("val2017", 3)):
        coco = COCO(coco_root / "annotations" / f"instances_{split}.json")
        assert len(coco.imgs) == count
        assert [category["name"] for category in coco.cats.values()] == [
            shape.name for shape in CLASSES
        ]
        for image_id, record in coco.imgs.items():
            with Image.open(coco_root / split / record["file_name"]) as picture:
                assert (
                    (picture.height, picture.width) == (record["height"], record["width"]) == SIZE
                )
            covered = np.zeros(SIZE, int)
            for annotation in coco.imgToAnns[image_id]:
                mask = coco.annToMask(annotation)
                x, y, width, height = annotation["bbox"]
                rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                assert (x, y) == (columns[0], rows[0])
                assert (x + width, y + height) == (columns[-1] + 1, rows[-1] + 1)
                assert annotation["area"] == mask.sum()
                assert annotation["iscrowd"] == 0
                covered += mask
            assert covered.max() == 1


def test_ids_are_unique_over_both_splits(coco_root: Path) -> None:
    images, annotations = [], []
    for split in ("train2017", "val2017"):
        content = json.loads((coco_root / f"annotations/instances_{split}.json").read_text())
        images += [record["id"] for record in content["images"]]
        annotations += [record["id"] for record in content["annotations"]]
    assert len(set(images)) == len(images) == 9
    assert len(set(annotations)) == len(annotations)


def test_the_jpeg_is_close_to_the_scene_and_the_depth_is_exact(coco_root: Path) -> None:
    scene = render_scene(scene_seed(4, "val", 0), SIZE)
    record = json.loads((coco_root / "annotations/instances_val2017.json").read_text())["images"][0]
    with Image.open(coco_root / "val2017" / record["file_name"]) as picture:
        difference = np.asarray(picture).astype(int) - scene.image
    assert np.abs(difference).mean() < 2.5
    stem = Path(record["file_name"]).stem
    depth = load_inverse_depth(coco_root / "depth" / "val2017" / f"{stem}.png")
    np.testing.assert_allclose(depth, scene.inverse_depth, atol=0.51 / 65535)


def test_progress_counts_every_scene(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_sample(
        tmp_path / "out",
        train=2,
        val=1,
        size=(48, 64),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_full_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="not an empty folder"):
        write_sample(tmp_path, train=1, val=1)
    assert (tmp_path / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    "wrong", [{"train": -1}, {"train": 0, "val": 0}, {"seed": -1}, {"size": (20, 300)}]
)
def test_wrong_numbers_are_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, int]
) -> None:
    with pytest.raises(ConfigError):
        write_sample(tmp_path / "out", **({"train": 1, "val": 1} | wrong))
    assert not (tmp_path / "out").exists()


def test_cityscapes_ids_agree_with_the_masks(cityscapes_root: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        images = sorted((cityscapes_root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        assert len(images) == count
        for index, image in enumerate(images):
            scene = render_scene(scene_seed(4, split, index), SIZE)
            with Image.open(image) as picture:
                assert np.array_equal(np.asarray(picture), scene.image)
            city, stem = image.parent.name, image.name.removesuffix("_leftImg8bit.png")
            truth = cityscapes_root / "gtFine" / split / city / f"{stem}_gtFine"
            instances = np.asarray(Image.open(f"{truth}_instanceIds.png")).astype(int)
            labels = np.asarray(Image.open(f"{truth}_labelIds.png")).astype(int)
            things = np.unique(instances[instances >= 1000])
            assert len(things) == len(scene.masks)
            for mask, label in zip(scene.masks, scene.labels, strict=True):
                (instance,) = np.unique(instances[mask])
                assert (instances == instance).sum() == mask.sum()
                assert instance // 1000 == THING_OF_SHAPE[CLASSES[int(label)].name][1]
                assert set(np.unique(labels[mask])) == {instance // 1000}


def test_cityscapes_polygons_painted_in_order_give_the_labels_back(cityscapes_root: Path) -> None:
    (path,) = (cityscapes_root / "gtFine/val/scenes").glob("*000001_000019_gtFine_polygons.json")
    content = json.loads(path.read_text())
    labels = np.asarray(Image.open(str(path).replace("polygons.json", "labelIds.png")))
    ids = dict(THING_OF_SHAPE.values())
    ids |= {"wall": 12, "sky": 23, "road": 7}
    canvas = Image.new("L", (content["imgWidth"] * 4, content["imgHeight"] * 4), 0)
    for item in content["objects"]:
        points = [(4 * x - 0.5, 4 * y - 0.5) for x, y in item["polygon"]]
        ImageDraw.Draw(canvas).polygon(points, fill=ids[item["label"]])
    painted = np.asarray(canvas)[2::4, 2::4]
    assert (painted == labels).mean() > 0.99


def test_outlines_enclose_exactly_the_mask() -> None:
    rng = np.random.default_rng(0)
    blob = np.add.outer((np.arange(24) - 11.5) ** 2, (np.arange(30) - 14.5) ** 2)
    ring = (blob < 110) & (blob > 30)
    for mask in (ring, rng.random((12, 14)) < 0.5, np.ones((3, 4), bool), np.eye(5, dtype=bool)):
        filled = np.zeros(mask.shape, bool)
        for polygon in outlines(mask):
            filled ^= _filled(polygon, mask.shape)
        assert np.array_equal(filled, mask)
    assert outlines(np.zeros((4, 4), bool)) == []
    assert len(outlines(ring)) == 1


def _filled(polygon: list[tuple[int, int]], shape: tuple[int, int]) -> np.ndarray:
    """Even-odd test of every pixel centre, written from the definition."""
    inside = np.zeros(shape, bool)
    rows, columns = np.indices(shape) + 0.5
    for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if ay != by:
            crosses = (ay > rows) != (by > rows)
            inside ^= crosses & (columns < ax + (rows - ay) * (bx - ax) / (by - ay))
    return inside
