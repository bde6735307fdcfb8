"""A make-believe accelerator: tensors that say they lie on a device, and note every wait for it.

A `Phantom` reports the device ``lazy:0`` and holds the CPU tensor that does the work.  It is as
picky as an accelerator: a tensor of the host may not be mixed in (a single number may), and what a
host would have to wait for is written down with the line that caused it.  It knows nothing of
kernels, half precision or speed.
"""

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

DEVICE = torch.device("lazy", 0)

WAITING = {
    "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount",
    "equal", "_local_scalar_dense", "is_nonzero", "nms", "histc",
}  # fmt: skip
"""Operators whose result the host reads, be it only for a size."""

INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}

ONE_KIND = {"cat", "stack", "mm", "bmm", "addmm", "baddbmm", "matmul", "convolution", "index_add_"}
"""Operators in which not even a single number of the host may stand beside a device's tensors."""


class DeviceMixError(RuntimeError):
    """A tensor of the host beside one of the device."""


class Ledger:
    """What the host waited for, by line of the product."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.blocking_copies: Counter[str] = Counter()


class Phantom(torch.Tensor):
    """A CPU tensor that passes for a device's."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Phantom":
        out: Phantom = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        out.inner = inner
        return out

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        _note(_ledger.waits)
        return self.detach().inner.tolist()

    def new_tensor(self, data: Any, **options: Any) -> torch.Tensor:
        _note(_ledger.blocking_copies)
        return Phantom(torch.as_tensor(data, dtype=options.get("dtype") or self.dtype))

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("a device's tensor has no numpy(): .cpu() it first")

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copy: torch.Tensor = Phantom(self.inner.detach().clone())
            if isinstance(self, nn.Parameter):
                copy = nn.Parameter(copy, self.requires_grad)
            memo[id(self)] = copy
        return memo[id(self)]


_ledger = Ledger()


class _Mode(TorchDispatchMode):
    """Factories and copies that name the device make phantoms."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Everything with ``device=DEVICE`` is a phantom inside; what was waited for."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    real_tensor, real_autocast = torch.tensor, torch.autocast

    def tensor(data: Any, *, dtype: Any = None, device: Any = None, **options: Any) -> Any:
        made = real_tensor(data, dtype=dtype, **options)
        return made if device is None else made.to(device)

    def autocast(device: str, **options: Any) -> Any:
        return nullcontext() if device == DEVICE.type else real_autocast(device, **options)

    monkeypatch.setattr(torch, "tensor", tensor)
    monkeypatch.setattr(torch, "autocast", autocast)
    _ledger.waits.clear()
    _ledger.blocking_copies.clear()
    try:
        with _Mode():
            yield _ledger
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    name = func._schema.name.split("::")[-1]
    flat, spec = tree_flatten((args, kwargs))
    phantoms = [x for x in flat if isinstance(x, Phantom)]
    device = kwargs.get("device")
    if name in ("_to_copy", "to"):
        return _copied(func, args, kwargs)
    if not phantoms and device != DEVICE:
        return func(*args, **kwargs)
    if name == "copy_":
        return _copied_into(*args[:2])
    _check(name, flat, args)
    _count(name, args, kwargs)
    args, kwargs = tree_unflatten([_plain(x) for x in flat], spec)
    out = func(*args, **kwargs)
    if func._schema.is_mutable:
        known = {id(x.inner): x for x in phantoms}
        return tree_map_only(torch.Tensor, lambda x: known.get(id(x), _wrapped(x)), out)
    if device is not None and torch.device(device) != DEVICE:
        return out
    return tree_map_only(torch.Tensor, _wrapped, out)


def _plain(x: Any) -> Any:
    if isinstance(x, Phantom):
        return x.inner
    return torch.device("cpu") if isinstance(x, torch.device) and x.type == DEVICE.type else x


def _wrapped(x: torch.Tensor) -> torch.Tensor:
    return x if isinstance(x, Phantom) else Phantom(x)


def _copied(func: Any, args: Any, kwargs: Any) -> Any:
    source, device = args[0], kwargs.get("device")
    here = isinstance(source, Phantom)
    there = here if device is None else torch.device(device).type == DEVICE.type
    if here and not there:
        _note(_ledger.waits)
    if there and not here and not kwargs.get("non_blocking"):
        _note(_ledger.blocking_copies)
    rest = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking", "pin_memory")}
    out = func(_plain(source), *args[1:], **rest)
    return _wrapped(out) if there else out


def _copied_into(target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    if isinstance(source, Phantom) and not isinstance(target, Phantom):
        _note(_ledger.waits)
    if isinstance(target, Phantom) and not isinstance(source, Phantom) and source.dim():
        _note(_ledger.blocking_copies)
    _plain(target).copy_(_plain(source))
    return target


def _check(name: str, flat: list[Any], args: Any) -> None:
    hosts = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, Phantom)]
    if not hosts:
        return
    if any(x.dim() for x in hosts) or name in ONE_KIND or name in INDEXING:
        raise DeviceMixError(f"{name}: tensors of host and device together at {_line()}")


def _count(name: str, args: Any, kwargs: Any) -> None:
    by_mask = name in INDEXING and any(
        x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
    )
    sized = kwargs.get("output_size") is not None
    if name in WAITING or by_mask or (name == "repeat_interleave" and not sized):
        _note(_ledger.waits)


def _note(counter: Counter[str]) -> None:
    counter[_line()] += 1


def _line() -> str:
    """The innermost line of the product."""
    ours = [f for f in traceback.extract_stack() if "/boxdepth/" in f.filename]
    return f"{ours[-1].filename.rsplit('/boxdepth/')[-1]}:{ours[-1].lineno}" if ours else "?"
