"""Resizing of maps: aligned bilinear upsampling, pooling, masks back to their image."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int32, Int64
from torch import Tensor


def aligned_bilinear(maps: Float[Tensor, "n c h w"], factor: int) -> Float[Tensor, "n c hf wf"]:
    """Upsampling in which input cell i lands on output cell ``factor i + factor // 2``.

    Output index j reads the input at clamp((j - factor // 2) / factor, 0, size - 1), linearly
    (condinst.md 3).  Neither of the two usual resizes does that; each use shifts the map by half
    a cell to the right and down.

    Raises:
        ValueError: a factor below 1.
    """
    if factor < 1:
        raise ValueError(f"the factor must be at least 1, got {factor}")
    if factor == 1:
        return maps
    if factor == 2:
        return _doubled(_doubled(maps, 3), 2)
    height, width = maps.shape[-2:]
    fine = F.interpolate(
        _repeated_edges(maps, before=0, behind=1),
        size=(factor * height + 1, factor * width + 1),
        mode="bilinear",
        align_corners=True,
    )
    fine = _repeated_edges(fine, before=factor // 2, behind=0)
    return fine[..., : factor * height, : factor * width]


def _repeated_edges(
    maps: Float[Tensor, "n c h w"], *, before: int, behind: int
) -> Float[Tensor, "n c h2 w2"]:
    """First and last row and column repeated; what replicate padding is, but for its backward.

    That one's result has other strides than torch.compile expects of it.
    """
    for dim in (2, 3):
        first = maps.narrow(dim, 0, 1)
        last = maps.narrow(dim, maps.shape[dim] - 1, 1)
        maps = torch.cat([*[first] * before, maps, *[last] * behind], dim=dim)
    return maps


def _doubled(maps: Float[Tensor, "n c h w"], dim: int) -> Float[Tensor, "n c h2 w2"]:
    """(x[j - 1] + x[j]) / 2 and x[j] in turns, x[-1] = x[0]: factor 2 along one axis."""
    first, rest = maps.narrow(dim, 0, 1), maps.narrow(dim, 0, maps.shape[dim] - 1)
    between = torch.lerp(torch.cat([first, rest], dim=dim), maps, 0.5)
    return torch.stack([between, maps], dim=dim + 1).flatten(dim, dim + 1)


def pooled(maps: Float[Tensor, "b c h w"], stride: int) -> Float[Tensor, "b c hm wm"]:
    """Mean of each ``stride`` x ``stride`` block."""
    return F.avg_pool2d(maps, stride)


def subsampled(maps: Tensor, stride: int) -> Tensor:
    """Every pixel (stride i + stride // 2, stride j + stride // 2) of the last two axes."""
    return maps[..., stride // 2 :: stride, stride // 2 :: stride]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearResize:
    """A resize of one axis as a banded matrix: every output reads a few neighbouring inputs."""

    weights: Float[Tensor, "out in"]
    first: tuple[int, ...]
    """First input that each output reads; ascending."""
    end: tuple[int, ...]
    """Last input that each output reads, plus 1; ascending."""

    def to(self, device: torch.device) -> "LinearResize":
        """The same resize on another device."""
        return replace(self, weights=self.weights.to(device))

    def reached(self, start: int, end: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(outputs that read an input of start..end, inputs that those read), as ranges."""
        if end <= start:
            return (0, 0), (0, 0)
        low = bisect_right(self.end, start)
        high = bisect_left(self.first, end)
        if high <= low:
            return (0, 0), (0, 0)
        return (low, high), (self.first[low], self.end[high - 1])

    def on_host(self) -> "HostResize":
        """The same without the zeros."""
        first, end = (torch.tensor(ends)[:, None] for ends in (self.first, self.end))
        taps = first + torch.arange(int((end - first).max()))
        index = torch.minimum(taps, end - 1)
        weight = self.weights.gather(1, index) * (taps < end)
        return HostResize(index=index.int().numpy(), weight=weight.numpy())


@dataclass(frozen=True, slots=True, kw_only=True)
class HostResize:
    """A `LinearResize` as the few entries of each output."""

    index: Int32[np.ndarray, "out k"]
    weight: Float32[np.ndarray, "out k"]

    def of_rows(
        self, values: Float32[np.ndarray, "n c"], outputs: tuple[int, int], *, start: int
    ) -> Float32[np.ndarray, "o c"]:
        """Some of the outputs, of the inputs from ``start`` on."""
        from scipy.sparse import csr_array  # here: who only looks at settings needs none of it

        index, weight = (part[slice(*outputs)] for part in (self.index, self.weight))
        ends = np.arange(0, index.size + 1, index.shape[1], dtype=np.int32)
        entries = (weight.ravel(), (index - np.int32(start)).ravel(), ends)
        band = csr_array(entries, shape=(len(index), len(values)))
        made: np.ndarray = band @ np.ascontiguousarray(values)
        return made


def mask_to_image(cells: int, *, stride: int, size: int, new_size: int) -> LinearResize:
    """Mask grid -> original image along one axis (condinst.md 5).

    Aligned bilinear by ``stride``, cut to the unpadded input's ``size``, then bilinear with half
    pixel centres to ``new_size``: the product of two matrices of two entries a row.
    """
    fine = torch.arange(size, dtype=torch.float64)
    aligned = _linear((fine - stride // 2) / stride, cells)
    pixel = torch.arange(new_size, dtype=torch.float64)
    left, right, fraction = _neighbours((pixel + 0.5) * (size / new_size) - 0.5, size)
    weights = (1 - fraction) * aligned[left] + fraction * aligned[right]
    used = weights > 0
    first = used.to(torch.uint8).argmax(dim=1)
    end = cells - used.flip(1).to(torch.uint8).argmax(dim=1)
    return LinearResize(
        weights=weights.float(), first=tuple(first.tolist()), end=tuple(end.tolist())
    )


def _linear(positions: Float[Tensor, " out"], size: int) -> Float[Tensor, "out size"]:
    """Linear interpolation at positions in input cells, clamped to the input."""
    left, right, fraction = _neighbours(positions, size)
    matrix = positions.new_zeros(len(positions), size)
    matrix.scatter_add_(1, left[:, None], 1 - fraction)
    return matrix.scatter_add_(1, right[:, None], fraction)


def _neighbours(
    positions: Float[Tensor, " out"], size: int
) -> tuple[Int64[Tensor, " out"], Int64[Tensor, " out"], Float[Tensor, "out 1"]]:
    """The inputs before and behind positions, clamped to the input, and the share of the second."""
    positions = positions.clamp(0, size - 1)
    left = positions.floor().long()
    return left, (left + 1).clamp(max=size - 1), (positions - left)[:, None]
