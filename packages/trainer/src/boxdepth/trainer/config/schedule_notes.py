"""What of a run's plan lies beyond its end: a preset that was only shortened learns something else.

Everything counts steps from 0: the last step of a run of T iterations is T - 1.
"""

from collections.abc import Iterator

from boxdepth.trainer.config import RunConfig


def schedule_notes(run: RunConfig) -> list[str]:
    """One sentence for each warm-up, start or drop that lies behind the end, with its setting.

    Empty for a run that gets to do all that it was told to.
    """
    return [*_rate_notes(run), *_term_notes(run), *_teacher_notes(run)]


def _rate_notes(run: RunConfig) -> Iterator[str]:
    schedule, end = run.schedule, run.schedule.iterations
    if schedule.warmup_iterations >= end:
        yield (
            f"the learning rate is still warming up when the run ends, at {end} of "
            f"{schedule.warmup_iterations} steps (schedule.warmup_iterations)"
        )
    late = [step for step in schedule.steps if step >= end]
    if late:
        some = "never drops" if len(late) == len(schedule.steps) else "drops fewer times"
        yield (
            f"the learning rate {some}: {', '.join(map(str, late))} is beyond the last of {end} "
            "steps (schedule.steps)"
        )


def _term_notes(run: RunConfig) -> Iterator[str]:
    losses, end = run.losses, run.schedule.iterations
    width = losses.warmup_iterations
    if run.data.supervision == "masks":
        return
    if losses.color and width > end:
        yield (
            f"the colour pairs reach {end / width:.0%} of their weight: their warm-up takes "
            f"{width} steps, the run {end} (losses.warmup_iterations)"
        )
    if losses.consistency and losses.consistency_warmup == "after_color" and 2 * width > end:
        share = f"{max(end - width, 0) / width:.0%} of its weight"
        yield (
            f"the depth consistency {'has no effect' if end <= width else f'reaches {share}'}: it "
            f"ramps up from step {width} to {2 * width}, the run ends at {end} "
            "(losses.warmup_iterations, losses.consistency_warmup)"
        )


def _teacher_notes(run: RunConfig) -> Iterator[str]:
    distillation, end = run.distillation, run.schedule.iterations
    if distillation.method == "off":
        return
    width = run.losses.warmup_iterations
    if distillation.start >= end:
        yield (
            f"no self-distillation: the teacher starts at step {distillation.start}, the run ends "
            f"at {end} (distillation.start)"
        )
    elif distillation.method == "box_teacher" and distillation.start + width > end:
        yield (
            f"the teacher's masks reach {(end - distillation.start) / width:.0%} of their weight: "
            f"their warm-up takes {width} steps from step {distillation.start} on, the run ends at "
            f"{end} (losses.warmup_iterations)"
        )
