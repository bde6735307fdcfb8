"""A shortened run says what it will never do."""

import pytest

from boxdepth.trainer.build import loss_rules
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.config.presets import PRESETS
from boxdepth.trainer.config.schedule_notes import schedule_notes
from boxdepth.trainer.criterion.rules import factors_at


def shortened(preset: str, *settings: str) -> RunConfig:
    return apply_overrides(PRESETS[preset](), settings)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_promises_what_it_does_not_do(preset: str) -> None:
    assert schedule_notes(PRESETS[preset]()) == []


def test_the_whole_method_cut_to_a_tenth() -> None:
    notes = schedule_notes(shortened("coco_r50_1x", "schedule.iterations=9000"))
    words = ("never drops", "colour pairs reach 90%", "consistency has no effect", "65000")
    assert len(notes) == len(words)
    for note, word in zip(notes, words, strict=True):
        assert word in note
        assert "9000" in note


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (["schedule.iterations=600", "schedule.steps=[]"], None),
        (["schedule.iterations=599", "schedule.steps=[]"], "consistency reaches 100%"),
        (["schedule.iterations=450", "schedule.steps=[]"], "consistency reaches 50%"),
        (["schedule.iterations=301", "schedule.steps=[]"], "consistency reaches 0%"),
        (["schedule.iterations=1450"], "drops fewer times: 1450"),
        (["schedule.iterations=1451"], None),
        (["schedule.warmup_iterations=1600"], "still warming up"),
        (["schedule.warmup_iterations=1599"], None),
    ],
)
def test_the_borders(settings: list[str], word: str | None) -> None:
    notes = schedule_notes(shortened("scenes_tiny", *settings))
    assert len(notes) == (word is not None)
    assert word is None or word in notes[0]


def test_terms_that_are_switched_off_are_not_spoken_of() -> None:
    settings = ["schedule.iterations=20", "schedule.steps=[]", "schedule.warmup_iterations=0"]
    assert schedule_notes(shortened("condinst_r50_1x", *settings)) == []
    off = ["losses.color=0", "losses.consistency=0"]
    assert schedule_notes(shortened("scenes_tiny", *settings, *off)) == []
    assert schedule_notes(shortened("scenes_tiny", *settings, "losses.warmup_iterations=0")) == []


def test_a_teacher_in_the_last_step_is_a_teacher() -> None:
    settings = ["distillation.method=depth_matching", "distillation.start="]
    for start, notes in ((1599, 0), (1600, 1)):
        run = shortened("scenes_tiny", settings[0], f"{settings[1]}{start}")
        assert len(schedule_notes(run)) == notes


@pytest.mark.parametrize("iterations", [300, 301, 450, 599, 600, 1600])
def test_they_agree_with_the_factors(iterations: int) -> None:
    """The factor of the last step is what a note speaks of."""
    run = shortened("scenes_tiny", f"schedule.iterations={iterations}", "schedule.steps=[]")
    last = factors_at(loss_rules(run), iterations - 1)
    notes = " ".join(schedule_notes(run))
    assert ("consistency" in notes) == (last["consistency"] < run.losses.consistency)
    assert ("no effect" in notes) == (last["consistency"] == 0)
    assert ("colour" in notes) == (last["color"] < run.losses.color)
