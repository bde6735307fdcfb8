"""The device that a person means."""

from typing import Literal

import torch

from boxdepth.trainer.errors import ConfigError

EXPECTED = "expected auto, cpu, cuda, cuda:N or mps"


def choose_device(name: str, *, local_rank: int = 0) -> torch.device:
    """``auto`` (CUDA if there is one), ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` as a device.

    Args:
        local_rank: the device that ``cuda`` without a number means.

    Raises:
        ConfigError: no such device, or none here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}: {EXPECTED}") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"device {name!r}: this machine (or this torch) has no CUDA")
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        torch.cuda.set_device(device)
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device 'mps': this machine (or this torch) has no MPS")
    elif device.type not in ("cpu", "mps"):
        raise ConfigError(f"device {name!r}: {EXPECTED}")
    return device


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16; without them it is no gain."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    told = torch.cpu.get_capabilities()
    return any(bool(there) for name, there in told.items() if name.endswith("bf16"))


def fitting_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """What ``auto`` means on a device: as good in either, faster in bf16 where it multiplies it."""
    return "bf16" if multiplies_bf16(device) else "fp32"
