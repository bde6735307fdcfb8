"""A schedule fitted to the time there is: what is yet to come keeps its share, and it ends."""

import pytest

from boxdepth.trainer.engine.pace import Pace, Refit, refit
from boxdepth.trainer.engine.schedule import LearningRate, Schedule

SCHEDULE = Schedule(iterations=100, steps=(60, 85), warmup_iterations=6, minutes=1, at_most=150)


def test_a_slower_machine_makes_fewer_steps_and_still_lets_the_rate_fall() -> None:
    change = refit(SCHEDULE, step=20, seconds=20, pace=1)  # 40 s left: 40 steps, not 80
    assert change == Refit(step=20, before=100, after=60)
    new = change.schedule(SCHEDULE)
    # half of what is left: 60 lies 40 of 80 steps ahead, 85 lies 65 of 80
    assert (new.iterations, new.steps, new.warmup_iterations) == (60, (40, 52), 6)
    rate = LearningRate(base=1.0, schedule=new)
    assert [round(rate.at(step), 9) for step in (39, 40, 51, 52, 59)] == [1, 0.1, 0.1, 0.01, 0.01]


def test_a_warm_up_that_is_not_over_moves_with_the_rest() -> None:
    change = Refit(step=20, before=100, after=60)
    assert [change.moved(border) for border in (6, 20, 21, 40, 100)] == [6, 20, 21, 30, 60]


def test_a_plan_that_nearly_fits_stays() -> None:
    assert refit(SCHEDULE, step=20, seconds=20, pace=0.5) is None
    assert refit(SCHEDULE, step=20, seconds=20, pace=0.54) is None  # 74 of 80 steps
    assert refit(SCHEDULE.changed(minutes=None), step=20, seconds=20, pace=9) is None


def test_a_faster_machine_makes_more_steps_until_the_rate_has_fallen() -> None:
    assert refit(SCHEDULE, step=20, seconds=20, pace=0.4) == Refit(step=20, before=100, after=120)
    change = refit(SCHEDULE, step=20, seconds=20, pace=0.1)
    assert change == Refit(step=20, before=100, after=150), "at most"
    assert refit(SCHEDULE.changed(at_most=None), step=20, seconds=20, pace=0.1) is None
    assert refit(SCHEDULE, step=60, seconds=20, pace=0.1) is None
    assert refit(SCHEDULE, step=60, seconds=20, pace=2) == Refit(step=60, before=100, after=80)


def test_where_no_time_is_left_the_run_still_ends_properly() -> None:
    change = refit(SCHEDULE, step=30, seconds=100, pace=1)
    assert change == Refit(step=30, before=100, after=35)
    new = change.schedule(SCHEDULE)
    assert new.steps == (32, 34)


def test_the_pace_is_that_of_the_last_third_and_looked_at_now_and_then() -> None:
    pace, asked = Pace(step=0, seconds=0), []

    def clock(now: float):
        return lambda: (asked.append(now), now)[1]

    for step in range(1, 6):  # the learning rate still warms up
        assert pace.look(SCHEDULE, step, clock(step)) is None
    assert not asked
    assert pace.look(SCHEDULE, 6, clock(3.6)) is None  # 0.6 s a step: 100 steps fit
    for step in range(7, 11):
        assert pace.look(SCHEDULE, step, clock(99)) is None
    assert pace.look(SCHEDULE, 11, clock(6.6)) is None
    assert pace.look(SCHEDULE, 16, clock(9.6)) is None
    assert asked == [3.6, 6.6, 9.6]
    # a third of 21 steps: since step 11, not 16, 8 s for 5 steps and 3 s for the 5 before them
    seen = pace.look(SCHEDULE, 21, clock(17.6))
    assert seen is not None
    assert seen[0] == pytest.approx(1.1)
    assert seen[1] == Refit(step=21, before=100, after=21 + 38)  # (60 - 17.6) / 1.1
