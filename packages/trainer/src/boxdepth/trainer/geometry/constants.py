"""Small constant tables that stay on the device: made from Python numbers once, not every step."""

import functools

import torch
from torch import Tensor


def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A float32 row of these numbers; nobody may write into it.

    A tensor made from a list is made on the host, and a device waits for its copy each time.
    """
    return _made(values, device, torch.is_inference_mode_enabled())


@functools.cache
def _made(values: tuple[float, ...], device: torch.device, inference: bool) -> Tensor:
    """Tensors of inference mode are a kind of their own: training could not use them."""
    return torch.tensor(values, dtype=torch.float32, device=device)
