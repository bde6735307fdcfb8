"""Which samples make batch i, and loading the next batches ahead in threads.

The order is a pure function of (seed, batch number): nothing to save, nothing a worker or a
restart could change. Threads, not processes: decoding releases the interpreter lock, nothing has
to be pickled, and no worker can be left behind.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import lru_cache
from threading import Barrier
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Int64

from boxdepth.depthgen.store import DataError
from boxdepth.trainer.data.collate import collate
from boxdepth.trainer.data.rules import Data
from boxdepth.trainer.data.store_dataset import TrainingSet
from boxdepth.trainer.structures import Batch

ORDER_STREAM = 1
"""Keeps the random numbers of the order apart from those of the augmentation."""
MAX_BLOCK = 64
"""Batches among which images are exchanged to bring equal aspects together."""
IN_THE_MAIN_THREAD = Data(workers=0)


class SampleKey(NamedTuple):
    """A sample at a point of the run."""

    epoch: int
    sample: int


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchOrder:
    """The endless sequence of batches: epoch after epoch, each sample exactly once in each.

    Batches run across the border of two epochs. With ``landscape`` given, the samples of a block
    of batches are exchanged among them so that all but at most one hold a single aspect. An order
    equals itself alone: its last blocks are remembered by it.
    """

    samples: int
    batch_size: int
    seed: int
    landscape: Bool[np.ndarray, " n"] | None = None

    def keys(self, batch: int) -> tuple[SampleKey, ...]:
        """The samples of batch number ``batch`` (0-based)."""
        if self.landscape is None:
            first = batch * self.batch_size
            return tuple(self.key(first + k) for k in range(self.batch_size))
        length = min(MAX_BLOCK, max(self.samples // self.batch_size, 1))
        block, number = divmod(batch, length)
        return _block(self, block, length)[number]

    def key(self, position: int) -> SampleKey:
        """The sample at a place of the endless sequence."""
        epoch, place = divmod(position, self.samples)
        return SampleKey(epoch, int(_permutation(self.seed, epoch, self.samples)[place]))


@lru_cache(maxsize=4)  # an epoch's border and the threads that load ahead need the neighbours
def _permutation(seed: int, epoch: int, samples: int) -> Int64[np.ndarray, " n"]:
    """The order of an epoch."""
    return np.random.default_rng([seed, ORDER_STREAM, 0, epoch]).permutation(samples)


@lru_cache(maxsize=4)
def _block(order: BatchOrder, block: int, length: int) -> tuple[tuple[SampleKey, ...], ...]:
    """The ``length`` batches of a block, equal aspects together, in an order of their own."""
    size, landscape = order.batch_size, order.landscape
    assert landscape is not None
    first = block * length * size
    keys = [order.key(first + k) for k in range(length * size)]
    by_aspect = sorted(keys, key=lambda key: bool(landscape[key.sample]))
    shuffled = np.random.default_rng([order.seed, ORDER_STREAM, 1, block]).permutation(length)
    return tuple(tuple(by_aspect[n * size : (n + 1) * size]) for n in shuffled.tolist())


def _loader_threads(workers: int) -> ThreadPoolExecutor:
    """A pool whose threads work alone, without a team of OpenMP threads each.

    With more teams than cores libgomp puts waiting threads to sleep at once, those of the model
    too, and a training step on two cores takes 1.6 times as long (docs/lab-log.md).
    """
    together = torch.backends.openmp.is_available()  # type: ignore[no-untyped-call]
    pool = ThreadPoolExecutor(
        workers, thread_name_prefix="loader", initializer=_work_alone if together else None
    )
    if together:
        threads, started = torch.get_num_threads(), Barrier(workers + 1)
        try:
            for _ in range(workers):
                pool.submit(started.wait)
            started.wait()
        except BaseException:
            started.abort()
            raise
        torch.set_num_threads(threads)  # of this thread again: MKL has one number for all
    return pool


def _work_alone() -> None:
    torch.get_num_threads()  # else torch settles it at this thread's first operation
    torch.set_num_threads(1)


def load_batch(dataset: TrainingSet, keys: tuple[SampleKey, ...]) -> Batch:
    """Load and pad the samples of one forward pass."""
    return collate([dataset.load(key.sample, epoch=key.epoch) for key in keys])


@final
class BatchLoader:
    """Batches of one rank in order, from any batch on, ``workers`` threads ahead of the model."""

    def __init__(
        self,
        dataset: TrainingSet,
        order: BatchOrder,
        settings: Data = IN_THE_MAIN_THREAD,
        *,
        rank: int = 0,
        world: int = 1,
        pin_memory: bool = False,
    ) -> None:
        parts = world * settings.accumulate
        if order.batch_size % parts:
            raise ValueError(
                f"a batch of {order.batch_size} images can't be divided over {world} ranks with "
                f"{settings.accumulate} accumulation steps; give a batch size that is a multiple "
                f"of {parts}"
            )
        self._dataset, self._order = dataset, order
        self._rank, self._world, self._settings = rank, world, settings
        self._pin_memory = pin_memory

    def keys(self, batch: int) -> tuple[tuple[SampleKey, ...], ...]:
        """The samples of each forward pass of this rank in step ``batch``."""
        mine = self._order.keys(batch)[self._rank :: self._world]
        size = len(mine) // self._settings.accumulate
        return tuple(mine[k * size : (k + 1) * size] for k in range(self._settings.accumulate))

    def steps(self, start: int, stop: int) -> Iterator[tuple[Batch, ...]]:
        """The forward passes of steps ``start`` .. ``stop - 1``.

        Raises:
            DataError: a sample can't be loaded, or takes longer than the timeout.
        """
        if self._settings.workers == 0:
            for step in range(start, stop):
                yield tuple(self._load(keys) for keys in self.keys(step))
            return
        pool = _loader_threads(self._settings.workers)
        try:
            yield from self._ahead(pool, start, stop)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ahead(
        self, pool: ThreadPoolExecutor, start: int, stop: int
    ) -> Iterator[tuple[Batch, ...]]:
        pending: deque[tuple[Future[Batch], ...]] = deque()
        upcoming = start
        for step in range(start, stop):
            while upcoming < stop and len(pending) <= self._settings.workers + 1:
                passes = self.keys(upcoming)
                pending.append(tuple(pool.submit(self._load, k) for k in passes))
                upcoming += 1
            yield tuple(self._wait(future, step) for future in pending.popleft())

    def _load(self, keys: tuple[SampleKey, ...]) -> Batch:
        batch = load_batch(self._dataset, keys)
        return batch.pinned() if self._pin_memory else batch

    def _wait(self, future: Future[Batch], step: int) -> Batch:
        try:
            return future.result(self._settings.timeout_seconds)
        except FutureTimeout:
            ids = [self._dataset.image_id(k.sample) for keys in self.keys(step) for k in keys]
            raise DataError(
                f"{self._dataset.store.path}: images {ids} were not loaded within "
                f"{self._settings.timeout_seconds} s; is the disk or the network stuck? "
                "(--set data.timeout_seconds=N waits longer)"
            ) from None
