"""Quality without mask annotations: better masks rate higher, and nothing unsafe is opened."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from boxdepth.evaluate.proxies import measure_proxies
from boxdepth.evaluate.proxies.edges import depth_edges, edge_agreement, image_edges
from boxdepth.evaluate.results import (
    DataError,
    GroundTruth,
    Predictions,
    read_annotations,
    read_predictions,
    rle,
)
from boxdepth.evaluate.results.pictures import DepthMaps

HEIGHT, WIDTH = 90, 120


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, np.ndarray]:
    """An image of a disc on a textured ground, its depth, and its box-only annotation."""
    folder = tmp_path_factory.mktemp("scene")
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    disc = (rows - 45) ** 2 + (columns - 60) ** 2 < 25**2
    rng = np.random.default_rng(0)
    image = np.where(disc[..., None], (200, 60, 40), (40, 90, 160)) + rng.normal(
        0, 6, (HEIGHT, WIDTH, 1)
    )
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / "scene.png")
    depth = np.where(disc, 4.0, 9.0 + rows / HEIGHT)
    (folder / "depth").mkdir()
    Image.fromarray((depth * 1000).astype(np.uint16)).save(folder / "depth" / "scene.png")
    truth = {
        "images": [{"id": 7, "height": HEIGHT, "width": WIDTH, "file_name": "scene.png"}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [36, 21, 49, 49]}],
    }
    return folder, truth, disc


def tables(truth: dict, mask: np.ndarray) -> tuple[GroundTruth, Predictions]:
    counts = rle.encode(rle.from_mask(mask)).decode()
    result = {
        "image_id": 7, "category_id": 1, "score": 0.9, "bbox": [36, 21, 49, 49],
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts},
    }  # fmt: skip
    table = read_annotations(truth)
    return table, read_predictions([result], table)


def test_the_true_mask_is_tight_inside_and_on_the_edges(scene: tuple) -> None:
    folder, truth, disc = scene
    report = measure_proxies(*tables(truth, disc), images=folder, depth=folder / "depth")
    best = report.overall
    assert best.tightness == pytest.approx(1.0)
    assert best.outside == 0.0
    assert best.fill == pytest.approx(disc.sum() / 49**2)
    assert best.image_edges > 0.85
    assert best.depth_edges > 0.85
    assert best.agreement is None
    assert report.objects == 1


@pytest.mark.parametrize("spoiled", ["shrunk", "box", "shifted", "ragged"])
def test_worse_masks_rate_lower(spoiled: str, scene: tuple) -> None:
    folder, truth, disc = scene
    rng = np.random.default_rng(1)
    box = np.zeros_like(disc)
    box[21:70, 36:85] = True
    noise = ndimage.gaussian_filter(rng.normal(size=disc.shape), 4)
    distance = ndimage.distance_transform_edt(disc) - ndimage.distance_transform_edt(~disc)
    masks = {
        "shrunk": ndimage.binary_erosion(disc, iterations=8),
        "box": box,
        "shifted": np.roll(disc, (9, 9), axis=(0, 1)),
        "ragged": distance + 100 * noise > 0,
    }
    pair = [
        measure_proxies(*tables(truth, m), images=folder, depth=folder / "depth").overall
        for m in (disc, masks[spoiled])
    ]
    assert pair[1].image_edges < pair[0].image_edges - 0.1
    assert pair[1].depth_edges < pair[0].depth_edges - 0.1
    assert pair[1].quality < pair[0].quality
    if spoiled == "box":
        assert pair[1].fill == pytest.approx(1.0)


def test_agreement_is_the_iou_of_two_models_masks(scene: tuple) -> None:
    _, truth, disc = scene
    smaller = disc & (np.arange(WIDTH) < 60)
    table, one = tables(truth, disc)
    _, two = tables(truth, smaller)
    agreement = measure_proxies(table, one, other=two).overall.agreement
    assert agreement == pytest.approx(smaller.sum() / disc.sum())


def test_boxes_without_a_prediction_lower_coverage_only(scene: tuple) -> None:
    _, truth, disc = scene
    more = {**truth, "annotations": [
        *truth["annotations"],
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 10, 10]},
    ]}  # fmt: skip
    report = measure_proxies(*tables(more, disc))
    assert report.overall.covered == 0.5
    assert report.overall.tightness == pytest.approx(1.0)
    assert report.warnings == ("1 boxes have no matching prediction.",)


def test_an_outline_by_chance_ranks_about_half() -> None:
    rng = np.random.default_rng(0)
    edges = rng.random((200, 200)).astype(np.float32)
    mask = np.zeros((200, 200), dtype=bool)
    mask[60:140, 60:140] = True
    assert edge_agreement(mask, edges) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("mask", [np.zeros((9, 9), bool), np.ones((9, 9), bool)])
def test_no_outline_no_rank(mask: np.ndarray) -> None:
    edges = np.random.default_rng(0).random((9, 9)).astype(np.float32)
    assert edge_agreement(mask, edges) is None


def test_no_edges_no_rank() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[5:15, 5:15] = True
    flat = image_edges(np.full((20, 20, 3), 80, dtype=np.uint8))
    assert edge_agreement(mask, flat) is None


def test_depth_of_another_size_or_scale_gives_the_same_edges(scene: tuple) -> None:
    folder, _, disc = scene
    depth = DepthMaps(folder / "depth").read("scene.png", 7)
    half = depth[::2, ::2]
    ranks = [
        edge_agreement(disc, depth_edges(d, (HEIGHT, WIDTH))) for d in (depth, 3 * depth, half)
    ]
    assert ranks[0] == pytest.approx(ranks[1], abs=1e-3)
    assert ranks[0] == pytest.approx(ranks[2], abs=0.05)


@pytest.mark.parametrize("layout", ["stacked", "by stem", "by id"])
def test_hdf5_depth_is_found_by_id_and_by_name(layout: str, tmp_path: Path) -> None:
    depth = np.arange(12, dtype=np.float32).reshape(3, 4)
    path = tmp_path / "depth.h5"
    with h5py.File(path, "w") as file:
        if layout == "stacked":
            file["depth"], file["image_id"] = np.stack([depth, depth + 1]), np.array([3, 7])
        else:
            file["group/scene" if layout == "by stem" else "7"] = depth + 1
    np.testing.assert_array_equal(DepthMaps(path).read("folder/scene.jpg", 7), depth + 1)
    assert DepthMaps(path).read("other.jpg", 99) is None


def test_results_without_masks_are_refused(scene: tuple) -> None:
    _, truth, _ = scene
    table = read_annotations(truth)
    result = {"image_id": 7, "category_id": 1, "score": 0.9, "bbox": [36, 21, 49, 49]}
    with pytest.raises(DataError, match="proxies are about masks"):
        measure_proxies(table, read_predictions([result], table))
