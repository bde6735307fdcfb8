"""The teacher's frame: golden vector 9, and masks that come back where they belong."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from boxdepth.trainer.distill.frames import masks_on_student_grid, resized_images, teacher_size
from boxdepth.trainer.geometry.resize import aligned_bilinear

SIZES = st.integers(20, 120)


class TestMasks:
    @settings(max_examples=30)
    @given(teacher=st.tuples(SIZES, SIZES), student=st.tuples(SIZES, SIZES))
    def test_equal_two_resizes_a_crop_and_a_subsampling(
        self, teacher: tuple[int, int], student: tuple[int, int]
    ) -> None:
        cells = [-(-side // 32) * 8 for side in teacher]
        grid = tuple(-(-side // 32) * 8 for side in student)
        masks = torch.rand((3, *cells), generator=torch.Generator().manual_seed(0))
        full = aligned_bilinear(masks[:, None], 4)[..., : teacher[0], : teacher[1]]
        full = F.interpolate(full, size=student, mode="bilinear", align_corners=False)
        slow = full[:, 0, 2::4, 2::4]
        found = masks_on_student_grid(
            masks, teacher_frame=teacher, student_frame=student, grid=grid
        )
        assert found.shape == (3, *grid)
        torch.testing.assert_close(
            found[:, : slow.shape[1], : slow.shape[2]], slow, atol=1e-5, rtol=0
        )
        assert found[:, slow.shape[1] :].count_nonzero() == 0
        assert found[:, :, slow.shape[2] :].count_nonzero() == 0

    def test_no_candidates(self) -> None:
        found = masks_on_student_grid(
            torch.zeros(0, 16, 16), teacher_frame=(64, 64), student_frame=(32, 32), grid=(8, 8)
        )
        assert found.shape == (0, 8, 8)


class TestImages:
    def test_each_image_fills_its_own_frame(self) -> None:
        images = torch.full((2, 3, 64, 96), 200, dtype=torch.uint8)
        sizes = torch.tensor([[64, 80], [40, 96]])
        for image, (height, width) in zip(images, sizes.tolist(), strict=True):
            image[:, height:], image[:, :, width:] = 0, 0
        frames = [teacher_size(size, short_side=80, max_size=160) for size in ((64, 80), (40, 96))]
        assert frames == [(80, 100), (66, 160)]
        found = resized_images(images, [(64, 80), (40, 96)], images=[0, 1], targets=frames)
        assert found.shape == (2, 3, 96, 160)
        for image, (height, width) in zip(found, frames, strict=True):
            assert (image[:, :height, :width] == 200).all()
            assert image.sum() == 200 * 3 * height * width

    def test_students_size_is_the_students_batch(self) -> None:
        images = torch.randint(0, 255, (2, 3, 32, 64)).to(torch.uint8)
        images[0, :, 30:], images[1, :, :, 50:] = 0, 0
        frames = [(30, 64), (32, 50)]
        found = resized_images(images, frames, images=[0, 1], targets=frames)
        assert torch.equal(found, images)

    def test_a_part_of_the_batch_brings_no_padding_along(self) -> None:
        images = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
        frames = [(20, 30), (64, 96)]
        assert resized_images(images, frames, images=[0], targets=[(20, 30)]).shape[2:] == (32, 32)


class TestSize:
    @pytest.mark.parametrize(
        ("size", "expected"),
        [
            ((640, 853), (800, 1066)),
            ((800, 1067), (800, 1067)),
            ((640, 1333), (640, 1333)),
            ((1000, 640), (1250, 800)),
        ],
    )
    def test_golden_coco(self, size: tuple[int, int], expected: tuple[int, int]) -> None:
        assert teacher_size(size, short_side=800, max_size=1333) == expected

    def test_golden_cityscapes(self) -> None:
        assert teacher_size((800, 1600), short_side=1024, max_size=2048) == (1024, 2048)

    def test_students_own_size(self) -> None:
        assert teacher_size((333, 222), short_side=None, max_size=1333) == (333, 222)

    @given(h=st.integers(1, 3000), w=st.integers(1, 3000))
    def test_limits_hold_and_sides_swap(self, h: int, w: int) -> None:
        height, width = teacher_size((h, w), short_side=800, max_size=1333)
        assert max(height, width) <= 1333
        assert 1 <= min(height, width) <= 800
        assert teacher_size((w, h), short_side=800, max_size=1333) == (width, height)
