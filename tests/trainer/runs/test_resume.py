"""A run that was stopped or killed ends exactly as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from boxdepth.trainer import Start, build, fit
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.engine.checkpoint import Checkpoint, load_newest
from boxdepth.trainer.engine.distributed import World
from boxdepth.trainer.engine.log import read_metrics
from boxdepth.trainer.engine.loop import Progress, Run, restore, run_loop
from boxdepth.trainer.engine.run_folder import BusyError, lock_run
from boxdepth.trainer.engine.signals import stop_flag
from boxdepth.trainer.errors import StoppedError

DISTILLED = (
    "distillation.method=depth_matching",
    "distillation.start=2",
    "distillation.teacher_short_side=64",
)


class StopsAfter:
    """Listens, and sends this process the signal of a cluster's scheduler after a step."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_step(self, step: int) -> None:
        if step == self.step:
            signal.raise_signal(signal.SIGTERM)

    def on_report(self, step: int, numbers: Mapping[str, float]) -> None:
        pass

    def on_note(self, text: str) -> None:
        pass


class Killed(BaseException):
    """Stands for a kill -9 in the middle of an evaluation."""


class Evaluations:
    """Scores that differ by call; dies in the call of that number."""

    def __init__(self, aps: list[float], *, dies_at: int | None = None) -> None:
        self.aps, self.dies_at, self.calls = aps, dies_at, 0

    def __call__(self, model: torch.nn.Module) -> dict[str, dict[str, float]]:
        self.calls += 1
        if self.calls == self.dies_at:
            raise Killed
        return {"segm": {"ap": self.aps[self.calls - 1]}}


def go(
    config: RunConfig,
    store: Path,
    folder: Path,
    *,
    stop_after: int | None = None,
    evaluate: Callable[[torch.nn.Module], Any],
    evaluates: str = "",
) -> Progress:
    """Start or resume a run with an evaluation of our own, everything else built anew."""
    dataset = build.training_set(config, store)
    config = build.with_classes(config, 2)
    learner = build.build_learner(config, torch.device("cpu"), World())
    run = Run(
        folder=folder,
        learner=learner,
        loader=build.batch_loader(config, dataset, World()),
        evaluate=evaluate,
        evaluates=evaluates,
        batch_size=config.data.batch_size,
        intervals=config.checkpoints,
        about={},
    )
    folder.mkdir(exist_ok=True)
    found = load_newest(run.checkpoints)
    progress = restore(learner, found[1]) if found else Progress()
    stop_at = config.schedule.iterations
    with stop_flag() as stop:
        run_loop(run, progress, stop_at=stop_at, stop=stop, listener=StopsAfter(stop_after))
    return progress


def exact(folder: Path) -> list[tuple[int, str, str]]:
    """Losses of every iteration, as hexadecimal floats."""
    return [
        (row["iteration"], name, value.hex())
        for row in read_metrics(folder)
        for name, value in row["losses"].items()
    ]


def newest(folder: Path) -> Checkpoint:
    found = load_newest(folder / "checkpoints")
    assert found is not None
    return found[1]


def assert_same_end(a: Path, b: Path) -> None:
    assert exact(a) == exact(b)
    one, two = newest(a), newest(b)
    assert one.step == two.step
    assert all(torch.equal(one.model[k], two.model[k]) for k in one.model)
    assert (one.teacher is None) == (two.teacher is None)
    if one.teacher is not None and two.teacher is not None:
        assert all(torch.equal(one.teacher[k], two.teacher[k]) for k in one.teacher)
    momenta = [checkpoint.state["optimizer"]["state"] for checkpoint in (one, two)]
    for key, entry in momenta[0].items():
        assert torch.equal(entry["momentum_buffer"], momenta[1][key]["momentum_buffer"])


@pytest.mark.parametrize("settings", [(), DISTILLED], ids=["student", "distilled"])
@pytest.mark.parametrize("workers", [0, 2])
def test_stopping_after_every_step_changes_nothing(
    make_store, tiny_run: RunConfig, tmp_path: Path, settings: tuple[str, ...], workers: int
) -> None:
    store = make_store(sizes=[(64, 96), (96, 64), (48, 64), (64, 96), (50, 80)]).path
    stores = [f"data.train={store}", "data.val=null"]
    config = apply_overrides(tiny_run, [*settings, *stores, "checkpoints.every=100"])
    fit(config, out=tmp_path / "whole", device="cpu")
    broken = apply_overrides(config, [f"data.workers={workers}"])
    again = {"out": tmp_path / "broken", "device": "cpu", "start": Start.resume()}
    for step in range(1, 6):
        with pytest.raises(StoppedError, match=f"SIGTERM after step {step}, saved"):
            fit(broken, listener=StopsAfter(step), **again)
    assert fit(broken, **again).iterations == 6
    assert_same_end(tmp_path / "whole", tmp_path / "broken")


@pytest.fixture
def start():
    """Start `trainer fit` as its own process; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(folder: Path, arguments: list[str], *extra: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "boxdepth.trainer.cli", "fit", *arguments, *extra]
        process = subprocess.Popen(
            [*command, "--out", str(folder), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for_iteration(process: subprocess.Popen[str], folder: Path, iteration: int) -> None:
    """Wait until the process has logged an iteration."""
    while process.poll() is None:
        if any(row["iteration"] >= iteration for row in read_metrics(folder)):
            return
        time.sleep(0.01)
    pytest.fail(f"ended before iteration {iteration}: {process.communicate()}")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_kill_and_a_signal_lose_nothing(
    start, make_store, tiny_settings: tuple[str, ...], tmp_path: Path
) -> None:
    """The line as a cluster treats it: kill -9, resume, SIGTERM, resume; against one whole run."""
    chosen = [
        *tiny_settings, "schedule.iterations=80", "checkpoints.every=7", "data.workers=1",
    ]  # fmt: skip
    settings = [part for setting in chosen for part in ("--set", setting)]
    arguments = ["scenes_tiny", "--train", str(make_store().path), *settings]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    reference = start(whole, arguments)
    killed = start(broken, arguments)
    wait_for_iteration(killed, broken, 10)
    killed.kill()
    killed.communicate()
    stopped = start(broken, arguments, "--resume")
    wait_for_iteration(stopped, broken, 20)
    stopped.send_signal(signal.SIGTERM)
    _, said = stopped.communicate()
    assert stopped.returncode == 143, said
    assert "--resume goes on" in said
    assert newest(broken).step >= 20
    finished = start(broken, arguments, "--resume")
    out, said = finished.communicate()
    assert finished.returncode == 0, said
    assert json.loads(out.splitlines()[-1])["iterations"] == 80
    _, said = reference.communicate()
    assert reference.returncode == 0, said
    assert_same_end(whole, broken)


@pytest.mark.parametrize("dies_at", [1, 2], ids=["middle", "last"])
def test_a_kill_during_an_evaluation_leaves_no_older_numbers_as_final(
    make_store, tiny_run: RunConfig, tmp_path: Path, dies_at: int
) -> None:
    store = make_store().path
    config = apply_overrides(tiny_run, ["checkpoints.evaluate_every=3"])
    aps = [0.2, 0.3]
    whole = go(config, store, tmp_path / "whole", evaluate=Evaluations(aps))
    with pytest.raises(Killed):
        go(config, store, tmp_path / "broken", evaluate=Evaluations(aps, dies_at=dies_at))
    resumed = go(config, store, tmp_path / "broken", evaluate=Evaluations(aps[dies_at - 1 :]))
    assert resumed.scores == whole.scores == {"segm": {"ap": 0.3}}
    for folder in (tmp_path / "whole", tmp_path / "broken"):
        rows = [row for row in read_metrics(folder) if "val" in row]
        assert [(row["iteration"], row["val"]["segm_ap"]) for row in rows] == [(3, 0.2), (6, 0.3)]
        assert (folder / "best").read_text().split() == ["step-0000006", "0.3"]
        assert json.loads((folder / "evaluation.json").read_text())["step"] == 6


def test_numbers_already_written_are_not_written_twice(
    make_store, tiny_run: RunConfig, tmp_path: Path
) -> None:
    """Killed after the numbers went out, before the evaluation was said to be finished."""
    store = make_store().path
    go(tiny_run, store, tmp_path / "run", evaluate=Evaluations([0.2]))
    (tmp_path / "run" / "evaluation.json").unlink()
    again = Evaluations([0.2])
    assert go(tiny_run, store, tmp_path / "run", evaluate=again).scores == {"segm": {"ap": 0.2}}
    assert again.calls == 1
    assert [row["iteration"] for row in read_metrics(tmp_path / "run") if "val" in row] == [6]


def test_a_finished_evaluation_is_taken_over_and_not_repeated(
    make_store, tiny_run: RunConfig, tmp_path: Path
) -> None:
    store = make_store().path
    go(tiny_run, store, tmp_path / "run", evaluate=Evaluations([0.2]))
    nobody = Evaluations([])
    assert go(tiny_run, store, tmp_path / "run", evaluate=nobody).scores == {"segm": {"ap": 0.2}}
    assert nobody.calls == 0


def test_another_val_store_is_evaluated_and_its_best_starts_anew(
    make_store, tiny_run: RunConfig, tmp_path: Path
) -> None:
    store, folder = make_store().path, tmp_path / "run"
    go(tiny_run, store, folder, evaluate=Evaluations([0.9]))
    progress = go(tiny_run, store, folder, evaluate=Evaluations([0.1]), evaluates="another store")
    assert progress.scores == {"segm": {"ap": 0.1}}
    assert (folder / "best").read_text().split() == ["step-0000006", "0.1"]


@pytest.mark.parametrize("spoilt", ["", "{", "[]", '{"step": "x", "of": "", "scores": 1}'])
def test_a_spoilt_record_means_evaluating_again(
    make_store, tiny_run: RunConfig, tmp_path: Path, spoilt: str
) -> None:
    store = make_store().path
    go(tiny_run, store, tmp_path / "run", evaluate=Evaluations([0.2]))
    (tmp_path / "run" / "evaluation.json").write_text(spoilt)
    (tmp_path / "run" / "best").write_text(spoilt)
    again = Evaluations([0.4])
    assert go(tiny_run, store, tmp_path / "run", evaluate=again).scores == {"segm": {"ap": 0.4}}
    assert (tmp_path / "run" / "best").read_text().split() == ["step-0000006", "0.4"]


def test_box_ap_chooses_the_best_where_there_is_no_mask(
    make_store, tiny_run: RunConfig, tmp_path: Path
) -> None:
    go(tiny_run, make_store().path, tmp_path, evaluate=lambda model: {"bbox": {"ap": 0.5}})
    assert (tmp_path / "best").read_text().split() == ["step-0000006", "0.5"]


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with lock_run(tmp_path), pytest.raises(BusyError, match=rf"{os.getpid()} since 20\d\d"):
        lock_run(tmp_path, patience=0.0).__enter__()
    with lock_run(tmp_path, patience=0.0):
        pass


EVALUATED = (
    'checkpoints={"every": 1, "keep": 9, "log_every": 1, "evaluate_every": 1, "patience": 2}'
)


@pytest.mark.parametrize(
    ("aps", "steps", "ends"),
    [
        # best at 2, two evaluations later the rate has dropped (at 4): ends there
        ([0.1, 0.5, 0.4, 0.3, 0.9, 0.9], "[4]", 4),
        # the same scores, but the rate drops at 5: not before it has
        ([0.1, 0.5, 0.4, 0.3, 0.2, 0.9], "[5]", 5),
        # a better one each time, or at least every second time: goes on to the end
        ([0.1, 0.5, 0.4, 0.6, 0.5, 0.7], "[1]", 6),
    ],
)
def test_a_run_ends_early_where_nothing_gets_better(
    make_store, tiny_run: RunConfig, tmp_path: Path, aps: list[float], steps: str, ends: int
) -> None:
    """As an uninterrupted run, and as one that is stopped and resumed on the way."""
    store = Path(make_store().path)
    settings = [EVALUATED, f'schedule={{"iterations": 6, "steps": {steps}}}']
    config = apply_overrides(tiny_run, settings)
    whole = go(config, store, tmp_path / "whole", evaluate=Evaluations(aps), evaluates="val")
    assert whole.step == ends
    pieces = Evaluations(aps)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "predictions.json").touch()  # as an evaluation leaves it
    with pytest.raises(StoppedError):
        go(config, store, tmp_path / "two", stop_after=2, evaluate=pieces, evaluates="val")
    resumed = go(config, store, tmp_path / "two", evaluate=pieces, evaluates="val")
    assert resumed.step == ends
    # and asked once more, it has nothing to do
    again = go(config, store, tmp_path / "two", evaluate=pieces, evaluates="val")
    assert again.step == ends
