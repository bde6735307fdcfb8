"""The fast form of group norm beside torch's own."""

import copy

import pytest
import torch
from torch import nn

from boxdepth.trainer.model import group_norm
from boxdepth.trainer.model.group_norm import GroupNorm


def channels_last(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    maps = torch.randn(shape).mul(3).add(torch.linspace(-2, 2, shape[1])[:, None, None])
    return maps.to(dtype).contiguous(memory_format=torch.channels_last)


def with_gradients(norm: nn.Module, x: torch.Tensor, up: torch.Tensor) -> list[torch.Tensor]:
    """Output, and the gradients of input, weight and bias."""
    norm, x = copy.deepcopy(norm), x.detach().requires_grad_()
    y = norm(x)
    (y.float() * up).sum().backward()
    assert x.grad is not None
    return [y, x.grad, *(parameter.grad for parameter in norm.parameters())]  # type: ignore[list-item]


def learnt(groups: int, channels: int) -> GroupNorm:
    norm = GroupNorm(groups, channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("shape", [(3, 64, 10, 12), (1, 96, 31, 33), (2, 32, 25, 4)])
@pytest.mark.parametrize("groups", [32, 16])
def test_both_forms_say_the_same_and_have_the_same_gradients(
    shape: tuple[int, int, int, int], groups: int
) -> None:
    torch.manual_seed(0)
    norm, x = learnt(groups, shape[1]), channels_last(*shape)
    assert norm._reads_narrowly(x)
    up = torch.randn(shape)
    plain = nn.GroupNorm(groups, shape[1])
    plain.load_state_dict(norm.state_dict())
    exact = with_gradients(plain.double(), x.double(), up.double())
    for ours, expected in zip(with_gradients(norm, x, up), exact, strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-4)
        assert ours.stride() == expected.stride()


def test_in_half_precision_statistics_stay_whole() -> None:
    torch.manual_seed(0)
    norm, x = learnt(8, 64), channels_last(2, 64, 20, 16, dtype=torch.bfloat16)
    assert norm._reads_narrowly(x)
    assert not norm._reads_narrowly(x.float())  # groups of eight fill a register
    up = torch.randn(x.shape).bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16):
        ours = with_gradients(norm, x, up)
    exact = with_gradients(nn.GroupNorm.forward.__get__(norm) and _plain(norm), x.float(), up)
    assert [part.dtype for part in ours] == [torch.bfloat16] * 2 + [torch.float32] * 2
    for found, expected in zip(ours, exact, strict=True):
        scale = expected.abs().max()
        assert ((found.float() - expected).abs().max() / scale) < 2**-7


def _plain(norm: GroupNorm) -> nn.GroupNorm:
    plain = nn.GroupNorm(norm.num_groups, norm.num_channels)
    plain.load_state_dict(norm.state_dict())
    return plain


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2, 64, 12, 12),  # channels first
        channels_last(2, 64, 32, 32),  # large
        channels_last(2, 64, 3, 4),  # tiny
        channels_last(1, 64, 1, 1),  # both layouts at once
    ],
)
def test_elsewhere_it_is_torchs_own(x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_norm, "_WholeRows", None)
    norm = learnt(32, 64)
    assert torch.equal(norm(x), _plain(norm)(x))


def test_a_constant_map_is_its_bias() -> None:
    norm = learnt(32, 64)
    x = torch.full((1, 64, 12, 12), 100.0).contiguous(memory_format=torch.channels_last)
    expected = norm.bias[None, :, None, None].expand_as(x)
    torch.testing.assert_close(norm(x), expected, rtol=0, atol=0.5)
