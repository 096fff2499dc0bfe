"""Convolutions through circuits: sums against plain loops, gradients against those of a fake-quantised convolution."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.arithmetic.emulate import approx_conv2d
from spaces.arithmetic.layers import ApproxConv2d, ApproxLinear
from spaces.arithmetic.mixture import MultiplierChoice, MultiplierMixture
from spaces.arithmetic.quantise import Scale, quantise, scale_from_maximum, weight_codes
from spaces.arithmetic.running_scales import RunningMaximum
from spaces.errors import InputError
from spaces.multipliers.multiplier import Multiplier
from tests.convolutions import EXACT, FULL_RANK, LIBRARY, NAMES, ROUGH, ZERO_ROW, loop_conv

# -- codes and scales --------------------------------------------------------------------------------------------------


def test_codes_by_hand():
    scale = scale_from_maximum(torch.tensor(12.7))
    assert scale.item() == pytest.approx(0.1)
    x = torch.tensor([0.0, 0.04, 0.06, -0.26, 12.7, -12.7, 12.74, 12.8, -40.0, float("nan")])
    got = quantise(x, Scale(scale, -127, 127, 128))
    assert (got.index.int() - 128).tolist() == [0, 0, 1, -3, 127, -127, 127, 127, -127, 0]
    assert got.clamped.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 0]
    assert got.scale.step.isnan()
    good = quantise(x[:7], Scale(scale, -127, 127, 128))
    assert good.clamped is None and torch.equal(good.scale.step, scale)


def test_weight_codes_spend_the_whole_range_on_every_output():
    weight = torch.randn(5, 3, 3, 3) * torch.tensor([1e-6, 0.01, 1, 100, 0]).view(-1, 1, 1, 1)
    got, scale = weight_codes(weight)
    assert scale.shape == (5,)
    got = got.int() - 128
    for channel in range(4):
        assert got[channel].abs().max() == 127
        largest = weight[channel].abs().max().item()
        assert scale[channel].item() == pytest.approx(largest / 127)
        assert torch.allclose(got[channel] * scale[channel], weight[channel], rtol=0, atol=largest / 127 * 0.501)
    assert not got[4].any()


def test_the_running_maximum_by_hand():
    running = RunningMaximum(momentum=0.1)
    running.eval()
    assert running(torch.tensor([-254.0, 3.0])).step.item() == 2.0  # nothing seen yet: the tensor at hand
    running.train()
    assert running(torch.tensor([-127.0, 3.0])).step.item() == 1.0  # the first batch sets it
    assert running(torch.tensor([254.0])).step.item() == pytest.approx(1.1)  # 0.9 · 127 + 0.1 · 254 = 139.7
    running.eval()
    assert running(torch.tensor([1e4])).step.item() == pytest.approx(1.1)
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


def a_layer(kind: str, multiplier: Multiplier = ROUGH, **more) -> ApproxConv2d:
    arguments, keywords = LAYERS[kind]
    return ApproxConv2d(*arguments, **keywords, **more, multiplier=multiplier)


@pytest.mark.parametrize("multiplier", [EXACT, ROUGH, ZERO_ROW, FULL_RANK], ids=lambda multiplier: multiplier.name)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_scales_the_reference_sums(kind, multiplier):
    layer, x = a_layer(kind, multiplier), images(kind)
    s_x, s_w = hand_scales(x, layer.weight)
    moved = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    w_codes = hand_codes(layer.weight, s_w.view(-1, 1, 1, 1))
    sums = approx_conv2d(hand_codes(x, s_x), w_codes, multiplier, **moved, engine="reference")
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
@pytest.mark.parametrize("multiplier", [EXACT, LIBRARY[-1], ZERO_ROW], ids=lambda multiplier: multiplier.name)
def test_gradients_are_those_of_the_exact_convolution(kind, multiplier):
    layer, x = a_layer(kind, multiplier), images(kind, 3)
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
    if multiplier is EXACT:
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
@pytest.mark.parametrize("multiplier", [EXACT, ZERO_ROW], ids=lambda multiplier: multiplier.name)
def test_every_padding_of_an_ordinary_convolution_works(more, kernel, multiplier):
    layer = ApproxConv2d(3, 4, kernel, multiplier=multiplier, **more)
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
        if multiplier is not EXACT:  # through the table: unfold the padded input, which ordinary padding code makes
            mode = "constant" if ordinary.padding_mode == "zeros" else ordinary.padding_mode
            padded = F.pad(x, ordinary._reversed_padding_repeated_twice, mode=mode)
            args = padded.long().numpy(), layer.weight.long().numpy(), multiplier
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
def test_the_exact_multiplier_is_an_ordinary_convolution_up_to_quantisation(kind):
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


# -- mixtures ----------------------------------------------------------------------------------------------------------


def mixture_and_parts(kind: str, library=LIBRARY) -> tuple[MultiplierMixture, list[ApproxConv2d], Tensor]:
    """A mixture, and one separate layer of the same weights for every circuit; none has a bias, which no β scales."""
    arguments, keywords = LAYERS[kind][0], {**LAYERS[kind][1], "bias": False}
    mixture = MultiplierMixture(*arguments, **keywords, choice=MultiplierChoice(library))
    parts = [ApproxConv2d(*arguments, **keywords, multiplier=multiplier) for multiplier in library]
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
    x = images(kind)
    seed = None

    def loss(b: Tensor) -> Tensor:
        nonlocal seed
        mixture.choice.set(b)
        out = mixture(x)
        seed = torch.randn_like(out) if seed is None else seed
        return (out * seed).sum()

    b = beta.clone().requires_grad_()
    loss(b).backward()
    with torch.no_grad():
        steps = 2.0 * torch.eye(len(beta))
        quotients = torch.stack([(loss(b + step) - loss(b - step)) / 4 for step in steps])
    assert close(b.grad, quotients, 1e-4)


@pytest.mark.parametrize("index", range(len(NAMES)))
def test_a_certain_mixture_is_the_layer_of_its_multiplier(index):
    for kind in LAYERS:
        mixture, parts, _ = mixture_and_parts(kind)
        mixture.choice.set(F.one_hot(torch.tensor(index), len(NAMES)).float())
        x = images(kind)
        assert close(mixture(x), parts[index](x), 1e-5)


def test_padding_goes_through_the_blended_table():
    choice = MultiplierChoice((EXACT, ZERO_ROW))
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


@pytest.mark.parametrize("channels", [2, 5])
def test_another_number_of_channels_is_refused(channels):
    with pytest.raises(InputError, match=r"must be \(N, 3, H, W\)"):
        ApproxConv2d(3, 4, 3, multiplier=EXACT)(torch.zeros(2, channels, 8, 8))
