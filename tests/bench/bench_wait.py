"""How long a training step waits for its batch: the loader's threads beside the step.

    python tests/bench/bench_wait.py --store STORE [--preset scenes_tiny] [--steps 40]

Prints the share of the wall clock spent in waiting for the next batch.
"""

import argparse
import time
from pathlib import Path

import torch

from boxdepth.trainer import build
from boxdepth.trainer.config import presets
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.engine.distributed import World
from boxdepth.trainer.engine.health import NonFiniteGuard
from boxdepth.trainer.engine.update import learn_step


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--preset", default="scenes_tiny")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run = apply_overrides(presets.PRESETS[options.preset](), options.settings)
    data = build.training_set(run, options.store)
    run = build.with_classes(run, len(data.store.attributes.categories))
    learner = build.build_learner(run, torch.device("cpu"), World())
    guard, waited, worked = NonFiniteGuard(), 0.0, 0.0
    batches = build.batch_loader(run, data, World()).steps(0, options.steps + 2)
    for step in range(options.steps + 2):
        began = time.perf_counter()
        passes = next(batches)
        loaded = time.perf_counter()
        learn_step(learner, step, passes, guard=guard)
        if step >= 2:  # the first batches are nobody's fault
            waited += loaded - began
            worked += time.perf_counter() - loaded
    print(
        f"{options.preset}, {run.data.workers} loader threads, {options.threads} of torch: "
        f"step {1000 * worked / options.steps:.0f} ms, wait {1000 * waited / options.steps:.2f} ms "
        f"= {100 * waited / (waited + worked):.2f} %"
    )


if __name__ == "__main__":
    main()
