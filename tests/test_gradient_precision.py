"""Gradients of quantised layers in bf16: near fp32's, and nothing else is touched."""

import dataclasses

import pytest
import torch
from torch import nn

from evaluation.run import parse
from evaluation.settings.protocols import PROTOCOLS, Protocol, named_protocol
from spaces.arithmetic import gradient_precision
from spaces.arithmetic.engines import timing
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.gradient_precision import gradient_dtype, settled, used
from spaces.arithmetic.layers import ApproxConv2d, ApproxLinear
from spaces.arithmetic.mixture import MultiplierChoice, MultiplierMixture
from spaces.errors import InputError
from spaces.files.schema import typed
from tests.convolutions import EXACT, LIBRARY, ROUGH, UNSIGNED

CPU = torch.device("cpu")
BF16 = 2.0**-8  # the largest rounding error of a number in bf16, relative to it
# Inputs, outputs, kernel and the rest of a convolution's arguments.
LAYERS = {
    "dense": (5, 7, 3, {"padding": 1}),
    "dilated and strided": (6, 4, 5, {"padding": 4, "dilation": 2, "stride": 2}),
    "pointwise": (64, 72, 1, {}),
    "strided pointwise": (64, 64, 1, {"stride": 2}),
}


def gradients(layer, x, precision):
    """Output, and gradients for the input and all parameters."""
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with used(precision, CPU):
        y = layer(leaf)
        weights = torch.linspace(-1, 1, y.numel()).reshape_as(y).cos()
        parameters = [leaf, *layer.parameters()]
        found = torch.autograd.grad((y * weights).sum(), parameters)
    return y.detach(), found


def assert_near(layer, x):
    """Every gradient in bf16 is fp32's but for three roundings of factors and one of the result; outputs are the same."""
    layer.eval()
    y, expected = gradients(layer, x, "fp32")
    same_y, got = gradients(layer, x, "bf16")
    assert torch.equal(y, same_y)
    for one, other in zip(got, expected):
        assert one.dtype == torch.float32
        difference = (one - other).norm() / other.norm()
        assert difference < 2 * BF16
    assert not torch.equal(got[0], expected[0]) and not torch.equal(got[1], expected[1])


@pytest.mark.parametrize("gradient", ["straight-through", "slope"])
@pytest.mark.parametrize("multiplier", [EXACT, ROUGH, UNSIGNED], ids=lambda multiplier: multiplier.name)
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_in_bf16_are_near_those_in_fp32(kind, multiplier, gradient):
    inputs, outputs, kernel, more = LAYERS[kind]
    layer = ApproxConv2d(inputs, outputs, kernel, multiplier=multiplier, gradient=gradient, **more)
    x = torch.randn(3, inputs, 11, 9)
    assert_near(layer, x)
    assert_near(layer, x.contiguous(memory_format=torch.channels_last))


def test_a_linear_layer_and_a_mixture():
    assert_near(ApproxLinear(64, 64, multiplier=ROUGH), torch.randn(9, 64))
    choice = MultiplierChoice(LIBRARY)
    choice.set(torch.full((len(LIBRARY),), 1 / len(LIBRARY)))
    assert_near(MultiplierMixture(6, 8, 3, padding=1, choice=choice), torch.randn(2, 6, 9, 8))


def test_clamped_activations_get_no_gradient():
    layer = ApproxConv2d(4, 4, 3, padding=1, multiplier=EXACT)
    layer.activation_scale.maximum.fill_(1.0)
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    layer.eval()
    _, (grad, *_) = gradients(layer, x, "bf16")
    outside = (x * 127).round().abs() > 127
    assert outside.any() and torch.equal(grad == 0, outside)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(5, 5, 3), ApproxConv2d(8, 8, 1, multiplier=EXACT), ApproxConv2d(5, 5, 3, groups=5, multiplier=EXACT)],
)
def test_fp32_layers_and_those_that_do_not_gain_stay_as_they_are(layer):
    x = torch.randn(2, layer.in_channels, 9, 9)
    layer.eval()
    for one, other in zip(gradients(layer, x, "bf16")[1], gradients(layer, x, "fp32")[1]):
        assert torch.equal(one, other)


def test_the_precision_ends_with_its_block():
    shape = torch.Size((8, 8, 3, 3))
    with pytest.raises(ZeroDivisionError), used("bf16", CPU):
        assert gradient_dtype(shape, Geometry()) == torch.bfloat16
        raise ZeroDivisionError
    assert gradient_dtype(shape, Geometry()) == torch.float32
    with pytest.raises(InputError, match="did you mean bf16"), used("bf61", CPU):
        pass


@pytest.mark.parametrize(("bf16", "expected"), [(1.0, "fp32"), (0.8, "fp32"), (0.5, "bf16")])
def test_auto_is_decided_by_what_was_measured(bf16, expected, monkeypatch):
    monkeypatch.setattr(timing, "kept", lambda *_: (1.0, bf16))
    gradient_precision._gains.cache_clear()
    assert settled("auto", CPU) == expected
    assert settled("fp32", CPU) == "fp32" and settled("bf16", CPU) == "bf16"
    monkeypatch.undo()
    gradient_precision._gains.cache_clear()
    assert settled("auto", CPU) in ("bf16", "fp32")


def test_the_precision_is_part_of_the_hash_and_fp32_is_what_was_before():
    quick = named_protocol("quick")
    others = [dataclasses.replace(quick, gradient_precision=name).hash for name in ("auto", "bf16")]
    assert len({quick.hash, *others}) == 3
    assert quick.hash == "6d40a6e206f3116af595bc85a8ca91c7329a4d45569a96c621fece32fe4bce51"  # of the kept records
    assert all(protocol.gradient_precision == "fp32" for protocol in PROTOCOLS.values())
    before = {name: value for name, value in dataclasses.asdict(quick).items() if name != "gradient_precision"}
    assert typed(before, Protocol).gradient_precision == "fp32"


def test_the_flag_changes_the_precision_and_not_the_protocols_name():
    for flags, expected in (([], "fp32"), (["--gradient-precision", "auto"], "auto")):
        protocol = parse(flags).protocol
        assert (protocol.name, protocol.gradient_precision) == ("quick", expected)
