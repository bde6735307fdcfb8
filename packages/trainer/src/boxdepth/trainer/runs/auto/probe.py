"""A real step on the fullest images: what it takes, in seconds and in memory."""

import gc
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from boxdepth.trainer import build
from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.data.collate import collate
from boxdepth.trainer.data.store_dataset import TrainingSet
from boxdepth.trainer.engine.distributed import World
from boxdepth.trainer.engine.health import NonFiniteGuard
from boxdepth.trainer.engine.update import Learner, learn_step
from boxdepth.trainer.errors import MachineError
from boxdepth.trainer.structures import Batch

HEAD_ROOM = 0.8
"""Share of the memory that a step may take: other batches are fuller, and fragments cost."""
TIMED = 2
"""Steps whose time is taken, after one that warms up."""


class DoesNotFitError(MachineError):
    """Not even one image a forward pass fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a step takes on this machine, as the run would make it."""

    accumulate: int
    """Forward passes that a step needs to fit into memory."""
    seconds_per_step: float
    peak_bytes: int
    """Of the device; of the process on a CPU."""
    memory_bytes: int
    """What there is."""


def probe(config: RunConfig, dataset: TrainingSet, device: torch.device) -> Probe:
    """Make real steps (forward, backward, optimiser) on the images that need the most.

    The batch stays what the config says, so that the run is the same on every machine; where it
    does not fit at once, it is divided into passes. Nothing of it is kept.

    Raises:
        DoesNotFitError: one image a pass takes more than there is.
    """
    learner = build.build_learner(config, device, World())
    size, memory = config.data.batch_size, memory_of(device)
    samples = _fullest(dataset, size)
    need = _need_on_cpu(learner, dataset, samples[0], config) if device.type == "cpu" else None
    for accumulate in _divisors(size):
        passes = _passes(dataset, samples, accumulate)
        if need is not None and need(size // accumulate) > HEAD_ROOM * memory and passes[0][1:]:
            continue
        try:
            seconds, peak = _timed(
                learner, [collate_rows(dataset, rows) for rows in passes], config
            )
        except torch.OutOfMemoryError:
            learner.optimizer.zero_grad(set_to_none=True)
            gc.collect()
            torch.cuda.empty_cache()
            continue
        if peak <= HEAD_ROOM * memory or device.type == "cpu":
            return Probe(
                accumulate=accumulate, seconds_per_step=seconds, peak_bytes=peak,
                memory_bytes=memory,
            )  # fmt: skip
    raise DoesNotFitError(
        f"one image a forward pass takes more than {HEAD_ROOM:.0%} of {memory / 2**30:.1f} GiB: "
        "lower data.augmentation.short_sides, or choose a smaller backbone (--set)"
    )


def collate_rows(dataset: TrainingSet, rows: list[int]) -> Batch:
    """A batch of these samples, as they look in the first epoch."""
    return collate([dataset.load(row, epoch=0) for row in rows])


def _divisors(number: int) -> list[int]:
    return [k for k in range(1, number + 1) if number % k == 0]


def _fullest(dataset: TrainingSet, count: int) -> list[int]:
    """Samples with the most boxes, and the longest among those: what takes the most memory."""
    store, rows = dataset.store, dataset.rows
    boxes = dataset.box_counts
    sizes = store.image_sizes[rows]
    ratio = sizes.max(axis=1) / sizes.min(axis=1)
    order = np.lexsort((-ratio, -boxes))
    return [int(order[k % len(order)]) for k in range(count)]


def _passes(dataset: TrainingSet, samples: list[int], accumulate: int) -> list[list[int]]:
    each = len(samples) // accumulate
    return [samples[k * each : (k + 1) * each] for k in range(accumulate)]


def _timed(learner: Learner, passes: list[Batch], config: RunConfig) -> tuple[float, int]:
    """(seconds of a step, peak bytes): at the end of the schedule, where every term is active."""
    step, on_gpu = config.schedule.iterations - 1, learner.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(learner.device)
    taken: list[float] = []
    for _ in range(TIMED + 1):
        began = time.perf_counter()
        learn_step(learner, step, passes, guard=NonFiniteGuard())
        if on_gpu:
            torch.cuda.synchronize(learner.device)
        taken.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_reserved(learner.device) if on_gpu else _resident_bytes()
    return min(taken[1:]), peak


def _need_on_cpu(
    learner: Learner, dataset: TrainingSet, sample: int, config: RunConfig
) -> Callable[[int], float]:
    """Bytes that so many images a pass should take, from a step on one: out of memory is the end
    of a process there, and can't be tried."""
    before = _resident_bytes()
    _timed(learner, [collate_rows(dataset, [sample])], config)
    growth = _resident_bytes() - before
    return lambda images: before + growth * images


def memory_of(device: torch.device) -> int:
    """Bytes: free ones of a GPU, all that the machine has on a CPU."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return _physical_bytes()


def _physical_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 1 << 62


def _resident_bytes() -> int:
    """The most memory that this process has held."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
