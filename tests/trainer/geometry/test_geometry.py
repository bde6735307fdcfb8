"""Boxes, grids, neighbours and resizes: what they are, and what they leave alone."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxdepth.trainer.geometry.boxes import (
    box_bitmaps,
    boxes_to_ltrb,
    clip_boxes,
    ltrb_to_boxes,
    raster_centers,
    rescale_boxes,
)
from boxdepth.trainer.geometry.grid import cell_locations
from boxdepth.trainer.geometry.neighbours import neighbour_offsets, shifted
from boxdepth.trainer.geometry.resize import aligned_bilinear, mask_to_image, pooled


def test_aligned_upsampling_by_two_of_the_worked_example() -> None:
    """method.md, golden vector 7."""
    maps = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])
    expected = torch.tensor([[0, 0, 1, 2], [0, 0, 1, 2], [2, 2, 3, 4], [4, 4, 5, 6.0]])
    torch.testing.assert_close(aligned_bilinear(maps, 2)[0, 0], expected)


@given(st.integers(1, 5), st.integers(1, 6), st.sampled_from([1, 2, 3, 4, 8]))
@settings(max_examples=30)
def test_aligned_upsampling_reads_where_the_formula_says(
    height: int, width: int, factor: int
) -> None:
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(height, width)))
    out = aligned_bilinear(maps[None, None].float(), factor)[0, 0]
    for i in range(factor * height):
        for j in range(factor * width):
            y = min(max((i - factor // 2) / factor, 0), height - 1)
            x = min(max((j - factor // 2) / factor, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            upper = maps[top, left] * (1 - dx) + maps[top, right] * dx
            lower = maps[bottom, left] * (1 - dx) + maps[bottom, right] * dx
            assert float(out[i, j]) == pytest.approx(float(upper * (1 - dy) + lower * dy), abs=1e-5)


def test_factor_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        aligned_bilinear(torch.zeros(1, 1, 2, 2), 0)


def test_pooling_of_the_worked_example() -> None:
    """method.md, golden vector 13."""
    ramp = torch.arange(32.0).reshape(1, 1, 4, 8)
    assert pooled(ramp, 4).flatten().tolist() == [13.5, 17.5]


@given(st.integers(2, 12), st.integers(1, 48), st.integers(1, 60))
@settings(max_examples=40)
def test_mask_resize_is_upsampling_cut_and_resize_in_one(
    cells: int, size: int, new_size: int
) -> None:
    size = min(size, 4 * cells)
    values = torch.from_numpy(np.random.default_rng(cells).uniform(size=cells)).float()
    maps = values[None, None, None].expand(1, 1, 2, cells)
    fine = aligned_bilinear(maps, 4)[..., :size]
    expected = torch.nn.functional.interpolate(
        fine, size=(8, new_size), mode="bilinear", align_corners=False
    )[0, 0, 0]
    resize = mask_to_image(cells, stride=4, size=size, new_size=new_size)
    torch.testing.assert_close(resize.weights @ values, expected, atol=1e-5, rtol=1e-5)
    (first, end), (low, high) = resize.reached(0, 1)
    inside = torch.zeros(new_size, dtype=torch.bool)
    inside[first:end] = True
    assert torch.equal(resize.weights[:, 0] > 0, inside)
    assert (resize.weights[first:end, :low] == 0).all()
    assert (resize.weights[first:end, high:] == 0).all()


def test_nothing_reads_an_empty_range() -> None:
    assert mask_to_image(4, stride=4, size=16, new_size=9).reached(2, 2) == ((0, 0), (0, 0))


@given(st.integers(1, 20), st.integers(1, 90), st.data())
def test_a_resize_without_its_zeros_is_the_same(cells: int, new_size: int, data) -> None:
    size = data.draw(st.integers(max(4 * cells - 5, 1), 4 * cells))
    resize = mask_to_image(cells, stride=4, size=size, new_size=new_size)
    start = data.draw(st.integers(0, cells))
    outputs, inputs = resize.reached(start, data.draw(st.integers(start, cells)))
    values = torch.rand(cells, 3)
    thin = resize.on_host().of_rows(values[slice(*inputs)].numpy(), outputs, start=inputs[0])
    assert thin.shape == (outputs[1] - outputs[0], 3)
    expected = (resize.weights @ values)[slice(*outputs)] if outputs[1] else torch.zeros(0, 3)
    read = torch.zeros(cells, 1)
    read[slice(*inputs)] = 1
    whole = (resize.weights @ read)[slice(*outputs)] if outputs[1] else torch.zeros(0, 1)
    torch.testing.assert_close(whole, torch.ones_like(whole))  # all that they read is there
    torch.testing.assert_close(torch.from_numpy(thin), expected)


boxes = st.lists(
    st.tuples(*[st.floats(0, 60, width=32)] * 2, *[st.floats(0.25, 40, width=32)] * 2),
    min_size=1,
    max_size=5,
).map(lambda rows: torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rows]))


@given(boxes)
def test_box_bitmaps_are_the_filled_rows_and_columns(boxes_xyxy: torch.Tensor) -> None:
    bitmaps = box_bitmaps(boxes_xyxy, grid=(26, 28), stride=4)
    for bitmap, (x1, y1, x2, y2) in zip(bitmaps, boxes_xyxy.tolist(), strict=True):
        full = torch.zeros(104, 112, dtype=torch.bool)
        full[int(y1) : int(np.float32(y2) + np.float32(1)), int(x1) : int(np.float32(x2) + 1)] = 1
        assert torch.equal(bitmap, full[2::4, 2::4])


@given(boxes)
def test_ltrb_and_boxes_are_inverse(boxes_xyxy: torch.Tensor) -> None:
    location = boxes_xyxy[:, :2] + 0.25
    torch.testing.assert_close(
        ltrb_to_boxes(location, boxes_to_ltrb(location, boxes_xyxy)), boxes_xyxy
    )


@given(boxes)
def test_rescaling_back_and_forth_changes_nothing(boxes_xyxy: torch.Tensor) -> None:
    there = rescale_boxes(boxes_xyxy, size=(96, 128), new_size=(150, 37))
    back = rescale_boxes(there, size=(150, 37), new_size=(96, 128))
    torch.testing.assert_close(back, boxes_xyxy, atol=1e-4, rtol=1e-5)


def test_clipped_boxes_keep_their_order() -> None:
    outside = torch.tensor([[-5.0, 3.0, 12.0, 90.0], [200.0, 200.0, 300.0, 300.0]])
    expected = [[0, 3, 12, 50], [100, 50, 100, 50]]
    assert clip_boxes(outside, (50, 100)).tolist() == expected


def test_raster_center_ends_with_the_image() -> None:
    box = np.array([[10.0, 4.0, 32.0, 9.5]], np.float32)
    assert raster_centers(box).tolist() == [[21.0, 6.5]]


def test_locations_lie_in_the_middle_of_their_cells() -> None:
    assert cell_locations((1, 2), stride=8).tolist() == [[4, 4], [12, 4]]


def test_neighbours_come_row_by_row_without_the_center() -> None:
    assert neighbour_offsets(3, 2) == (
        (-2, -2), (-2, 0), (-2, 2), (0, -2), (0, 2), (2, -2), (2, 0), (2, 2),
    )  # fmt: skip
    assert len(neighbour_offsets(5, 1)) == 24


@pytest.mark.parametrize("size", [1, 2, 4])
def test_even_and_tiny_windows_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="odd size of at least 3"):
        neighbour_offsets(size, 1)


@given(st.integers(-4, 4), st.integers(-4, 4))
def test_shifting_fills_what_lies_outside(dy: int, dx: int) -> None:
    maps = torch.arange(6.0).reshape(1, 2, 3) + 1
    out = shifted(maps, (dy, dx))
    for y in range(2):
        for x in range(3):
            inside = 0 <= y + dy < 2 and 0 <= x + dx < 3
            assert out[0, y, x] == (maps[0, y + dy, x + dx] if inside else 0)


COMPILED = """
import torch
from boxdepth.trainer.geometry.resize import aligned_bilinear
torch.manual_seed(0)
conv = torch.nn.Conv2d(3, 4, 3, padding=1).to(memory_format=torch.channels_last)
images = torch.rand(2, 3, 8, 12).contiguous(memory_format=torch.channels_last)
def upsampled(x):
    return aligned_bilinear(torch.relu(conv(x)), 4)
gradients = []
for form in (upsampled, torch.compile(upsampled)):
    conv.zero_grad()
    form(images).square().sum().backward()
    gradients.append(conv.weight.grad.clone())
torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_upsampling_compiles_with_its_gradient() -> None:
    """Replicate padding's backward has other strides than torch.compile is told.

    In a process of its own: the shape checks of the tests are nothing to compile.
    """
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
