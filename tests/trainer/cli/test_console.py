"""Numbers as a person reads them."""

import pytest

from boxdepth.trainer.cli.console import duration, percents


def test_percents_tell_what_is_there_in_the_order_of_the_titles() -> None:
    numbers = {"segm_ap": 0.3456, "bbox_ap50": 0.5, "segm_ap50": None, "other": 1.0}
    titles = {"segm_ap": "mask AP", "segm_ap50": "AP50", "bbox_ap": "box AP", "bbox_ap50": "AP50"}
    assert percents(numbers, titles) == "mask AP 34.6  AP50 50.0"
    two = {"segm_ap50": 0.1, "bbox_ap50": 0.2}
    assert percents(two, titles) == "AP50 10.0  AP50 20.0"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (7260, "2 h 01 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
