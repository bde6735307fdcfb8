"""Reading weights of other people's making without running their code."""

import io
import pickle  # noqa: TID251 - only behind _Reader, which makes arrays and plain values
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from boxdepth.trainer.errors import WeightsError

WRAPPERS = ("model", "state_dict", "model_state", "module", "blobs")
"""Keys under which frameworks keep the tensors of a checkpoint."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, by the name they have in it.

    Reads safetensors, PyTorch files of tensors and plain values, and detectron2's ``.pkl`` of
    NumPy arrays.

    Raises:
        WeightsError: the file is missing, damaged, empty, or holds anything else.
    """
    if not path.is_file():
        raise WeightsError(f"no weights file at {path}")
    content = _content(path)
    for key in WRAPPERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = {
        str(name): torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
        for name, value in content.items()
        if isinstance(value, Tensor | np.ndarray)
    }
    if not tensors:
        raise WeightsError(
            f"{path} holds no tensors, seen: {', '.join(map(str, content)) or 'nothing'}"
        )
    return tensors


def check_finite(tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse weights and statistics that are NaN or infinite, by name.

    One such number in a norm's statistics trains as if nothing were wrong, and every evaluation
    and every checkpoint after it is worthless.

    Args:
        source: the file or folder that they came from.

    Raises:
        WeightsError: names the tensors.
    """
    bad = [
        f"{name} ({count} of {tensor.numel()} values)"
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and (count := int((~tensor.isfinite()).sum()))
    ]
    if bad:
        raise WeightsError(
            f"{source}: NaN or infinite values in {len(bad)} of {len(tensors)} tensors: "
            f"{shortened(bad)}; expected finite weights and statistics: take another copy of the "
            "file, or a checkpoint from before they were spoilt"
        )


def shortened(names: Sequence[str], limit: int = 6) -> str:
    """The first few of a list, and how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names) - limit} more)"


def _content(path: Path) -> Mapping[str, Any]:
    readers: dict[str, Callable[[Path], Any]] = {
        ".safetensors": load_file,
        ".pkl": _read_pickled_arrays,
    }
    reader = readers.get(path.suffix, _read_torch)
    try:
        content = reader(path)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        ImportError,
        UnicodeDecodeError,
    ) as error:
        reason = read_failure(error)
        raise WeightsError(
            f"{path} is damaged or holds more than tensors and plain values ({reason}); "
            "expected safetensors, a PyTorch state dict or a detectron2 .pkl of arrays"
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, expected named tensors")
    return content


def read_failure(error: Exception) -> str:
    """What a reader of weights found, in one line; torch's own first line advises to run it."""
    asked = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
    if asked:
        return f"it asks for {asked[1]}"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_pickled_arrays(path: Path) -> Any:
    return _Reader(io.BytesIO(path.read_bytes())).load()


class _Reader(pickle.Unpickler):
    """Knows arrays, their types and plain containers; every other name in a pickle is refused."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may call."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if module in {"numpy.core.multiarray", "numpy._core.multiarray"} and name in {
            "_reconstruct",
            "scalar",
        }:
            return getattr(np._core.multiarray, name)  # type: ignore[attr-defined]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 2 arrays keep their bytes in a Python 3 pickle."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin1")
