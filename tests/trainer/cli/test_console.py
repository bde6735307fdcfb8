"""Numbers as a person reads them."""

import io

import pytest
from rich.console import Console

from boxdepth.trainer.cli.console import RunDisplay, duration, percents


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


@pytest.mark.parametrize(("moves", "ends"), [(True, "30"), (False, "20")])
def test_the_end_that_is_shown_is_the_one_that_is_planned(moves: bool, ends: str) -> None:
    said = io.StringIO()
    console = Console(file=said, width=200)
    with RunDisplay(console, name="mine", stop=20, moves=moves, live=False) as display:
        numbers = {"total_loss": 1.0, "learning_rate": 0.1, "images_per_second": 3.0}
        display.on_report(10, numbers)
        display.on_report(20, {**numbers, "iterations_planned": 30.0})
        display.on_report(int(ends), {**numbers, "iterations_planned": 30.0})
    lines = said.getvalue().splitlines()
    assert lines[0].startswith("10/20 ")
    assert lines[-1].startswith(f"{ends}/{ends} ")
