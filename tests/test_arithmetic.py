"""Convolutions through circuits: sums against plain loops, gradients against those of a fake-quantised convolution."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spaces.arithmetic.emulate import ENGINES, approx_conv2d, choose_engine
from spaces.arithmetic.layers import ApproxConv2d, ApproxLinear, MultiplierChoice, MultiplierMixture
from spaces.arithmetic.quantise import RunningMaximum, clamped_codes, scale_from_maximum, weight_codes
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier

NAMES = catalogue.names()
LIBRARY = tuple(catalogue.get(name) for name in NAMES)
EXACT = catalogue.get("mul8s_1KV8")
ROUGH = catalogue.get("mul8s_1KVL")  # rank 4, with errors of a few hundred


def with_zero_row(constant: int = 5) -> Multiplier:
    """A circuit that returns ``constant`` too much for a zero activation: padding must add it, as hardware would."""
    table = ROUGH.table.astype(np.int64)
    table[128] += constant
    return Multiplier(name="mul8s_offset", signed=True, table=table, power_mw=0.3)


ZERO_ROW = with_zero_row()
FULL_RANK = Multiplier(  # with entries beyond those of any circuit, so that no factors are small
    name="random", signed=True, table=np.random.default_rng(0).integers(-(2**20), 2**20, (256, 256))
)
UNSIGNED = Multiplier(name="unsigned", signed=False, table=np.multiply.outer(np.arange(256), np.arange(256)))


def codes(*shape: int, low: int = -128, high: int = 127, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).integers(low, high + 1, shape)).to(torch.int16)


def loop_conv(x: np.ndarray, w: np.ndarray, circuit: Multiplier, stride, padding, dilation, groups) -> np.ndarray:
    """The sums as the definition has them: a loop over every image, output, pixel, input channel and kernel tap."""
    table, low = circuit.table.tolist(), -128 if circuit.signed else 0
    images, channels, height, width = x.shape
    outputs, inner, rows, columns = w.shape
    assert inner * groups == channels
    tall = (height + 2 * padding[0] - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    wide = (width + 2 * padding[1] - dilation[1] * (columns - 1) - 1) // stride[1] + 1
    y = np.zeros((images, outputs, tall, wide), dtype=np.int64)
    for n, o, i, j in np.ndindex(y.shape):
        first = o // (outputs // groups) * inner
        total = 0
        for c, k, m in np.ndindex(inner, rows, columns):
            row = i * stride[0] - padding[0] + k * dilation[0]
            column = j * stride[1] - padding[1] + m * dilation[1]
            inside = 0 <= row < height and 0 <= column < width
            a = int(x[n, first + c, row, column]) if inside else 0
            total += table[a - low][int(w[o, c, k, m]) - low]
        y[n, o, i, j] = total
    return y


@st.composite
def convolutions(draw, largest_group: int = 3, circuits: tuple[Multiplier, ...] = LIBRARY):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inner = draw(st.integers(1, largest_group))
    outputs = groups * draw(st.integers(1, 3))
    kernel = (draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([1, 3, 5])))
    stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    padding = (draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    size = [
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), d * (k - 1) + 6))
        for k, p, d in zip(kernel, padding, dilation)
    ]
    seed = draw(st.integers(0, 2**20))
    x = codes(draw(st.integers(1, 2)), groups * inner, *size, seed=seed)
    w = codes(outputs, inner, *kernel, seed=seed)
    circuit = draw(st.sampled_from(circuits))
    return x, w, circuit, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


# -- sums --------------------------------------------------------------------------------------------------------------


@settings(max_examples=250)
@given(convolutions(circuits=(*LIBRARY, ZERO_ROW)))
def test_the_factored_engine_equals_the_reference_bit_for_bit(case):
    x, w, circuit, moved = case
    reference = approx_conv2d(x, w, circuit, **moved, engine="reference")
    factored = approx_conv2d(x, w, circuit, **moved, engine="factored")
    assert reference.dtype == factored.dtype == torch.int32
    assert torch.equal(reference, factored)
    assert torch.equal(approx_conv2d(x, w, circuit, **moved), reference)


@settings(max_examples=40)
@given(convolutions(largest_group=2, circuits=(EXACT, ROUGH, LIBRARY[-1], ZERO_ROW, FULL_RANK)))
def test_the_reference_engine_equals_a_plain_loop(case):
    x, w, circuit, moved = case
    x, w = x[:1, :, :6, :7], w[:2] if moved["groups"] == 1 else w
    spans = [d * (k - 1) + 1 - 2 * p for k, p, d in zip(w.shape[2:], moved["padding"], moved["dilation"])]
    if any(side < span for side, span in zip(x.shape[2:], spans)):
        x = case[0][:1]
    expected = loop_conv(x.numpy(), w.numpy(), circuit, **moved)
    assert np.array_equal(approx_conv2d(x, w, circuit, **moved, engine="reference").numpy(), expected)


@pytest.mark.parametrize("engine", ["reference", "factored"])
def test_depthwise_convolutions_equal_a_plain_loop(engine):
    for circuit, stride, dilation in itertools.product((ROUGH, ZERO_ROW), (1, 2), (1, 2)):
        x, w = codes(2, 4, 6, 5), codes(4, 1, 3, 3)
        moved = {"stride": (stride, 1), "padding": (dilation, dilation), "dilation": (dilation, dilation), "groups": 4}
        expected = loop_conv(x.numpy(), w.numpy(), circuit, **moved)
        assert np.array_equal(approx_conv2d(x, w, circuit, **moved, engine=engine).numpy(), expected)


@pytest.mark.parametrize("engine", ["reference", "factored"])
def test_padding_goes_through_the_table(engine):
    """One pixel, a 3×3 kernel, padding 1: eight of the nine products have the padded zero, worth 5 each."""
    x, w = torch.tensor([[[[7]]]], dtype=torch.int16), codes(1, 1, 3, 3)
    got = approx_conv2d(x, w, ZERO_ROW, padding=1, engine=engine)
    assert got.item() == 8 * 5 + ROUGH.table[7 + 128, int(w[0, 0, 1, 1]) + 128]
    assert approx_conv2d(x, w, ROUGH, padding=1, engine=engine).item() == got.item() - 40


@pytest.mark.parametrize("engine", ["reference", "factored"])
def test_unsigned_codes_equal_a_plain_loop(engine):
    table = UNSIGNED.table.astype(np.int64)
    table[:, 1::2] += np.arange(256)[:, None] // 2  # an error of rank 1 that only odd weights see
    circuit = Multiplier(name="unsigned", signed=False, table=table)
    x, w = codes(1, 2, 4, 5, low=0, high=255), codes(3, 2, 3, 3, low=0, high=255)
    moved = {"stride": (1, 2), "padding": (1, 2), "dilation": (1, 1), "groups": 1}
    expected = loop_conv(x.numpy(), w.numpy(), circuit, **moved)
    assert np.array_equal(approx_conv2d(x, w, circuit, **moved, engine=engine).numpy(), expected)


@pytest.mark.parametrize("engine", ["reference", "factored"])
def test_one_channel_and_one_output_column(engine):
    """oneDNN 3.12 (torch 2.13, AVX-512) computes this shape wrongly from channels-last strides, (30, 1, 5, 1)."""
    moved = {"stride": (1, 2), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    for seed in range(5):
        x, w = codes(2, 1, 6, 5, seed=seed), codes(2, 1, 5, 5, seed=seed)
        expected = loop_conv(x.numpy(), w.numpy(), EXACT, **moved)
        assert np.array_equal(approx_conv2d(x, w, EXACT, **moved, engine=engine).numpy(), expected)


def test_integers_stand_for_squares():
    x, w = codes(1, 2, 9, 9), codes(2, 2, 3, 3)
    got = approx_conv2d(x, w, ROUGH, stride=2, padding=1, dilation=2)
    assert torch.equal(got, approx_conv2d(x, w, ROUGH, stride=(2, 2), padding=(1, 1), dilation=(2, 2)))


def test_every_integer_dtype_gives_the_same_sums():
    x, w = codes(1, 3, 5, 5), codes(2, 3, 3, 3)
    expected = approx_conv2d(x, w, ROUGH)
    for left, right in itertools.product((torch.int16, torch.int32, torch.int64), repeat=2):
        assert torch.equal(approx_conv2d(x.to(left), w.to(right), ROUGH), expected)


def test_noncontiguous_codes_give_the_same_sums():
    x, w = codes(2, 6, 8, 9), codes(4, 6, 3, 3)
    expected = approx_conv2d(x, w, ROUGH, engine="reference")
    x_last = x.contiguous(memory_format=torch.channels_last)
    w_last = w.contiguous(memory_format=torch.channels_last)
    flipped = x.flip(3).contiguous().flip(3)
    for left, right in ((x_last, w), (x, w_last), (x_last, w_last), (flipped, w)):
        assert torch.equal(approx_conv2d(left, right, ROUGH, engine="factored"), expected)


# Beyond 2^24 float32 has no odd integers, so a sum that is not split is off by one.


def test_a_sum_of_two_thousand_largest_products_is_exact():
    x = torch.full((1, 2001, 1, 1), -127, dtype=torch.int16)
    got = approx_conv2d(x, x, EXACT, engine="factored")
    assert got.item() == 2001 * 127 * 127 == 32_274_129 > 2**24
    lowest = torch.full((1, 2000, 1, 1), -128, dtype=torch.int16)
    assert approx_conv2d(lowest, lowest, EXACT, engine="factored").item() == 2000 * 2**14


@pytest.mark.parametrize("circuit", [EXACT, ROUGH, LIBRARY[3], ZERO_ROW], ids=lambda circuit: circuit.name)
def test_long_sums_are_exact_for_every_rank(circuit):
    x, w = codes(1, 1999, 3, 2, low=-128, high=-101), codes(2, 1999, 1, 1, low=-128, high=-101)
    expected = approx_conv2d(x, w, circuit, engine="reference")
    assert expected.abs().min() > 2**24 - 2**22
    assert torch.equal(approx_conv2d(x, w, circuit, engine="factored"), expected)


@pytest.mark.parametrize("groups", [2, 4])
def test_long_sums_are_exact_in_groups_and_in_windows(groups):
    x, w = codes(1, 150 * groups, 5, 4, low=-128, high=-90), codes(2 * groups, 150, 3, 3, low=-128, high=-90)
    moved = {"padding": 1, "stride": (2, 1), "groups": groups}
    expected = approx_conv2d(x, w, ROUGH, **moved, engine="reference")
    assert torch.equal(approx_conv2d(x, w, ROUGH, **moved, engine="factored"), expected)
    assert torch.equal(approx_conv2d(x, w[::2], ROUGH, **moved, engine="factored"), expected[:, ::2])


def test_a_window_too_large_for_float32_is_exact():
    x = torch.full((1, 1, 33, 33), 127, dtype=torch.int16)
    assert approx_conv2d(x, -x, EXACT, engine="factored").item() == -(33**2) * 127**2
    assert 33**2 * 127**2 > 2**24 and 33**2 * 127**2 % 2 == 1
    depthwise = approx_conv2d(x.expand(1, 2, 33, 33), x.expand(2, 1, 33, 33), EXACT, groups=2, engine="factored")
    assert depthwise.flatten().tolist() == [33**2 * 127**2] * 2


# -- what may be asked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float32, torch.float64, torch.bool])
def test_other_dtypes_are_refused(dtype):
    good = codes(1, 1, 2, 2, low=0, high=1)
    with pytest.raises(InputError, match="x_codes must be int16"):
        approx_conv2d(good.to(dtype), good, EXACT)
    with pytest.raises(InputError, match="w_codes must be int16"):
        approx_conv2d(good, good.to(dtype), EXACT)


@pytest.mark.parametrize(("circuit", "code"), [(EXACT, 128), (EXACT, -129), (UNSIGNED, -1), (UNSIGNED, 256)])
def test_codes_beyond_the_operands_are_refused(circuit, code):
    good = codes(1, 1, 3, 3, low=0, high=1)
    bad = good.clone()
    bad[0, 0, 1, 2] = code
    with pytest.raises(InputError, match=rf"x_codes holds .*{code}.* beyond"):
        approx_conv2d(bad, good, circuit)
    with pytest.raises(InputError, match=rf"w_codes holds .*{code}.* beyond"):
        approx_conv2d(good, bad, circuit)


def test_an_unknown_engine_suggests_the_nearest():
    x = codes(1, 1, 2, 2)
    with pytest.raises(InputError, match="did you mean reference"):
        approx_conv2d(x, x, EXACT, engine="referense")


def test_the_factored_engine_refuses_a_table_without_small_factors():
    x = codes(1, 2, 3, 3)
    assert choose_engine(FULL_RANK) == "reference"
    with pytest.raises(InputError, match="random.*engine='reference'"):
        approx_conv2d(x, x, FULL_RANK, engine="factored")
    assert torch.equal(approx_conv2d(x, x, FULL_RANK), approx_conv2d(x, x, FULL_RANK, engine="reference"))
    assert choose_engine(ROUGH) == "factored" and set(ENGINES) >= {"reference", "factored"}


@pytest.mark.parametrize("engine", ["reference", "auto"])
def test_the_zero_table_sums_to_zero(engine):
    """Some published circuits (mul8u_199Z) return zero for everything: rank 0."""
    zero = Multiplier(name="zero", signed=True, table=np.zeros((256, 256), dtype=int))
    got = approx_conv2d(codes(2, 3, 5, 4), codes(6, 1, 3, 3), zero, padding=1, groups=3, engine=engine)
    assert torch.equal(got, torch.zeros(2, 6, 5, 4, dtype=torch.int32))


def test_autocast_does_not_touch_the_sums():
    """bfloat16 has 8 significant bits: a convolution of codes in it would be off by hundreds."""
    x, w = codes(1, 16, 6, 6), codes(4, 16, 3, 3)
    expected = approx_conv2d(x, w, EXACT, engine="reference")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = approx_conv2d(x, w, EXACT, engine="factored")
    assert torch.equal(got, expected)


# -- codes and scales --------------------------------------------------------------------------------------------------


def test_codes_by_hand():
    scale = scale_from_maximum(torch.tensor(12.7))
    assert scale.item() == pytest.approx(0.1)
    x = torch.tensor([0.0, 0.04, 0.06, -0.26, 12.7, -12.7, 12.74, 12.8, -40.0, float("nan")])
    got, clamped = clamped_codes(x, scale)
    assert got.tolist() == [0, 0, 1, -3, 127, -127, 127, 127, -127, 0]
    assert clamped[:-1].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1]


def test_weight_codes_spend_the_whole_range_on_every_output():
    weight = torch.randn(5, 3, 3, 3) * torch.tensor([1e-6, 0.01, 1, 100, 0]).view(-1, 1, 1, 1)
    got, scale = weight_codes(weight)
    assert scale.shape == (5, 1, 1, 1)
    for channel in range(4):
        assert got[channel].abs().max() == 127
        largest = weight[channel].abs().max().item()
        assert scale[channel].item() == pytest.approx(largest / 127)
        assert torch.allclose(got[channel] * scale[channel], weight[channel], rtol=0, atol=largest / 127 * 0.501)
    assert not got[4].any()


def test_the_running_maximum_by_hand():
    running = RunningMaximum(momentum=0.1)
    running.eval()
    assert running(torch.tensor([-254.0, 3.0])).item() == 2.0  # nothing seen yet: the tensor at hand
    running.train()
    assert running(torch.tensor([-127.0, 3.0])).item() == 1.0  # the first batch sets it
    assert running(torch.tensor([254.0])).item() == pytest.approx(1.1)  # 0.9 · 127 + 0.1 · 254 = 139.7
    running.eval()
    assert running(torch.tensor([1e4])).item() == pytest.approx(1.1)
    assert running.maximum.item() == pytest.approx(139.7)


# -- layers ------------------------------------------------------------------------------------------------------------


def hand_codes(x: Tensor, scale: Tensor) -> Tensor:
    return torch.clamp(torch.round(x.double() / scale.double()), -127, 127).to(torch.int64)


def hand_scales(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return x.abs().max() / 127, weight.abs().flatten(1).max(dim=1).values / 127


def fake_quantised(x: Tensor, scale: Tensor) -> Tensor:
    """Dequantised codes whose gradient is 1 inside the clamp and 0 outside: x + (q − x) without a gradient."""
    q = torch.clamp(torch.round(x / scale), -127, 127) * scale
    inside = (torch.round(x / scale).abs() <= 127).to(x.dtype)
    return x * inside + (q - x * inside).detach()


LAYERS = {
    "full": ((4, 6, 3), {"padding": 1}),
    "strided": ((4, 6, 3), {"padding": (1, 2), "stride": (2, 1), "bias": False}),
    "grouped": ((4, 6, 3), {"padding": 2, "dilation": 2, "groups": 2}),
    "depthwise": ((4, 4, 5), {"padding": 2, "stride": 2, "groups": 4}),
    "pointwise": ((4, 5, 1), {}),
    # The layers may take a depthwise convolution apart where its dilation divides the size, as it does 8×6 but not 7×6.
    "dilated": ((4, 4, 3), {"padding": 2, "dilation": 2, "groups": 4}),
    "dilated 5×5": ((4, 4, 5), {"padding": 4, "dilation": 2, "groups": 4}),
    "dilated twice": ((4, 8, (3, 1)), {"padding": (2, 0), "dilation": 2, "groups": 4, "bias": False}),
    "dilated, strided": ((4, 4, 3), {"padding": 2, "dilation": 2, "stride": 2, "groups": 4}),
    "dilated, strided by 3": ((4, 4, 3), {"padding": 2, "dilation": 2, "stride": 3, "groups": 4}),
    "dilated, odd padding": ((4, 4, 3), {"padding": 1, "dilation": 2, "groups": 4}),
    "dilated, odd size": ((4, 4, 3), {"padding": 2, "dilation": 2, "groups": 4}),
}


def images(kind: str, count: int = 2) -> Tensor:
    return torch.randn(count, 4, 8 if "dilated" in kind and "odd size" not in kind else 7, 6)


def a_layer(kind: str, circuit: Multiplier = ROUGH, **more) -> ApproxConv2d:
    arguments, keywords = LAYERS[kind]
    return ApproxConv2d(*arguments, **keywords, **more, multiplier=circuit)


@pytest.mark.parametrize("circuit", [EXACT, ROUGH, ZERO_ROW, FULL_RANK], ids=lambda circuit: circuit.name)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_scales_the_reference_sums(kind, circuit):
    layer, x = a_layer(kind, circuit), images(kind)
    s_x, s_w = hand_scales(x, layer.weight)
    moved = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    w_codes = hand_codes(layer.weight, s_w.view(-1, 1, 1, 1))
    sums = approx_conv2d(hand_codes(x, s_x), w_codes, circuit, **moved, engine="reference")
    expected = sums.double() * s_x.double() * s_w.double().view(1, -1, 1, 1)
    if layer.bias is not None:
        expected = expected + layer.bias.view(1, -1, 1, 1)
    assert isinstance(layer, nn.Conv2d) and layer(x).dtype == torch.float32
    assert torch.allclose(layer(x).double(), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_a_layer_has_the_parameters_of_a_convolution():
    ordinary = nn.Conv2d(4, 6, 3, padding=1)
    layer = a_layer("full")
    assert [(name, p.shape) for name, p in layer.named_parameters()] == [
        (name, p.shape) for name, p in ordinary.named_parameters()
    ]
    assert not layer.load_state_dict(ordinary.state_dict(), strict=False).unexpected_keys


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("circuit", [EXACT, LIBRARY[-1], ZERO_ROW], ids=lambda circuit: circuit.name)
def test_gradients_are_those_of_the_exact_convolution(kind, circuit):
    layer, x = a_layer(kind, circuit), images(kind, 3)
    layer(x * 0.4)  # a smaller running maximum, so that the next batch is clamped
    layer.eval()
    s_x = layer.activation_scale.maximum / 127
    assert (x.abs() > 127.5 * s_x).sum() > 5

    mine = x.clone().requires_grad_()
    out = layer(mine)
    seed = torch.randn_like(out)
    (out * seed).sum().backward()

    theirs, weight = x.clone().requires_grad_(), layer.weight.detach().clone().requires_grad_()
    s_w = (weight.detach().abs().flatten(1).max(dim=1).values / 127).view(-1, 1, 1, 1)
    moved = (layer.stride, layer.padding, layer.dilation, layer.groups)
    exact = F.conv2d(fake_quantised(theirs, s_x), fake_quantised(weight, s_w), None, *moved)
    (exact * seed).sum().backward()

    assert torch.allclose(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5 * theirs.grad.abs().max().item())
    assert not mine.grad[x.abs() > 127.5 * s_x].any()
    assert torch.allclose(layer.weight.grad, weight.grad, rtol=1e-4, atol=1e-5 * weight.grad.abs().max().item())
    if layer.bias is not None:
        assert torch.allclose(layer.bias.grad, seed.sum(dim=(0, 2, 3)), rtol=1e-4)
    if circuit is EXACT:
        bias = 0 if layer.bias is None else layer.bias.view(1, -1, 1, 1)
        assert torch.allclose(out, exact + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    "more",
    [
        {"padding": 2, "padding_mode": "reflect"},
        {"padding": (1, 2), "padding_mode": "replicate", "stride": 2},
        {"padding": 1, "padding_mode": "circular"},
        {"padding": "same"},
        {"padding": "same", "dilation": (1, 3)},
        {"padding": "valid", "stride": (3, 2)},
    ],
    ids=str,
)
@pytest.mark.parametrize("kernel", [3, (2, 4)])
@pytest.mark.parametrize("circuit", [EXACT, ZERO_ROW], ids=lambda circuit: circuit.name)
def test_every_padding_of_an_ordinary_convolution_works(more, kernel, circuit):
    layer = ApproxConv2d(3, 4, kernel, multiplier=circuit, **more)
    ordinary = nn.Conv2d(3, 4, kernel, **more)
    ordinary.load_state_dict(layer.state_dict(), strict=False)
    x = torch.randint(-127, 128, (2, 3, 8, 9)).float()
    x[0, 0, 0, 0] = 127  # so that the scale is 1 and the codes are x itself
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-127, 128, layer.weight.shape).float())
        layer.weight[:, 0, 0, 0] = 127
        ordinary.weight.copy_(layer.weight)
        expected = ordinary(x)
        got = layer(x)
        assert got.shape == expected.shape
        if circuit is not EXACT:  # through the table: unfold the padded input, which ordinary padding code makes
            mode = "constant" if ordinary.padding_mode == "zeros" else ordinary.padding_mode
            padded = F.pad(x, ordinary._reversed_padding_repeated_twice, mode=mode)
            args = padded.long().numpy(), layer.weight.long().numpy(), circuit
            sums = loop_conv(*args, layer.stride, (0, 0), layer.dilation, 1)
            expected = torch.from_numpy(sums).float() + layer.bias.view(1, -1, 1, 1)
        assert torch.allclose(got, expected, rtol=1e-6, atol=0.02)


def test_training_moves_the_scale_and_evaluation_does_not():
    layer = a_layer("full")
    x = torch.randn(2, 4, 5, 5)
    layer.eval()
    fresh = layer(x)
    assert layer.activation_scale.maximum == 0
    layer.train()
    assert torch.equal(layer(x), fresh)  # the first batch's scale is its own maximum, either way
    assert layer.activation_scale.maximum == x.abs().max()
    layer(3 * x)
    seen = layer.activation_scale.maximum.clone()
    assert seen.item() == pytest.approx(1.2 * x.abs().max().item())
    layer.eval()
    layer(100 * x)
    assert torch.equal(layer.activation_scale.maximum, seen)
    assert "activation_scale.maximum" in layer.state_dict()


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_a_nan_stays_a_nan(training, trained):
    """A diverged network must show: NaN in, NaN out, and no index beyond the table."""
    conv, linear = a_layer("full"), ApproxLinear(4, 3, multiplier=ROUGH)
    x = torch.randn(2, 4, 5, 5)
    if trained:
        conv(x), linear(x[:, :, 0, 0])
    conv.train(training), linear.train(training)
    x[0, 0, 0, 0] = float("nan")
    assert conv(x)[0, :, 0, 0].isnan().all()
    assert linear(x[:, :, 0, 0])[0].isnan().all()
    assert torch.isfinite(conv.train()(torch.randn(2, 4, 5, 5))).all()  # and a good batch makes it usable again


def test_a_nan_weight_gives_nan_in_its_output_alone():
    layer = a_layer("full")
    with torch.no_grad():
        layer.weight[2, 0, 0, 0] = float("nan")
    y = layer(torch.randn(1, 4, 5, 5))
    assert y[:, 2].isnan().all() and torch.isfinite(y[:, [0, 1, 3, 4, 5]]).all()


def test_zeros_give_the_bias():
    layer = a_layer("full")
    y = layer(torch.zeros(1, 4, 5, 5))
    assert torch.allclose(y, layer.bias.view(1, -1, 1, 1).expand_as(y), atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 7), (7,)])
def test_a_linear_layer_equals_a_loop(shape):
    layer, x = ApproxLinear(7, 4, multiplier=ROUGH), torch.randn(shape)
    y = layer(x)
    s_x, s_w = hand_scales(x, layer.weight)
    left, right = hand_codes(x, s_x).reshape(-1, 7).tolist(), hand_codes(layer.weight, s_w.view(-1, 1)).tolist()
    for row, got in zip(left, y.reshape(-1, 4)):
        for output, weights in enumerate(right):
            total = sum(int(ROUGH.table[a + 128, b + 128]) for a, b in zip(row, weights))
            expected = total * s_x.item() * s_w[output].item() + layer.bias[output].item()
            assert got[output].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert y.shape == (*shape[:-1], 4) and isinstance(layer, nn.Linear)


def test_gradients_of_a_linear_layer_are_those_of_the_exact_one():
    layer, x = ApproxLinear(7, 4, multiplier=ROUGH), torch.randn(5, 7)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight = layer.weight.detach().clone().requires_grad_()
    seed = torch.randn(5, 4)
    (layer(mine) * seed).sum().backward()
    s_x, s_w = hand_scales(x, weight.detach())
    (F.linear(fake_quantised(theirs, s_x), fake_quantised(weight, s_w.view(-1, 1))) * seed).sum().backward()
    assert torch.allclose(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    assert torch.allclose(layer.weight.grad, weight.grad, rtol=1e-4, atol=1e-5)
    assert torch.allclose(layer.bias.grad, seed.sum(dim=0))


@pytest.mark.parametrize("kind", LAYERS)
def test_the_exact_circuit_is_an_ordinary_convolution_up_to_quantisation(kind):
    layer, x = a_layer(kind, EXACT), images(kind)
    ordinary = nn.Conv2d(*LAYERS[kind][0], **LAYERS[kind][1])
    ordinary.load_state_dict(layer.state_dict(), strict=False)
    s_x, s_w = hand_scales(x, layer.weight)
    # Every operand is off by half a step at most: Σ |x| s_w/2 + |w| s_x/2 + s_x s_w/4.
    moved = (layer.stride, layer.padding, layer.dilation, layer.groups)
    ones = torch.ones_like(layer.weight)
    by_weight = F.conv2d(x.abs(), ones * s_w.view(-1, 1, 1, 1) / 2, None, *moved)
    by_input = F.conv2d(torch.ones_like(x), layer.weight.abs() * s_x / 2, None, *moved)
    bound = by_weight + by_input + layer.weight[0].numel() * (s_x * s_w).view(1, -1, 1, 1) / 4
    error = (layer(x) - ordinary(x)).abs()
    assert (error <= bound + 1e-5).all()
    assert error.max() > 0 and error.mean() < 0.02 * ordinary(x).abs().mean()


def test_layers_refuse_an_unsigned_circuit():
    for make in (
        lambda: ApproxConv2d(1, 1, 1, multiplier=UNSIGNED),
        lambda: ApproxLinear(1, 1, multiplier=UNSIGNED),
        lambda: MultiplierChoice([UNSIGNED]),
    ):
        with pytest.raises(InputError, match="unsigned"):
            make()


# -- mixtures ----------------------------------------------------------------------------------------------------------


def mixture_and_parts(kind: str, library=LIBRARY) -> tuple[MultiplierMixture, list[ApproxConv2d], Tensor]:
    """A mixture, and one separate layer of the same weights for every circuit; none has a bias, which no β scales."""
    arguments, keywords = LAYERS[kind][0], {**LAYERS[kind][1], "bias": False}
    mixture = MultiplierMixture(*arguments, **keywords, choice=MultiplierChoice(library))
    parts = [ApproxConv2d(*arguments, **keywords, multiplier=circuit) for circuit in library]
    for part in parts:
        part.load_state_dict(mixture.state_dict(), strict=False)
    return mixture, parts, torch.softmax(torch.randn(len(library)), dim=0)


def close(got: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool((got - expected).abs().max() <= tolerance * expected.abs().max())


@pytest.mark.parametrize("kind", LAYERS)
def test_a_mixture_is_the_weighted_sum_of_separate_layers(kind):
    mixture, parts, beta = mixture_and_parts(kind)
    x = images(kind)
    mixture.choice.set(beta)
    expected = sum(weight * part(x) for weight, part in zip(beta, parts))
    assert close(mixture(x), expected, 1e-5)


@pytest.mark.parametrize("library", [LIBRARY, (ROUGH, ZERO_ROW, EXACT)], ids=["published", "with zero row"])
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_a_mixture_are_those_of_separate_layers(kind, library):
    mixture, parts, beta = mixture_and_parts(kind, library)
    x, results = images(kind, 3), []
    seed = None
    for forward in (
        lambda b, x: (mixture.choice.set(b), mixture(x))[1],
        lambda b, x: sum(weight * part(x) for weight, part in zip(b, parts)),
    ):
        b, leaf = beta.clone().requires_grad_(), x.clone().requires_grad_()
        out = forward(b, leaf)
        seed = torch.randn_like(out) if seed is None else seed
        (out * seed).sum().backward()
        results.append((b.grad, leaf.grad))
    (mine_b, mine_x), (their_b, their_x) = results
    assert close(mine_b, their_b, 1e-4)
    # The straight-through gradients of M layers are the same for each; Σ β = 1 of them is that once more.
    assert close(mine_x, their_x, 1e-4)
    assert close(mixture.weight.grad, sum(part.weight.grad for part in parts), 1e-4)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_gradient_for_the_choice_is_a_difference_quotient(kind):
    """A mixture is linear in β, so that steps of any size give the derivative, up to float32 rounding."""
    mixture, _, beta = mixture_and_parts(kind)
    mixture.double()
    x = images(kind).double()
    seed = None

    def loss(b: Tensor) -> Tensor:
        nonlocal seed
        mixture.choice.set(b)
        out = mixture(x)
        seed = torch.randn_like(out) if seed is None else seed
        return (out * seed).sum()

    b = beta.double().requires_grad_()
    loss(b).backward()
    with torch.no_grad():
        steps = 2.0 * torch.eye(len(beta), dtype=torch.float64)
        quotients = torch.stack([(loss(b + step) - loss(b - step)) / 4 for step in steps])
    assert close(b.grad, quotients, 1e-8)


@pytest.mark.parametrize("index", range(len(NAMES)))
def test_a_certain_mixture_is_the_layer_of_its_circuit(index):
    for kind in LAYERS:
        mixture, parts, _ = mixture_and_parts(kind)
        mixture.choice.set(F.one_hot(torch.tensor(index), len(NAMES)).float())
        x = images(kind)
        assert close(mixture(x), parts[index](x), 1e-5)


def test_padding_goes_through_the_blended_table():
    assert not MultiplierChoice(LIBRARY).zero_has_features
    choice = MultiplierChoice((EXACT, ZERO_ROW))
    assert choice.zero_has_features
    mixture = MultiplierMixture(1, 1, 3, padding=1, bias=False, choice=choice)
    choice.set(torch.tensor([0.25, 0.75]))
    x = torch.full((1, 1, 1, 1), 2.0)
    w_codes = hand_codes(mixture.weight, mixture.weight.abs().max() / 127)
    centre = int(w_codes[0, 0, 1, 1])
    products = 0.25 * 127 * centre + 0.75 * (int(ZERO_ROW.table[127 + 128, centre + 128]) + 8 * 5)
    expected = products * 2.0 / 127 * mixture.weight.abs().max().item() / 127
    assert mixture(x).item() == pytest.approx(expected, rel=1e-5)


def test_a_mixture_adds_its_bias_once():
    mixture = MultiplierMixture(2, 3, 3, choice=MultiplierChoice(LIBRARY))
    x, y = torch.randn(2, 2, 5, 5), []
    mixture.choice.set(torch.full((len(NAMES),), 0.3))  # Σ β is not 1
    for bias in (mixture.bias.detach().clone(), torch.zeros(3)):
        mixture.bias.data = bias
        y.append(mixture(x))
    y[0].sum().backward()
    mixture.bias.data = torch.ones(3)
    assert torch.allclose(mixture.eval()(x), y[1] + 1, atol=1e-6)
    assert mixture.bias.grad.tolist() == [2 * 3 * 3] * 3


def test_layers_may_share_a_choice():
    choice = MultiplierChoice(LIBRARY[:3])
    first = MultiplierMixture(2, 2, 3, padding=1, choice=choice)
    second = MultiplierMixture(2, 2, 1, choice=choice)
    x, seeds = torch.randn(1, 2, 4, 4), torch.randn(2, 1, 2, 4, 4)
    grads = []
    for used in ((True, True), (True, False), (False, True)):
        beta = torch.full((3,), 1 / 3, requires_grad=True)
        choice.set(beta)
        parts = zip((first, second), seeds, used)
        sum((layer(x) * seed).sum() for layer, seed, wanted in parts if wanted).backward()
        grads.append(beta.grad)
    assert torch.allclose(grads[0], grads[1] + grads[2], rtol=1e-4, atol=1e-4)
