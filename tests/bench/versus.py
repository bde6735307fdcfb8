"""Two working trees of this project in turns, so that both see the same noise of the machine.

    git worktree add /tmp/before COMMIT
    python tests/bench/versus.py --before /tmp/before --case step --store scenes-train.zarr

Each tree works in a process of its own, told block by block whose turn it is.  Printed are the
medians of CPU and wall seconds a unit of work, their ratios, and each side's peak memory.

    step       training steps of a preset over a store, from --start on
    mapper     samples of a store, augmented and collated, one thread
    inference  predictions on a store's pictures
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("depthgen", "trainer", "evaluate")


def run_of(options: argparse.Namespace) -> Any:
    """The preset with what is set over it."""
    from boxdepth.trainer.config import presets
    from boxdepth.trainer.config.overrides import apply_overrides

    return apply_overrides(presets.PRESETS[options.preset](), options.settings)


def learner_of(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """(learner, dataset, run) of a preset and a store."""
    import torch

    from boxdepth.trainer import build
    from boxdepth.trainer.engine.distributed import World

    run = run_of(options)
    data = build.training_set(run, options.store)
    run = build.with_classes(run, len(data.store.attributes.categories))
    return build.build_learner(run, torch.device("cpu"), World()), data, run


def steps(options: argparse.Namespace) -> Iterator[dict[str, float]]:
    """One training step after the other; the batches are made beforehand, outside the clock."""
    from boxdepth.trainer import build
    from boxdepth.trainer.engine.distributed import World
    from boxdepth.trainer.engine.health import NonFiniteGuard
    from boxdepth.trainer.engine.update import learn_step

    with suppress(ImportError):  # as `trainer fit` does it, in trees that have it
        from boxdepth.trainer.engine.allocator import keep_freed_memory

        keep_freed_memory()
    learner, data, run = learner_of(options)
    batches = list(build.batch_loader(run, data, World()).steps(0, options.batches))
    guard, step = NonFiniteGuard(), options.start
    while True:
        watching = (step + 1) % run.checkpoints.log_every == 0
        numbers = learn_step(
            learner, step, batches[step % len(batches)], guard=guard, watching=watching
        )
        step += 1
        yield {"loss": float(numbers["total_loss"])}


def mapper(options: argparse.Namespace) -> Iterator[dict[str, float]]:
    """One batch after the other, loaded in this thread."""
    from boxdepth.trainer import build
    from boxdepth.trainer.engine.distributed import World

    run = run_of(options)
    data = build.training_set(run, options.store)
    loader = build.batch_loader(run, data, World())
    for passes in loader.steps(0, 1_000_000):
        yield {"mean": float(passes[0].images[:, :, ::16, ::16].float().mean())}


def inference(options: argparse.Namespace) -> Iterator[dict[str, float]]:
    """One picture after the other."""
    import torch

    from boxdepth.trainer.predict.inference import Picture, inference_spec, predict_pictures

    learner, data, run = learner_of(options)
    model, spec = learner.model.eval(), inference_spec(run)
    try:  # as `trainer predict` makes it of a checkpoint
        from boxdepth.trainer.model.folded import absorb_norms

        absorb_norms(model)
    except ImportError:  # in trees of before
        model = model.to(memory_format=torch.contiguous_format)
    torch.nn.init.normal_(model.head.class_logits.weight, std=0.3)  # detections to cut out
    torch.nn.init.constant_(model.head.ltrb.bias, 1.5)
    pictures = [Picture(rgb=data.store.image(row)) for row in range(min(len(data.store), 16))]
    while True:
        for picture in pictures:
            (found,) = predict_pictures(model, [picture], spec)
            yield {"detections": float(len(found.scores))}


CASES: dict[str, Callable[[argparse.Namespace], Iterator[dict[str, float]]]] = {
    "step": steps,
    "mapper": mapper,
    "inference": inference,
}


def work(options: argparse.Namespace) -> None:
    """A side: answers every line of stdin with the cost of a block."""
    units = CASES[options.case](options)
    for _ in range(options.warmup):
        last = next(units)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(options.block):
            last = next(units)
        cost = {
            "cpu": (time.process_time() - cpu) / options.block,
            "wall": (time.perf_counter() - wall) / options.block,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            **last,
        }
        print(json.dumps(cost), flush=True)


def start(tree: Path, arguments: list[str]) -> subprocess.Popen[str]:
    """A side, with the sources of its tree before those that are installed."""
    sources = [str(tree / "packages" / name / "src") for name in PACKAGES]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sources)}
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--side", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def turn(side: subprocess.Popen[str]) -> dict[str, float]:
    """One block of a side."""
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write("\n")
    side.stdin.flush()
    answer: dict[str, float] = json.loads(side.stdout.readline())
    return answer


def compare(options: argparse.Namespace) -> None:
    """Blocks of both sides in turns; medians and ratios."""
    arguments = [a for a in sys.argv[1:] if a != "--side"]
    sides = {
        name: start(tree, arguments) for name, tree in (("before", options.before), ("now", ROOT))
    }
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            costs[name].append(turn(side))
    for side in sides.values():
        side.terminate()
    for kind in ("cpu", "wall"):
        before, now = ([cost[kind] for cost in costs[name]] for name in ("before", "now"))
        ratio = statistics.median(a / b for a, b in zip(before, now, strict=True))
        print(
            f"{kind:>4}: before {1000 * statistics.median(before):.1f} ms, now "
            f"{1000 * statistics.median(now):.1f} ms a unit: {ratio:.2f}x"
        )
    for name, rounds in costs.items():
        rest = {key: value for key, value in rounds[-1].items() if key not in ("cpu", "wall")}
        print(f"{name}: {', '.join(f'{key} {value:.6g}' for key, value in rest.items())}")


def main() -> None:
    """Compare two trees, or be one side of the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="The other working tree.")
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--preset", default="scenes_tiny")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--block", type=int, default=5, help="Units of work in a turn.")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--start", type=int, default=0, help="Number of the first step.")
    parser.add_argument("--batches", type=int, default=8, help="Batches to go round in.")
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    work(options) if options.side else compare(options)


if __name__ == "__main__":
    main()
