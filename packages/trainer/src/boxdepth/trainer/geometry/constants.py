"""Small constant tables that stay on the device: made from Python numbers once, not every step."""

import functools

import torch
from torch import Tensor


@functools.cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A float32 row of these numbers; nobody may write into it.

    A tensor made from a list is made on the host, and a device waits for its copy each time.
    """
    with torch.inference_mode(False):  # or it could never be used in training
        return torch.tensor(values, dtype=torch.float32, device=device)
