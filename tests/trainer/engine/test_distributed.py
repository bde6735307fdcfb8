"""Two processes under torchrun train one model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.trainer.conftest import two_boxes

from boxdepth.trainer.engine.checkpoint import load_newest
from boxdepth.trainer.engine.log import read_metrics


def launch(ranks: int, store: Path, out: Path, settings: list[str]) -> subprocess.CompletedProcess:
    """`trainer fit` under torchrun, on the CPU (gloo)."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = ["-m", "boxdepth.trainer.cli", "fit", "scenes_tiny", "--train", str(store)]
    return subprocess.run(
        [sys.executable, *launcher, *command, *settings, "--out", str(out), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TMPDIR": str(out.parent),  # torchrun leaves a folder of logs behind
        },
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_ranks_make_one_run(make_store, tiny_settings: tuple[str, ...], tmp_path: Path) -> None:
    """One folder, one JSON result; and ranks hold the same weights, or a resume would not fit."""
    chosen = [*tiny_settings, "data.keep_empty=true", "data.batch_size=4"]
    settings = [part for setting in chosen for part in ("--set", setting)]
    store = make_store().path
    done = launch(2, store, tmp_path / "two", settings)
    assert done.returncode == 0, done.stderr
    results = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(results) == 1
    assert json.loads(results[0])["images_seen"] == 24
    rows = read_metrics(tmp_path / "two")
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4, 5, 6]
    found = load_newest(tmp_path / "two" / "checkpoints")
    assert found is not None
    assert all(torch.isfinite(w).all() for w in found[1].model.values() if w.is_floating_point())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_reported_numbers_are_those_of_all_ranks(
    make_store, tiny_settings: tuple[str, ...], tmp_path: Path
) -> None:
    """Every second image has no box: whichever rank gets it, the report is one process's."""

    def every_other(index: int, height: int, width: int) -> np.ndarray:
        return two_boxes(index, height, width)[: 2 * (index % 2)]

    chosen = [
        *tiny_settings, "data.keep_empty=true", "data.group_aspect=false",
        "data.augmentation.short_sides=[64]",
        "losses.projection=0", "losses.color=0", "losses.consistency=0", "losses.depth=0",
    ]  # fmt: skip
    settings = [part for setting in chosen for part in ("--set", setting)]
    store = make_store(boxes=every_other, sizes=[(64, 96)] * 5).path
    rows = []
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        done = launch(ranks, store, out, settings)
        assert done.returncode == 0, done.stderr
        rows.append(read_metrics(out))
    alone, together = (row[0]["losses"] for row in rows)  # later ones differ by batch statistics
    for term in ("box", "classification", "quality"):
        assert alone[term] > 0
        assert together[term] == pytest.approx(alone[term], rel=0.1), term
