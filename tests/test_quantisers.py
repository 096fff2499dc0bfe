"""Layers with quantisers of one's own: what they compute against sums that know nothing of the layers."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.arithmetic.convolution import decoded, look_up
from spaces.arithmetic.engines import quantise_loops as loops
from spaces.arithmetic.layers import ApproxConv2d, ApproxLinear
from spaces.arithmetic.quantise import Scale, quantise
from tests.convolutions import EXACT, ROUGH, loop_conv


def powers_of_two(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes 0, ±1, ±2, ±4 … ±64 for a weight whose largest value, of each output channel, has the code 64."""
    scale = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True) / 64
    exponent = torch.log2((weight / scale).abs().clamp_min(1e-9)).round()
    codes = torch.where(exponent < 0, 0.0, weight.sign() * 2**exponent)
    return (codes + 128).to(torch.uint8), scale.flatten()


class FourBits(nn.Module):
    """Activation codes from −7 to 7 of a step that never moves."""

    def forward(self, x: Tensor) -> Scale:  # noqa: ARG002
        return Scale(torch.tensor(0.5), -7, 7, 128)


def rounded_to_powers(weight: Tensor) -> Tensor:
    """By trying every power: the nearest in the exponent; what is nearer to 2^-1 than to 1 is zero."""
    found = torch.empty_like(weight, dtype=torch.float64)
    for row, out in zip(weight.double(), found):
        largest = row.abs().max()
        for value, at in zip(row.flatten(), range(row.numel())):
            size = abs(float(value)) / float(largest) * 64
            power = min(range(-40, 7), key=lambda p: abs(p - torch.log2(torch.tensor(size)).item()))
            out.view(-1)[at] = 0.0 if power < 0 else (1 if value > 0 else -1) * 2.0**power * largest / 64
    return found


@pytest.fixture
def x() -> Tensor:
    return 3 * torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(1))


def seeded(layer: type, *sizes: int, **named) -> nn.Module:
    torch.manual_seed(2)
    return layer(*sizes, **named)


def test_weights_that_are_powers_of_two(x):
    layer = seeded(ApproxConv2d, 4, 3, 3, padding=1, stride=2, multiplier=EXACT, weight_quant=powers_of_two).eval()
    step = x.abs().max().double() / 127
    seen = (x.double() / step).round() * step
    expected = F.conv2d(seen, rounded_to_powers(layer.weight.detach()), layer.bias.double(), stride=2, padding=1)
    assert torch.allclose(layer(x).double(), expected, rtol=1e-5, atol=1e-5)
    plain = seeded(ApproxConv2d, 4, 3, 3, padding=1, stride=2, multiplier=EXACT).eval()
    assert not torch.allclose(plain(x), layer(x), rtol=1e-3, atol=1e-3)


def test_activations_of_four_bits_through_a_table(x):
    layer = seeded(ApproxConv2d, 4, 3, 3, multiplier=ROUGH, weight_quant=powers_of_two, activation_quant=FourBits())
    index, scale = powers_of_two(layer.weight.detach())
    codes = (x / 0.5).round().clamp(-7, 7).to(torch.int64)
    w_codes = index.numpy().astype(int) - 128
    sums = loop_conv(codes.numpy(), w_codes, ROUGH, (1, 1), (0, 0), (1, 1), 1)
    expected = torch.from_numpy(sums).double() * 0.5 * scale.double().view(-1, 1, 1) + layer.bias.double().view(
        -1, 1, 1
    )
    assert torch.allclose(layer(x).double(), expected, rtol=1e-5, atol=1e-5)


def test_gradients_pass_straight_through(x):
    layer = seeded(ApproxConv2d, 4, 3, 3, multiplier=EXACT, weight_quant=powers_of_two, activation_quant=FourBits())
    x.requires_grad_()
    layer(x).sum().backward()
    seen = ((x / 0.5).round().clamp(-7, 7) * 0.5).detach().requires_grad_()
    weight = rounded_to_powers(layer.weight.detach()).float().requires_grad_()
    F.conv2d(seen, weight).sum().backward()
    assert torch.allclose(layer.weight.grad, weight.grad, rtol=1e-4, atol=1e-4)
    inside = (x / 0.5).round().abs() <= 7
    assert inside.any() and not inside.all()
    assert torch.allclose(x.grad, seen.grad * inside, rtol=1e-4, atol=1e-4)


def test_a_linear_layer_and_its_copy(x):
    layer = seeded(ApproxLinear, 6, 3, multiplier=EXACT, weight_quant=powers_of_two, activation_quant=FourBits()).eval()
    seen = (x.double() / 0.5).round().clamp(-7, 7) * 0.5
    expected = F.linear(seen, rounded_to_powers(layer.weight.detach()), layer.bias.double())
    for one in (layer, copy.deepcopy(layer)):
        assert torch.allclose(one(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000, 4096, 32768, 70001])
@pytest.mark.parametrize("special", ["usual", "clamped", "NaN", "both"])
def test_codes_and_flags_are_those_of_the_formula(size, special):
    """Lines of 64 numbers and what is left over: clamp(round(x / step), low, high) + zero, with halves to the even code."""
    rng = np.random.default_rng(size)
    x = (rng.integers(-60, 60, size) / 2 * 0.25).astype(np.float32)  # ties among them
    if special in ("clamped", "both"):
        x[rng.integers(size)] = rng.choice([-500.0, np.inf])
    if special in ("NaN", "both"):
        x[rng.integers(size)] = np.nan
    codes, nan = np.rint(x / np.float32(0.25)), np.isnan(x)
    outside = (codes < -100) | (codes > 20)
    out = torch.empty(size, dtype=torch.uint8)
    flags = loops.quantise(torch.from_numpy(x), 0.25, -100, 20, 100, out)
    assert flags == loops.CLAMPED * outside.any() | loops.NAN * nan.any()
    assert np.array_equal(out.numpy(), np.where(nan, 0, np.clip(codes, -100, 20)) + 100)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 1, 7), (2, 8, 9, 8), (5, 7, 41, 50)])
@pytest.mark.parametrize("threads", [1, 2])
def test_values_in_the_place_of_codes_are_those_of_the_table(shape, threads):
    """Bit for bit, in either order of memory: in lines of 64 and blocks, and what is left over."""
    index, values = (
        torch.randint(0, 256, shape, dtype=torch.uint8),
        torch.randn(256) * 10.0 ** torch.randint(-9, 9, (256,)),
    )
    values[7], scale = torch.nan, torch.rand(shape[0])
    expected = values[index.int()]
    torch.set_num_threads(threads)
    try:
        for held in (index, index.contiguous(memory_format=torch.channels_last)):
            assert torch.equal(look_up(held, values).view(torch.int32), expected.view(torch.int32))
        got = decoded(index, values, scale)
        assert torch.equal(got.view(torch.int32), (expected * scale.view(-1, 1, 1, 1)).view(torch.int32))
    finally:
        torch.set_num_threads(1)


def test_the_step_of_a_number_is_that_of_a_tensor():
    for maximum in (0.0, 1e-45, 1e-33, 0.3, 127.0, 1e38, float("inf"), float("nan"), *torch.rand(200).tolist()):
        scale, expected = Scale.of_maximum(maximum), Scale.symmetric(torch.tensor(maximum))
        assert torch.equal(scale.step.view(torch.int32), expected.step.view(torch.int32))
        assert scale.number == expected.number or maximum != maximum


@pytest.mark.parametrize("size", [10, 70001])
def test_bounds_may_be_tensors_of_one(size):
    x, bounds = torch.linspace(-2, 2, size), (torch.tensor(-7), torch.tensor(7))
    found = quantise(x, Scale(torch.tensor(0.1), *bounds, 128))
    assert torch.equal(found.index, quantise(x, Scale(torch.tensor(0.1), -7, 7, 128)).index)
    assert found.index.min() == 121 and found.index.max() == 135
