"""Data parallel training under torchrun; a process on its own is a world of one."""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among the others."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """True for the one process that writes files and talks."""
        return self.rank == 0


def world_from_environment() -> World:
    """What torchrun set, or a world of one."""
    return World(
        rank=int(os.environ.get("RANK", "0")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        size=int(os.environ.get("WORLD_SIZE", "1")),
    )


def shared(network: nn.Module, device: torch.device, world: World) -> nn.Module:
    """The network, with gradients that are means over all ranks."""
    if world.size == 1:
        return network
    ids = [device.index or 0] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)


@contextmanager
def process_group(world: World, device: torch.device, *, timeout: float = 3600) -> Iterator[None]:
    """Join the others (NCCL on CUDA, else gloo) for the length of the block.

    The timeout is long because the first rank evaluates alone while the others wait for it.
    """
    if world.size == 1:
        yield
        return
    _die_with_parent()
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", timeout=timedelta(seconds=timeout)
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def any_rank(flag: bool, device: torch.device) -> bool:
    """True on all ranks if true on one."""
    if not _together():
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a detached value over all ranks."""
    return sum_over_ranks(value) / dist.get_world_size() if _together() else value


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of a detached value over all ranks, on every one of them."""
    if not _together():
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


def barrier() -> None:
    """Wait for the others."""
    if _together():
        dist.barrier()


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


def _die_with_parent() -> None:
    """A killed torchrun must not leave its workers training on (Linux: PR_SET_PDEATHSIG)."""
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL) != 0:
        log.warning("cannot tie this process to its launcher (prctl failed)")
