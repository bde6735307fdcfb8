"""Group norm by whole rows beside torch's own in double precision."""

import copy

import pytest
import torch
from torch import nn

from boxdepth.trainer.model.group_norm import GroupNorm, reads_whole_rows


def channels_last(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    maps = torch.randn(shape).mul(3).add(torch.linspace(-2, 2, shape[1])[:, None, None])
    return maps.to(dtype).contiguous(memory_format=torch.channels_last)


def learnt(groups: int, channels: int) -> GroupNorm:
    norm = GroupNorm(groups, channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def torchs(norm: GroupNorm) -> nn.GroupNorm:
    plain = nn.GroupNorm(norm.num_groups, norm.num_channels)
    plain.load_state_dict(norm.state_dict())
    return plain


def with_gradients(norm: nn.Module, x: torch.Tensor, up: torch.Tensor) -> list[torch.Tensor]:
    """Output, and the gradients of input, weight and bias."""
    norm, x = copy.deepcopy(norm), x.detach().requires_grad_()
    y = norm(x)
    y.backward(up.to(y.dtype))
    assert x.grad is not None
    return [y.detach(), x.grad, *(parameter.grad for parameter in norm.parameters())]  # type: ignore[list-item]


@pytest.mark.parametrize(
    "shape", [(3, 64, 10, 12), (1, 96, 31, 33), (2, 32, 25, 4), (2, 64, 32, 40)]
)
@pytest.mark.parametrize("groups", [32, 8])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_group_norm_and_so_are_its_gradients(
    shape: tuple[int, int, int, int], groups: int, dtype: torch.dtype
) -> None:
    """Only the result is rounded to half precision, the statistics and their gradients aren't."""
    torch.manual_seed(0)
    norm, x = learnt(groups, shape[1]), channels_last(*shape, dtype=dtype)
    up = torch.randn(shape).to(dtype)
    assert reads_whole_rows(x)
    with torch.autocast("cpu", dtype):
        ours = with_gradients(norm, x, up)
    exact = with_gradients(torchs(norm).double(), x.double(), up.double())
    half, whole = torch.finfo(dtype).eps, 1e-5
    for found, expected, rounding in zip(ours, exact, (half, half, whole, whole), strict=True):
        largest = expected.abs().max()
        assert (found.double() - expected).abs().max() <= rounding * largest
    assert [part.dtype for part in ours] == [dtype, dtype, torch.float32, torch.float32]
    assert ours[0].stride() == ours[1].stride() == x.stride()


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2, 64, 12, 12).bfloat16(),  # channels first
        channels_last(2, 64, 12, 12, dtype=torch.float32),
        channels_last(2, 64, 3, 4),  # tiny
        channels_last(1, 64, 1, 1),  # both layouts at once
    ],
)
def test_elsewhere_it_is_torchs_own(x: torch.Tensor) -> None:
    norm = learnt(32, 64)
    assert not reads_whole_rows(x)
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        assert torch.equal(norm(x), torchs(norm)(x))


def test_a_network_that_is_all_in_half_precision_has_its_gradients_so() -> None:
    torch.manual_seed(0)
    norm, x = learnt(8, 64).bfloat16(), channels_last(2, 64, 12, 12)
    ours = with_gradients(norm, x, torch.ones_like(x))
    assert {part.dtype for part in ours} == {torch.bfloat16}


def test_a_constant_map_becomes_its_bias() -> None:
    norm = learnt(32, 64)
    x = torch.full((1, 64, 12, 12), 1.5, dtype=torch.bfloat16)
    y = norm(x.contiguous(memory_format=torch.channels_last))
    expected = norm.bias[None, :, None, None].expand_as(y)
    torch.testing.assert_close(y.float(), expected, rtol=torch.finfo(y.dtype).eps, atol=1e-3)
