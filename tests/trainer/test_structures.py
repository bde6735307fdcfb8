"""The nouns that flow: rows of them, and several of them together."""

import torch

from boxdepth.trainer.structures import Detections, PseudoMasks


def test_taking_rows_of_detections_takes_them_of_every_part() -> None:
    found = Detections(
        boxes_xyxy=torch.arange(12.0).view(3, 4),
        scores=torch.tensor([0.9, 0.5, 0.1]),
        labels=torch.tensor([4, 5, 6]),
        location_xy=torch.arange(6.0).view(3, 2),
        level=torch.tensor([0, 1, 2]),
        params=torch.arange(15.0).view(3, 5),
        size=(40, 56),
    )
    some = found.take(torch.tensor([2, 0]))
    assert some.boxes_xyxy.tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
    assert some.labels.tolist() == [6, 4]
    assert some.location_xy.tolist() == [[4, 5], [0, 1]]
    assert some.level.tolist() == [2, 0]
    assert some.params[0].tolist() == [10, 11, 12, 13, 14]
    torch.testing.assert_close(some.scores, torch.tensor([0.1, 0.9]))
    assert some.size == (40, 56)
    assert len(found.take(torch.tensor([], dtype=torch.int64)).scores) == 0


def test_pseudo_masks_of_several_images_stand_one_after_the_other() -> None:
    def part(first: float, count: int) -> PseudoMasks:
        numbers = torch.arange(first, first + count)
        return PseudoMasks(
            mask=numbers[:, None, None].expand(count, 2, 3),
            score=numbers,
            keep=numbers > 1,
            weight=-numbers,
        )

    both = PseudoMasks.cat([part(0.0, 2), part(7.0, 0), part(2.0, 1)])
    assert both.score.tolist() == [0, 1, 2]
    assert both.weight.tolist() == [0, -1, -2]
    assert both.keep.tolist() == [False, False, True]
    assert both.mask.shape == (3, 2, 3)
    assert both.mask[:, 0, 0].tolist() == [0, 1, 2]
