"""Gradients that know the circuit, unsigned layers, and the compensation of a circuit's mean error."""

from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spaces.arithmetic import gradients
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.gradients import (
    convolution_gradients,
    gradient_factors,
    regression_slopes,
    smoothed_differences,
)
from spaces.arithmetic.layers import ApproxConv2d, ApproxLinear
from spaces.arithmetic.mixture import MultiplierChoice, MultiplierMixture
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier
from spaces.multipliers.products import layer_table
from tests.convolutions import EXACT, FULL_RANK, LIBRARY, ROUGH, UNSIGNED, ZERO_ROW, loop_conv

_RNG = np.random.default_rng(5)
NOISY = Multiplier(  # an unsigned circuit with errors everywhere, also for zero operands
    name="noisy",
    signed=False,
    table=np.multiply.outer(np.arange(256), np.arange(256)) + _RNG.integers(-90, 91, (256, 256)),
)


# -- tables ------------------------------------------------------------------------------------------------------------


def test_slopes_are_those_of_a_least_squares_fit():
    table = layer_table(NOISY).table.astype(np.float64)
    expected = np.polyfit(np.arange(256), table, deg=1)[0]
    assert np.allclose(regression_slopes(table), expected)
    exact = gradient_factors(layer_table(EXACT), "slope")
    assert np.allclose(exact.a_right[0], np.arange(-128, 128)) and np.allclose(exact.b_left[:, 0], np.arange(-128, 128))


def test_smoothed_differences_by_hand():
    entries = np.zeros((256, 1))
    entries[100] = 9.0
    got = smoothed_differences(entries, reach=1)[:, 0]
    # The moving average is 3 at rows 99, 100 and 101, so central differences are 1.5 on the way up and −1.5 down.
    expected = np.zeros(256)
    expected[[98, 99, 101, 102]] = 1.5, 1.5, -1.5, -1.5
    assert np.allclose(got, expected)
    line = np.arange(256.0)[:, None] * [2.0, -3.0] + 7
    for reach in (0, 1, 4):
        assert np.allclose(smoothed_differences(line, reach), [2.0, -3.0])


@pytest.mark.parametrize(
    "multiplier", [EXACT, ROUGH, ZERO_ROW, UNSIGNED, NOISY], ids=lambda multiplier: multiplier.name
)
def test_factors_of_gradients_leave_little_out(multiplier):
    table = layer_table(multiplier)
    factors = gradient_factors(table, "difference")
    for axis, left, right in ((0, factors.a_left, factors.a_right), (1, factors.b_left, factors.b_right)):
        entries = table.table.astype(np.float64)
        expected = smoothed_differences(entries) if axis == 0 else smoothed_differences(entries.T).T
        assert np.linalg.norm(left @ right - expected) <= 0.01 * np.linalg.norm(expected) * (1 + 1e-5)


def test_all_gradients_of_the_exact_multiplier_are_straight_through():
    torch.manual_seed(3)
    x, grads = torch.randn(2, 4, 7, 6), []
    weight = torch.randn(6, 4, 3, 3)
    for method in ("straight-through", "slope", "difference"):
        layer = ApproxConv2d(4, 6, 3, padding=1, bias=False, multiplier=EXACT, gradient=method)
        with torch.no_grad():
            layer.weight.copy_(weight)
        leaf = x.clone().requires_grad_()
        layer(leaf).pow(2).sum().backward()
        grads.append((leaf.grad, layer.weight.grad))
    for grad_x, grad_w in grads[1:]:
        assert torch.allclose(grad_x, grads[0][0], rtol=1e-3, atol=1e-3 * grads[0][0].abs().max().item())
        assert torch.allclose(grad_w, grads[0][1], rtol=1e-3, atol=1e-3 * grads[0][1].abs().max().item())


@pytest.mark.parametrize("multiplier", [ROUGH, NOISY], ids=lambda multiplier: multiplier.name)
@pytest.mark.parametrize("method", ["straight-through", "slope", "difference"])
def test_gradients_of_a_linear_layer_equal_a_loop(method, multiplier):
    """∂y/∂x = s_w ∂T/∂a and ∂y/∂w = s_x (∂T/∂b − z), product by product, with tables made here."""
    layer, x = ApproxLinear(5, 3, bias=False, multiplier=multiplier, gradient=method), torch.randn(2, 5)
    leaf, seed = x.clone().requires_grad_(), torch.randn(2, 3)
    (layer(leaf) * seed).sum().backward()
    table = layer_table(multiplier)
    entries = table.table.astype(np.float64)
    if method == "straight-through":
        by_a, by_b = np.tile(table.b_values, (256, 1)), np.tile(table.a_values[:, None], 256)
    elif method == "slope":
        by_a = np.tile(np.polyfit(np.arange(256), entries, 1)[0], (256, 1))
        by_b = np.tile(np.polyfit(np.arange(256), entries.T, 1)[0][:, None], 256)
    else:
        factors = gradient_factors(table, method)  # how close these are is the test above
        by_a, by_b = factors.a_left @ factors.a_right, factors.b_left @ factors.b_right
    a, s_x, zero_point = quantised(x, multiplier.signed)
    s_w = layer.weight.detach().abs().amax(dim=1) / 127
    b = torch.round(layer.weight.detach() / s_w[:, None]).long()
    grad_x, grad_w = torch.zeros(2, 5), torch.zeros(3, 5)
    for n, i, o in np.ndindex(2, 5, 3):
        row, column = int(a[n, i]) - table.a_lo, int(b[o, i]) - table.b_lo
        grad_x[n, i] += seed[n, o] * s_w[o] * float(by_a[row, column])
        grad_w[o, i] += seed[n, o] * s_x * (float(by_b[row, column]) - zero_point)
    assert torch.allclose(leaf.grad, grad_x, rtol=1e-4, atol=1e-5 * grad_x.abs().max().item())
    assert torch.allclose(layer.weight.grad, grad_w, rtol=1e-4, atol=1e-4 * grad_w.abs().max().item())


@pytest.mark.parametrize("multiplier", [ROUGH, NOISY], ids=lambda multiplier: multiplier.name)
@pytest.mark.parametrize("method", ["slope", "difference"])
@pytest.mark.parametrize("groups", [1, 3])
def test_padded_positions_count_in_gradients_that_know_the_circuit(groups, method, multiplier):
    """Product by product over an image that carries its padding: T[code of zero, w] moves with w, too."""
    layer = ApproxConv2d(
        3, 3, 3, padding=1, stride=2, groups=groups, bias=False, multiplier=multiplier, gradient=method
    )
    x, seed = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 3, 2)
    leaf = x.clone().requires_grad_()
    (layer(leaf) * seed).sum().backward()
    table, factors = layer_table(multiplier), gradient_factors(layer_table(multiplier), method)
    by_a, by_b = factors.a_left @ factors.a_right, factors.b_left @ factors.b_right
    a, s_x, zero_point = quantised(x, multiplier.signed)
    a = F.pad(a, (1, 1, 1, 1), value=zero_point)
    s_w = layer.weight.detach().abs().amax(dim=(1, 2, 3)) / 127
    b = torch.round(layer.weight.detach() / s_w[:, None, None, None]).long()
    grad_x, grad_w, inputs = torch.zeros(a.shape), torch.zeros(b.shape), 3 // groups
    for n, o, p, q, c, i, j in np.ndindex(2, 3, 3, 2, inputs, 3, 3):
        at = (n, c + (o if groups == 3 else 0), 2 * p + i, 2 * q + j)
        row, column = int(a[at]) - table.a_lo, int(b[o, c, i, j]) - table.b_lo
        grad_x[at] += seed[n, o, p, q] * s_w[o] * float(by_a[row, column])
        grad_w[o, c, i, j] += seed[n, o, p, q] * s_x * (float(by_b[row, column]) - zero_point)
    grad_x = grad_x[:, :, 1:-1, 1:-1]
    assert torch.allclose(leaf.grad, grad_x, rtol=1e-4, atol=1e-4 * grad_x.abs().max().item())
    assert torch.allclose(layer.weight.grad, grad_w, rtol=1e-4, atol=1e-4 * grad_w.abs().max().item())


def test_an_unknown_gradient_suggests_the_nearest():
    with pytest.raises(InputError, match="did you mean slope"):
        ApproxConv2d(1, 1, 1, multiplier=EXACT, gradient="slop")


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("size", [(12, 6), (11, 6)])
def test_gradients_of_an_ordinary_convolution_are_autograds(dilation, groups, size):
    x = torch.randn(2, 6, *size, requires_grad=True)
    weight = torch.randn(6, 6 // groups, 3, 3, requires_grad=True)
    geometry = Geometry((1, 1), (dilation, dilation), (dilation, dilation), groups)
    out = geometry.conv2d(x, weight)
    seed = torch.randn_like(out)
    expected_x, expected_w = torch.autograd.grad(out, (x, weight), seed)
    for wanted in ((True, True), (True, False), (False, True)):
        grads = convolution_gradients(seed, x.detach(), weight.detach(), geometry, wanted)
        assert [got is not None for got in grads] == list(wanted)
        assert not wanted[0] or torch.allclose(grads[0], expected_x, atol=1e-4)
        assert not wanted[1] or torch.allclose(grads[1], expected_w, atol=1e-3)


@given(
    pixels=st.integers(0, 5000),
    outputs=st.integers(1, 5),
    inputs=st.integers(1, 5),
    part=st.sampled_from([1, 64, 4096]),
    most=st.sampled_from([7, 2**10, 2**22]),
)
@settings(deadline=None)
def test_a_product_in_parts_is_the_whole_one(pixels, outputs, inputs, part, most):
    """However many pixels there are, and never much larger on the way: what GPUs compute weights' gradients by."""
    generator = torch.Generator().manual_seed(pixels)
    pull, x = (torch.randn((pixels, n), generator=generator, dtype=torch.float64) for n in (outputs, inputs))
    limits = mock.patch.multiple(gradients, PART=part, MOST_PRODUCTS=most)
    with limits, mock.patch.object(torch, "bmm", wraps=torch.bmm) as bmm:
        assert torch.allclose(gradients._in_parts(pull, x), pull.t() @ x)
    for call in bmm.call_args_list:
        parts, _, size = call.args[0].shape
        assert parts * outputs * inputs <= most and size * parts == pixels and size >= gradients.SMALLEST_PART


# -- unsigned layers ---------------------------------------------------------------------------------------------------


def quantised(x: Tensor, signed: bool) -> tuple[Tensor, float, int]:
    """Codes, step and zero point of an activation tensor that a fresh layer sees, by their definition."""
    if signed:
        step = float(x.abs().max()) / 127
        return torch.round(x / step).clamp(-127, 127).long(), step, 0
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    step = (high - low) / 255
    zero_point = round(-low / step)
    return (torch.round(x / step) + zero_point).clamp(0, 255).long(), step, zero_point


@pytest.mark.parametrize("multiplier", [UNSIGNED, NOISY, "drum8u_6"], ids=str)
@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0], ids=["both signs", "positive", "negative"])
def test_an_unsigned_layer_is_the_affine_sum(shift, multiplier):
    """y = s_x s_w (Σ T − z_w Σ x̂ − z_x Σ ŵ + K z_x z_w), with the padding's code z_x going through the table."""
    multiplier = catalogue.get(multiplier) if isinstance(multiplier, str) else multiplier
    layer = ApproxConv2d(3, 4, 3, padding=(1, 2), stride=(1, 2), multiplier=multiplier)
    x = torch.randn(2, 3, 5, 6) + shift
    a, s_x, z_x = quantised(x, signed=False)
    s_w = layer.weight.detach().abs().flatten(1).amax(dim=1).double() / 127
    b = torch.round(layer.weight.detach() / s_w.float().view(-1, 1, 1, 1)).long() + 128
    padded = F.pad(a, (2, 2, 1, 1), value=z_x)
    sums = torch.from_numpy(loop_conv(padded.numpy(), b.numpy(), multiplier, (1, 2), (0, 0), (1, 1), 1)).double()
    ones = torch.ones_like(b, dtype=torch.float64)
    sums -= 128 * F.conv2d(padded.double(), ones, stride=(1, 2))
    sums -= z_x * b.double().sum(dim=(1, 2, 3)).view(1, -1, 1, 1)
    sums += ones[0].numel() * z_x * 128
    expected = s_x * s_w.view(1, -1, 1, 1) * sums + layer.bias.detach().view(1, -1, 1, 1)
    assert torch.allclose(layer(x).double(), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    if multiplier is UNSIGNED:
        exact = nn.Conv2d(3, 4, 3, padding=(1, 2), stride=(1, 2))
        exact.load_state_dict(layer.state_dict(), strict=False)
        assert (layer(x) - exact(x)).abs().mean() < 0.02 * exact(x).abs().mean()


def test_gradients_of_an_unsigned_layer_are_those_of_the_exact_convolution():
    layer, x = ApproxConv2d(3, 4, 3, padding=1, multiplier=NOISY), torch.randn(2, 3, 6, 6)
    layer(x * 0.4)
    layer.eval()
    low, high = layer.activation_scale.minimum, layer.activation_scale.maximum
    step = (high - low) / 255
    zero_point = torch.round(-low / step)
    inside = ((torch.round(x / step) >= -zero_point) & (torch.round(x / step) <= 255 - zero_point)).float()
    assert (1 - inside).sum() > 5
    real = torch.round(x / step).clamp(-zero_point, 255 - zero_point) * step
    s_w = layer.weight.detach().abs().flatten(1).amax(dim=1).view(-1, 1, 1, 1) / 127
    w_real = (torch.round(layer.weight.detach() / s_w) * s_w).requires_grad_()
    mine, theirs = x.clone().requires_grad_(), real.clone().requires_grad_()
    out = layer(mine)
    seed = torch.randn_like(out)
    (out * seed).sum().backward()
    (F.conv2d(theirs, w_real, padding=1) * seed).sum().backward()
    assert torch.allclose(mine.grad, theirs.grad * inside, rtol=1e-4, atol=1e-5)
    assert torch.allclose(layer.weight.grad, w_real.grad, rtol=1e-4, atol=1e-4)


def test_the_range_of_an_unsigned_layer_moves_in_training_alone():
    layer = ApproxLinear(2, 1, multiplier=UNSIGNED)
    layer(torch.tensor([[1.0, 3.0]]))
    scale = layer.activation_scale
    assert (scale.minimum.item(), scale.maximum.item()) == (0.0, 3.0)  # zero is always inside
    layer(torch.tensor([[-1.0, 13.0]]))
    assert (scale.minimum.item(), scale.maximum.item()) == (pytest.approx(-0.1), pytest.approx(4.0))
    layer.eval()(torch.tensor([[-9.0, 99.0]]))
    assert scale.maximum.item() == pytest.approx(4.0)
    assert layer(torch.tensor([[float("nan"), 1.0]])).isnan().all()


def test_unsigned_multipliers_mix():
    library = (UNSIGNED, catalogue.get("trunc8u_2_3"))
    mixture = MultiplierMixture(3, 4, 3, padding=1, bias=False, choice=MultiplierChoice(library))
    parts = [ApproxConv2d(3, 4, 3, padding=1, bias=False, multiplier=multiplier) for multiplier in library]
    for part in parts:
        part.load_state_dict(mixture.state_dict(), strict=False)
    beta, x = torch.tensor([0.3, 0.7]), torch.randn(2, 3, 6, 6)
    mixture.choice.set(beta)
    expected = sum(weight * part(x) for weight, part in zip(beta, parts))
    assert (mixture(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    with pytest.raises(InputError, match="signed and unsigned"):
        MultiplierChoice((UNSIGNED, EXACT))


# -- bias compensation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiplier", [LIBRARY[-1], FULL_RANK, NOISY], ids=lambda multiplier: multiplier.name)
def test_the_mean_error_of_a_layer_is_taken_away(multiplier):
    """Averaged over one batch, without padding, the compensated sums are the exact ones for independent operands."""
    layer = ApproxConv2d(2, 5, 3, multiplier=multiplier, compensate_bias=True, bias=False)
    table, x = layer_table(multiplier), torch.randn(4, 2, 9, 9)
    y = layer(x)
    a, s_x, _ = quantised(x, multiplier.signed)
    s_w = layer.weight.detach().abs().flatten(1).amax(dim=1) / 127
    b = torch.round(layer.weight.detach() / s_w.view(-1, 1, 1, 1)).long()
    plain = ApproxConv2d(2, 5, 3, multiplier=multiplier, bias=False)
    plain.load_state_dict(layer.state_dict(), strict=False)
    error = table.table - table.exact
    for output in range(5):
        mean = np.mean(
            [[error[i - table.a_lo, j - table.b_lo] for j in b[output].flatten()] for i in a.flatten()[::1]], 0
        ).sum()
        taken = (plain(x) - y)[:, output]
        assert torch.allclose(taken, torch.full_like(taken, float(mean * s_x * s_w[output])), rtol=1e-3, atol=1e-4)


def test_the_compensation_follows_training_and_rests_in_evaluation():
    layer = ApproxLinear(4, 3, multiplier=LIBRARY[-1], compensate_bias=True)
    layer.eval()(torch.randn(5, 4))
    assert not layer.mean_error.histogram.any()
    layer.train()(torch.randn(5, 4))
    first = layer.mean_error.histogram.clone()
    assert first.sum().item() == pytest.approx(1)
    layer(torch.zeros(5, 4))
    assert layer.mean_error.histogram[128].item() == pytest.approx(0.9 * first[128].item() + 0.1)
    seen = layer.mean_error.histogram.clone()
    layer.eval()(torch.ones(5, 4))
    assert torch.equal(layer.mean_error.histogram, seen) and "mean_error.histogram" in layer.state_dict()


def test_an_exact_multiplier_needs_no_compensation():
    layer = ApproxConv2d(2, 3, 3, multiplier=EXACT, compensate_bias=True)
    plain = ApproxConv2d(2, 3, 3, multiplier=EXACT)
    plain.load_state_dict(layer.state_dict(), strict=False)
    x = torch.randn(2, 2, 6, 6)
    assert torch.equal(layer(x), plain(x))


# -- what is kept ------------------------------------------------------------------------------------------------------


@torch.no_grad()  # a weight in training is packed in every pass
def test_packed_weights_are_reused_until_the_weight_changes():
    layer = ApproxConv2d(2, 3, 3, multiplier=ROUGH).eval()
    x = torch.randn(1, 2, 6, 6)
    before = layer(x)
    packed = layer.kept._packed
    layer(x)
    assert layer.kept._packed is packed
    layer.weight.mul_(-1)
    bias = layer.bias.view(1, -1, 1, 1)
    assert torch.allclose(layer(x) - bias, -(before - bias), atol=0.3 * before.abs().max().item())
    assert layer.kept._packed is not packed
    for change in (
        lambda: layer.load_state_dict({name: torch.zeros_like(value) for name, value in layer.state_dict().items()}),
        lambda: setattr(layer, "weight", nn.Parameter(torch.ones_like(layer.weight))),
        lambda: setattr(layer.weight, "data", torch.randn_like(layer.weight)),
    ):
        packed = layer.kept._packed
        change()
        layer(x)
        assert layer.kept._packed is not packed


def test_layers_that_read_one_tensor_share_its_codes():
    first, second = (ApproxConv2d(2, 3, 3, multiplier=ROUGH) for _ in range(2))
    x = torch.randn(1, 2, 6, 6)
    first(x)
    codes = x._known_codes[1]
    second(x)
    assert x._known_codes[1] is codes
    x.mul_(2)
    assert torch.allclose(first.eval()(x), ApproxConv2d.forward(first, x.clone()))
    assert x._known_codes[1] is not codes
