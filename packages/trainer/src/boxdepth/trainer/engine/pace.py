"""A run that has to end in time: its schedule is fitted, as it goes, to what a step takes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from boxdepth.trainer.engine.schedule import Schedule

LOOKS = 20
"""How often in a run, about, its pace is looked at."""
LEAST_STEPS = 5
"""Between two looks: fewer say little about the next ones."""
LEAST_REST = 0.05
"""Share of the run that is made even where no time is left: the learning rate has to fall."""
WORTH_IT = 0.1
"""Share of the steps left by which a new plan must differ from the old one."""
LATELY = 3
"""The pace is that of the last third of the steps so far: a machine's load comes and goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """Steps that are yet to come, moved so that each keeps its share of what is left."""

    step: int
    """Steps done: nothing up to there moves."""
    before: int
    """Iterations of the run as it was planned."""
    after: int

    def moved(self, border: int) -> int:
        """Where something that was planned for ``border`` comes now."""
        if border <= self.step:
            return border
        share = (border - self.step) / (self.before - self.step)
        return self.step + max(round(share * (self.after - self.step)), 1)

    def schedule(self, schedule: Schedule) -> Schedule:
        """The schedule with its drops and its end moved."""
        return schedule.changed(
            iterations=self.after,
            steps=tuple(self.moved(drop) for drop in schedule.steps),
            warmup_iterations=self.moved(schedule.warmup_iterations),
        )


def refit(schedule: Schedule, *, step: int, seconds: float, pace: float) -> Refit | None:
    """The plan that ends in time; None: the present one does, more or less.

    A run is made longer again, up to `at_most`, as long as the learning rate has not fallen.

    Args:
        step: steps done.
        seconds: that they took.
        pace: seconds that a step takes now.
    """
    if schedule.minutes is None or step >= schedule.iterations:
        return None
    fits = step + int((60 * schedule.minutes - seconds) / max(pace, 1e-9))
    least = step + math.ceil(LEAST_REST * schedule.iterations)
    fallen = step >= min(schedule.steps, default=schedule.iterations)
    most = schedule.iterations if fallen else schedule.at_most or schedule.iterations
    after = min(max(fits, least), max(most, schedule.iterations))
    if abs(after - schedule.iterations) <= WORTH_IT * (schedule.iterations - step):
        return None
    return Refit(step=step, before=schedule.iterations, after=after)


@final
class Pace:
    """Looks at the clock now and then, from the end of the warm-up of the learning rate on."""

    def __init__(self, *, step: int, seconds: float) -> None:
        self._looks = [(step, seconds)]

    def look(
        self, schedule: Schedule, step: int, clock: Callable[[], float]
    ) -> tuple[float, Refit] | None:
        """(seconds that a step took of late, the new plan); None: the present plan holds.

        Args:
            clock: seconds that the run has taken, the same on all ranks.
        """
        every = max(schedule.iterations // LOOKS, LEAST_STEPS)
        if step < schedule.warmup_iterations or step - self._looks[-1][0] < every:
            return None
        seconds = clock()
        lately = step - (step - self._looks[0][0]) // LATELY
        since, then = next(
            (look for look in reversed(self._looks) if look[0] <= lately), self._looks[0]
        )
        self._looks.append((step, seconds))
        pace = (seconds - then) / (step - since)
        change = refit(schedule, step=step, seconds=seconds, pace=pace)
        return None if change is None else (pace, change)
