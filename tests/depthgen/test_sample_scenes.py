"""Scenes are what they claim: reproducible, exact, and as alike in colour as photographs are."""

import numpy as np
import pytest

from boxdepth.depthgen.datasets.sample import CLASSES, Scene, render_scene, scene_seed
from boxdepth.depthgen.datasets.sample.pairs import NO_PAIRS, box_share
from boxdepth.depthgen.store.errors import ConfigError
from study import scene_pairs

SIZE = (192, 256)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(scene_seed(0, "val", index), SIZE) for index in range(80)]


@pytest.mark.parametrize("camouflage", [0.0, 1.0])
def test_camouflage_changes_paint_and_nothing_else(camouflage: float) -> None:
    usual = [render_scene(scene_seed(0, "val", index), SIZE) for index in range(4)]
    asked = [
        render_scene(scene_seed(0, "val", index), SIZE, camouflage=camouflage) for index in range(4)
    ]
    for one, other in zip(usual, asked, strict=True):
        assert (other.camouflaged == bool(camouflage)).all()
        np.testing.assert_array_equal(one.inverse_depth, other.inverse_depth)
        np.testing.assert_array_equal(one.masks, other.masks)


def test_the_same_seed_draws_the_same_bytes() -> None:
    first, second = (render_scene(scene_seed(3, "train", 7), SIZE) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.inverse_depth.tobytes() == second.inverse_depth.tobytes()
    assert first.masks.tobytes() == second.masks.tobytes()


def test_other_seeds_parts_and_indices_draw_other_scenes() -> None:
    seeds = [(0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "train", 1)]
    seeds += [(0, "depth-train", 0), (0, "depth-test", 0)]
    images = {render_scene(scene_seed(*seed), SIZE).image.tobytes() for seed in seeds}
    assert len(images) == len(seeds)


def test_drawing_leaves_no_trace_in_the_noise() -> None:
    """The cached noise is shared by all scenes: an earlier scene must not change a later one."""
    alone = render_scene(scene_seed(1, "train", 5), SIZE).image
    for index in range(5):
        render_scene(scene_seed(1, "train", index), (240, 96))
    assert np.array_equal(alone, render_scene(scene_seed(1, "train", 5), SIZE).image)


def test_masks_are_disjoint_and_are_the_visible_parts_of_silhouettes(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.masks.sum(axis=0).max() <= 1
        assert scene.masks.any(axis=(1, 2)).all()
        assert not (scene.masks & ~scene.silhouettes).any()
        assert np.array_equal(scene.masks.any(axis=0), scene.silhouettes.any(axis=0))
        assert not (scene.ground & scene.masks.any(axis=0)).any()


def test_at_an_overlap_the_nearer_shape_is_seen_and_is_nearer_by_depth(
    scenes: list[Scene],
) -> None:
    overlaps = 0
    for scene in scenes:
        assert (np.diff(scene.distances) <= 0).all()
        for far in range(len(scene.labels)):
            hidden = scene.silhouettes[far] & ~scene.masks[far]
            if not hidden.any() or not scene.masks[far].any():
                continue
            covering = scene.masks[far + 1 :].any(axis=0)
            assert (covering >= hidden).all()
            # Shapes never stand inside one another, so what covers is in front of the axis plane
            # of what is covered.
            assert (scene.inverse_depth[hidden] > 1 / scene.distances[far]).all()
            overlaps += 1
    assert overlaps > 50


def test_depth_on_a_shape_stays_within_its_reach(scenes: list[Scene]) -> None:
    for scene in scenes:
        for mask, label, distance in zip(scene.masks, scene.labels, scene.distances, strict=True):
            shape = CLASSES[int(label)]
            most = shape.height * 1.35 * shape.reach
            seen = 1 / scene.inverse_depth[mask]
            assert seen.min() >= distance - most - 1e-3
            assert seen.max() <= distance + most + 1e-3


def test_shapes_stand_before_everything_behind_the_ground(scenes: list[Scene]) -> None:
    """Beside a shape, at the same row, nothing that is not a shape is nearer than its axis."""
    for scene in scenes:
        bare = ~scene.masks.any(axis=0) & ~scene.ground
        if bare.any():
            assert scene.inverse_depth[bare].max() < 1 / scene.distances.max()


def test_every_class_is_drawn_and_about_two_in_five_are_camouflaged(scenes: list[Scene]) -> None:
    labels = np.concatenate([scene.labels for scene in scenes])
    assert set(labels.tolist()) == set(range(len(CLASSES)))
    hidden = np.concatenate([scene.camouflaged for scene in scenes])
    assert 0.3 < hidden.mean() < 0.5


def test_camouflage_misleads_colour_and_not_depth(scenes: list[Scene]) -> None:
    """Across borders of camouflaged shapes colour pairs pass several times as often."""
    ordinary = camouflaged = depth = NO_PAIRS
    for scene in scenes:
        alike, hidden = scene_pairs.alike_in_colour(scene.image), scene.camouflaged[:, None, None]
        ordinary += scene_pairs.counted(alike, scene.masks & ~hidden)
        camouflaged += scene_pairs.counted(alike, scene.masks & hidden)
        depth += scene_pairs.counted(scene_pairs.alike_in_depth(scene.inverse_depth), scene.masks)
    assert camouflaged.across_share > 5 * ordinary.across_share
    assert depth.within_share > 0.6
    assert depth.across_share < 0.05


def test_colours_are_as_alike_inside_boxes_as_in_photographs(scenes: list[Scene]) -> None:
    """Photographs: mean 0.16, 10th to 90th percentile 0.01 to 0.41 (docs/sample-scenes.md)."""
    shares = []
    for scene in scenes:
        alike = scene_pairs.alike_in_colour(scene.image)
        for mask in scene.masks:
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            shares.append(box_share(alike, tuple(float(side) for side in box)))
    values = np.array(shares)[~np.isnan(shares)]
    assert 0.12 < values.mean() < 0.20
    assert np.percentile(values, 10) < 0.05
    assert np.percentile(values, 90) > 0.28


@pytest.mark.parametrize("size", [(48, 48), (64, 200), (200, 64), (375, 500), (600, 640)])
def test_any_size_from_48_is_drawn(size: tuple[int, int]) -> None:
    scene = render_scene(scene_seed(0, "val", 0), size)
    assert scene.image.shape == (*size, 3)
    assert scene.masks.shape == (len(scene.labels), *size)
    assert len(scene.labels) > 0
    assert np.isfinite(scene.inverse_depth).all()
    assert scene.inverse_depth.min() >= 0
    assert scene.inverse_depth.max() < 1


def test_a_size_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 48x48"):
        render_scene(scene_seed(0, "val", 0), (32, 256))
