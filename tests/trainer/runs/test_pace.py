"""A run with `schedule.minutes` on a machine that gets busy: by a clock that the steps move."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from boxdepth.trainer import Start, fit
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides, load_config
from boxdepth.trainer.engine import loop
from boxdepth.trainer.engine.log import read_metrics

MINUTE = (
    'schedule={"iterations": 40, "steps": [24, 34], "warmup_iterations": 4, "minutes": 1, '
    '"at_most": 60}',
    "losses.warmup_iterations=12",
    'checkpoints={"every": 10, "keep": 9, "log_every": 1, "samples": 0}',
)


class Clock:
    """Stands for `time`, and listens: a step takes as long as the test says."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.now, self.seconds = 0.0, seconds
        self.said: list[str] = []

    def monotonic(self) -> float:
        return self.now

    def on_step(self, step: int) -> None:
        self.now += self.seconds(step)

    def on_report(self, step: int, numbers: Mapping[str, float]) -> None:
        pass

    def on_note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def config(tiny_run: RunConfig, make_store) -> RunConfig:
    store = make_store("train").path
    return apply_overrides(tiny_run, [*MINUTE, f"data.train={store}", "data.val=null"])


def rates(folder: Path) -> list[float]:
    return [row["learning_rate"] for row in read_metrics(folder)]


def test_a_machine_that_gets_busy_ends_in_time(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(lambda step: 1.5 if step <= 10 else 3.0)
    monkeypatch.setattr(loop, "time", clock)
    done = fit(config, out=tmp_path / "run", listener=clock)
    # as planned it would take 15 + 90 s; the last look is five steps from the end
    assert 50 <= clock.now <= 66
    saved = load_config(tmp_path / "run/config.json")
    assert saved.schedule.iterations == done.iterations < 40
    assert saved.schedule.steps[-1] < done.iterations
    assert saved.schedule.minutes == 1
    # 0.02 for 4 images a step, 2 here; two drops to a tenth
    assert rates(tmp_path / "run")[-1] == pytest.approx(0.01 * 0.1**2)
    [first, *_] = [text for text in clock.said if "fit into 1 minutes" in text]
    assert first.startswith("step ")
    planned = [row["iterations_planned"] for row in read_metrics(tmp_path / "run")]
    assert (planned[0], planned[-1]) == (40, done.iterations)
    checkpoint = json.loads((tmp_path / "run/run.json").read_text())
    assert checkpoint["config"]["schedule"]["iterations"] == done.iterations


def test_a_machine_that_is_free_makes_use_of_the_time(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(lambda step: 1.1)
    monkeypatch.setattr(loop, "time", clock)
    done = fit(config, out=tmp_path / "run", listener=clock)
    assert 40 < done.iterations <= 55
    assert clock.now <= 61
    assert rates(tmp_path / "run")[-1] == pytest.approx(0.01 * 0.1**2)


def test_a_run_that_goes_on_keeps_its_plan_and_its_time(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after a new plan, it goes on with that plan, and with the time that is left."""
    folder = tmp_path / "run"
    clock = Clock(lambda step: 3.0)
    monkeypatch.setattr(loop, "time", clock)
    first = fit(config, out=folder, max_iterations=12, listener=clock)
    assert first.iterations == 12
    plan = load_config(folder / "config.json")
    assert plan.schedule.iterations < 40
    clock.now += 1000  # a night in between takes nothing of it
    before = clock.now
    done = fit(plan, out=folder, start=Start.resume(), listener=clock)
    assert done.iterations == load_config(folder / "config.json").schedule.iterations
    assert first.seconds + clock.now - before <= 66
    assert rates(folder)[-1] == pytest.approx(0.01 * 0.1**2)


def test_without_a_limit_nobody_looks_at_the_clock(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(lambda step: 100.0)
    monkeypatch.setattr(loop, "time", clock)
    free = apply_overrides(config, ["schedule.minutes=null", "schedule.iterations=36"])
    assert fit(free, out=tmp_path / "run", listener=clock).iterations == 36
    assert not any("fit into" in text for text in clock.said)
    assert "iterations_planned" not in read_metrics(tmp_path / "run")[-1]
