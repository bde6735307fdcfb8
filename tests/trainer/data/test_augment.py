"""One geometry for image, boxes, depth and masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from boxdepth.trainer.data.augment import (
    Geometry,
    draw_geometry,
    mask_center,
    resize_shape,
    sample_mask,
    transform_boxes,
    transform_image,
    transform_inverse_depth,
    transform_pixels,
)
from boxdepth.trainer.data.depth_cells import cell_means, cell_steps
from boxdepth.trainer.data.rules import Augmentation, Resize

RESIZES: tuple[Resize, ...] = ("fast", "pillow")

SIDES = st.integers(1, 2000)


@given(height=SIDES, width=SIDES, short=st.integers(32, 1000), longest=st.integers(1000, 2000))
def test_the_short_side_is_met_unless_the_long_one_would_be_too_long(
    height: int, width: int, short: int, longest: int
) -> None:
    new = resize_shape(height, width, short_side=short, max_size=longest)
    assert max(new) <= longest
    assert min(new) >= 1
    assert min(new) == short or max(new) == longest
    scale = new[0] / height, new[1] / width
    assert abs(scale[0] * height - scale[1] / scale[1] * new[0]) < 1


def geometry(
    flip: bool, old: tuple[int, int] = (40, 60), new: tuple[int, int] = (80, 120)
) -> Geometry:
    return Geometry(old_size=old, new_size=new, flip=flip)


@settings(max_examples=30)
@given(
    y=st.integers(0, 30), x=st.integers(0, 50), h=st.integers(1, 10), w=st.integers(1, 10),
    flip=st.booleans(),
)  # fmt: skip
def test_a_box_still_frames_what_it_framed(y: int, x: int, h: int, w: int, flip: bool) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[y : y + h, x : x + w] = 255
    box = np.array([[x, y, x + w, y + h]], np.float32)
    moved = transform_image(image, geometry(flip))
    (x1, y1, x2, y2) = transform_boxes(box, geometry(flip))[0]
    rows, columns = np.nonzero(moved[..., 0] > 127)
    assert abs(rows.min() - y1) <= 1
    assert abs(rows.max() + 1 - y2) <= 1
    assert abs(columns.min() - x1) <= 1
    assert abs(columns.max() + 1 - x2) <= 1


def test_two_flips_are_none() -> None:
    boxes = np.array([[3, 5, 30, 35], [0, 0, 60, 40]], np.float32)
    same = Geometry(old_size=(40, 60), new_size=(40, 60), flip=True)
    np.testing.assert_allclose(transform_boxes(transform_boxes(boxes, same), same), boxes)


def test_boxes_are_clipped_to_the_new_image() -> None:
    boxes = np.array([[-5, -7, 100, 90]], np.float32)
    np.testing.assert_array_equal(transform_boxes(boxes, geometry(False)), [[0, 0, 120, 80]])


@pytest.mark.parametrize("flip", [False, True])
def test_depth_covers_the_image_whatever_its_grid(flip: bool) -> None:
    """A ramp over the columns of a square grid is the same ramp over the wider image."""
    ramp = np.broadcast_to((np.arange(32, dtype=np.float32) + 0.5) / 32 * 255, (32, 32)).copy()
    depth = transform_inverse_depth(ramp, geometry(flip))
    expected = (np.arange(120) + 0.5) / 120 * 255
    expected = expected[::-1] if flip else expected
    assert depth.shape == (80, 120)
    inside = slice(4, -4)
    np.testing.assert_allclose(depth[40, inside], expected[inside], atol=0.01)


def test_depth_is_not_rounded() -> None:
    grid = np.linspace(0, 255, 24 * 24, dtype=np.float32).reshape(24, 24)
    depth = transform_inverse_depth(grid, geometry(False))
    assert (depth != depth.round()).mean() > 0.9
    assert 0 <= depth.min() <= depth.max() <= 255


@settings(max_examples=60)
@given(
    grid=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    new=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    flip=st.booleans(), holes=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_depth_of_cells_is_that_of_their_pixels(
    grid: tuple[int, int], new: tuple[int, int], flip: bool, holes: bool, seed: int
) -> None:
    """The short way gives what Pillow's resize, flip, padding and reading or means give."""
    random = np.random.default_rng(seed)
    stored = random.random(grid, dtype=np.float32) * 255
    if holes:
        stored[random.random(grid) < 0.05] = np.nan
    change = geometry(flip, new=new)
    rows, columns = (-(-side // 4) for side in new)
    whole = np.zeros((4 * rows, 4 * columns + 4), np.float32)
    whole[: new[0], : new[1]] = transform_inverse_depth(stored, change)
    means = whole[:, :-4].reshape(rows, 4, columns, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(cell_means(stored, change), means, atol=2e-4)
    inside = np.arange(2, 4 * rows, 4) < new[0], np.arange(2, 4 * columns, 4) < new[1] - 2
    both = np.ix_(*inside)
    here, right = cell_steps(stored, change)
    np.testing.assert_allclose(here[both], whole[2::4, 2:-4:4][both], atol=2e-4)
    np.testing.assert_allclose(right[both], whole[2::4, 4::4][both], atol=2e-4)


@pytest.mark.parametrize("flip", [False, True])
def test_masks_are_read_at_pixels_2_6_10(flip: bool) -> None:
    mask = np.random.default_rng(0).random((40, 60)) < 0.5
    same = Geometry(old_size=(40, 60), new_size=(40, 60), flip=flip)
    flipped = mask[:, ::-1] if flip else mask
    np.testing.assert_array_equal(sample_mask(mask, same, stride=4), flipped[2::4, 2::4])


def test_the_centre_of_a_mask_moves_with_it() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:50] = True
    unmoved = Geometry(old_size=(40, 60), new_size=(40, 60), flip=False)
    np.testing.assert_allclose(mask_center(mask, unmoved), [39.5, 14.5])
    flipped = Geometry(old_size=(40, 60), new_size=(40, 60), flip=True)
    np.testing.assert_allclose(mask_center(mask, flipped), [59 - 39.5, 14.5])
    assert mask_center(np.zeros((40, 60), bool), unmoved) is None


def draw(seed: int, epoch: int, index: int) -> Geometry:
    return draw_geometry(
        (48, 64),
        Augmentation(short_sides=(32, 48, 64), max_size=200, flip=0.5),
        seed=seed,
        epoch=epoch,
        index=index,
    )


def test_what_is_drawn_depends_on_seed_epoch_and_index_and_on_nothing_else() -> None:
    first = [draw(0, 3, index) for index in range(50)]
    np.random.default_rng().random(10)
    assert first == [draw(0, 3, index) for index in range(50)]
    assert first != [draw(0, 4, index) for index in range(50)]
    assert first != [draw(1, 3, index) for index in range(50)]
    assert len({(g.new_size, g.flip) for g in first}) == 6


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("new_size", [(48, 64), (200, 173), (61, 90), (97, 131)])
def test_the_fast_resize_is_pillows_but_for_a_level_here_and_there(
    new_size: tuple[int, int], flip: bool
) -> None:
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    image = np.array(coarse.resize((131, 97)))
    image[::7, ::5] = random.integers(0, 256, 3)
    moved = Geometry(old_size=(97, 131), new_size=new_size, flip=flip)
    fast, pillow = (transform_pixels(image, moved, resize).numpy() for resize in RESIZES)
    np.testing.assert_array_equal(pillow, transform_image(image, moved).transpose(2, 0, 1))
    difference = np.abs(fast.astype(int) - pillow.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-2


def test_a_resize_leaves_the_stored_pixels_alone() -> None:
    image = np.full((8, 8, 3), 7, np.uint8)
    image.flags.writeable = False
    same = Geometry(old_size=(8, 8), new_size=(8, 8), flip=False)
    for resize in RESIZES:
        transform_pixels(image, same, resize).zero_()
        assert (image == 7).all()
