"""Blended tables: sums and gradients against the truth table itself, whichever way a layer goes."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.arithmetic import emulate
from spaces.arithmetic.engines import feature_loops
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.mixture import depthwise, pointwise
from spaces.arithmetic.engines.mixture import mixture as mixtures
from spaces.arithmetic.layers import ApproxConv2d
from spaces.arithmetic.mixture import MultiplierChoice, MultiplierMixture
from spaces.errors import InputError
from spaces.multipliers import catalogue
from tests.convolutions import EXACT, LIBRARY, ROUGH, UNSIGNED, ZERO_ROW

RANK, PLAIN = 3, Geometry()


@dataclass(frozen=True)
class Case:
    """A layer: images, channels, height, width; outputs, kernel; and the way it goes forwards and backwards."""

    size: tuple[int, int, int, int]
    outputs: int
    kernel: tuple[int, int]
    geometry: Geometry = PLAIN
    by: str = "features"


def of_channels(channels: int, stride=(1, 1), padding=(0, 0), dilation=(1, 1)) -> Geometry:
    return Geometry(stride, padding, dilation, channels)


CASES = {
    "pointwise": Case((2, 8, 16, 17), 16, (1, 1), by="codes"),
    "pointwise, many pixels": Case((1, 16, 47, 45), 32, (1, 1), by="codes"),
    "pointwise, many pixels, odd numbers": Case((3, 5, 28, 33), 23, (1, 1), by="codes"),
    "pointwise, many channels": Case((1, 37, 47, 45), 18, (1, 1), by="codes"),
    "pointwise, several tasks of pixels": Case((1, 18, 131, 130), 2, (1, 1), by="codes"),
    "pointwise, odd numbers": Case((2, 5, 16, 17), 7, (1, 1), by="codes"),
    "pointwise, few pixels": Case((1, 8, 3, 5), 16, (1, 1), by="codes"),
    "pointwise, a pixel": Case((1, 3, 1, 1), 2, (1, 1), by="codes"),
    "pointwise, strided": Case((2, 8, 16, 17), 16, (1, 1), Geometry((2, 2))),
    "full": Case((2, 3, 7, 6), 4, (3, 3), Geometry((2, 1), (1, 2))),
    "grouped": Case((2, 6, 7, 6), 4, (3, 2), Geometry((1, 1), (0, 1), (2, 1), 2)),
    "one channel": Case((1, 1, 5, 6), 1, (3, 3), Geometry((1, 1), (1, 1))),
    "two outputs a channel": Case((1, 3, 5, 6), 6, (3, 3), of_channels(3)),
    "3×3 by windows": Case((2, 3, 14, 15), 3, (3, 3), of_channels(3, padding=(1, 1)), by="windows"),
    "3×3 by windows, many pixels": Case((4, 2, 33, 32), 2, (3, 3), of_channels(2, padding=(1, 1)), by="windows"),
    "3×3 by windows, strided": Case((1, 2, 27, 22), 2, (3, 3), of_channels(2, (2, 3), (1, 0)), by="windows"),
    "3×3 by windows, wide padding": Case((1, 2, 20, 21), 2, (3, 3), of_channels(2, padding=(3, 4)), by="windows"),
    "3×2 by windows, dilated": Case((2, 2, 14, 15), 2, (3, 2), of_channels(2, (1, 1), (2, 1), (2, 2)), by="windows"),
    "5×5 by windows": Case((2, 2, 26, 27), 2, (5, 5), of_channels(2, padding=(2, 2)), by="windows"),
    "5×3 by windows, dilated, strided": Case((2, 2, 26, 27), 2, (5, 3), of_channels(2, (2, 2), (3, 1), (1, 2)), by="windows"),
    "5×5, few pixels": Case((1, 2, 6, 7), 2, (5, 5), of_channels(2, padding=(2, 2))),
    "5×5, hardly any pixels": Case((1, 2, 2, 2), 2, (5, 5), of_channels(2, padding=(2, 2))),
    "5×5 dilated, hardly any pixels": Case((1, 2, 2, 2), 2, (5, 5), of_channels(2, (1, 1), (4, 4), (2, 2))),
    "5×5 dilated": Case((1, 3, 17, 16), 3, (5, 5), of_channels(3, (1, 1), (4, 4), (2, 2))),
    "3×3 depthwise, strided, few pixels": Case((1, 2, 8, 7), 2, (3, 3), of_channels(2, (2, 2), (1, 1))),
    "3×1 dilated": Case((1, 3, 9, 8), 3, (3, 1), of_channels(3, (1, 1), (2, 0), (2, 2))),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


def operands(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes of activations and weights, and u and v; half of the activations are zeros, as after a rectifier."""
    index = torch.randint(0, 256, case.size, dtype=torch.uint8)
    index[torch.rand(case.size) < 0.5] = 128
    inner = case.size[1] // case.geometry.groups
    w_index = torch.randint(0, 256, (case.outputs, inner, *case.kernel), dtype=torch.uint8)
    index = index.contiguous(memory_format=torch.channels_last)
    return index, w_index, torch.randn(RANK, 256), torch.randn(RANK, 256)


def meetings(case: Case):
    """Every (input pixels, input channel, output, output pixels, tap) whose products a layer adds up; padding left out."""
    geometry, (_, channels, *size) = case.geometry, case.size
    inner, each = channels // geometry.groups, case.outputs // geometry.groups
    tall, wide = geometry.output_size(tuple(size), case.kernel)
    for output, c, k, m in np.ndindex(case.outputs, inner, *case.kernel):
        row = np.arange(tall) * geometry.stride[0] - geometry.padding[0] + k * geometry.dilation[0]
        column = np.arange(wide) * geometry.stride[1] - geometry.padding[1] + m * geometry.dilation[1]
        i, j = np.flatnonzero((row >= 0) & (row < size[0])), np.flatnonzero((column >= 0) & (column < size[1]))
        yield np.ix_(row[i], column[j]), output // each * inner + c, output, np.ix_(i, j), (output, c, k, m)


def close(got: Tensor, expected: np.ndarray) -> bool:
    assert got.dtype == torch.float32 and got.shape == expected.shape
    return bool(np.abs(got.double().numpy() - expected).max() <= 1e-5 * np.abs(expected).max())


def test_sums_are_those_of_the_table(case):
    index, w_index, u, v = operands(case)
    by_weight = mixtures.weight_features(w_index, v)
    assert pointwise.suit((case.outputs, *w_index.shape[1:]), case.geometry, index.device) == (case.by == "codes")
    table = u.double().numpy().T @ v.double().numpy()
    expected = np.zeros((case.size[0], case.outputs, *case.geometry.output_size(case.size[2:], case.kernel)))
    for (i, j), c, output, (y, x), tap in meetings(case):
        expected[:, output, y, x] += table[index[:, c].numpy()[:, i, j], int(w_index[tap])]
    assert close(mixtures.convolve(index, u, by_weight, case.geometry), expected)
    if case.by == "codes":
        scale, constant, step = torch.rand(case.outputs) + 1, torch.randn(case.outputs), torch.tensor(0.3)
        weights = pointwise.Weights.of(w_index, scale, v)
        scaled = expected * (step * scale).double().numpy()[:, None, None]
        assert close(pointwise.convolve(index, u, weights, step), scaled)
        added = scaled + constant.double().numpy()[:, None, None]
        assert close(pointwise.convolve(index, u, weights, step, constant), added)


def test_gradients_are_those_of_the_table(case):
    index, w_index, _, v = operands(case)
    by_weight = mixtures.weight_features(w_index, v)
    assert depthwise.suit(index, by_weight, case.geometry) == (case.by == "windows")
    size = case.geometry.output_size(case.size[2:], case.kernel)
    grad = torch.randn(case.size[0], case.outputs, *size).contiguous(memory_format=torch.channels_last)
    by_pair, of_inputs = np.zeros((256, 256)), np.zeros(case.size)  # ∂/∂T[x̂, ŵ], and ∂/∂u_1(x̂)
    for (i, j), c, output, (y, x), tap in meetings(case):
        part, code = grad[:, output].double().numpy()[:, y, x], int(w_index[tap])
        np.add.at(by_pair[:, code], index[:, c].numpy()[:, i, j].ravel(), part.ravel())
        of_inputs[:, c, i, j] += part * float(v[1, code])
    span = torch.eye(256)
    table, inputs = mixtures.gradients(index, grad, by_weight, case.geometry, 1, span)
    assert close(table, v.double().numpy() @ by_pair.T)
    if case.by == "windows":
        assert close(depthwise.table_gradient(index, grad, by_weight, case.geometry), v.double().numpy() @ by_pair.T)
    if case.by == "codes":
        scale = torch.rand(case.outputs) + 1
        of_scaled = grad / scale.view(1, -1, 1, 1)
        for often in (128, 3):  # whichever code is the most frequent one
            got = pointwise.table_gradient(index, of_scaled, pointwise.Weights.of(w_index, scale, v), often)
            assert close(got, v.double().numpy() @ by_pair.T)
    assert close(inputs, of_inputs)
    assert mixtures.gradients(index, grad, by_weight, case.geometry, None, span)[1] is None


@pytest.mark.parametrize(
    "case",
    [
        Case((5, 16, 28, 33), 32, (1, 1), by="codes"),
        Case((5, 16, 28, 33), 5, (1, 1), Geometry((2, 1))),
        Case((5, 16, 28, 33), 16, (5, 5), of_channels(16, padding=(2, 2)), by="windows"),
        Case((5, 16, 28, 33), 16, (3, 1), of_channels(16, padding=(1, 2))),
    ],
    ids=["codes", "strided", "windows", "features"],
)
def test_threads_do_not_change_anything(case):
    index, w_index, u, v = operands(case)
    by_weight, results = mixtures.weight_features(w_index, v), []
    size = case.geometry.output_size(case.size[2:], case.kernel)
    grad = torch.randn(case.size[0], case.outputs, *size).contiguous(memory_format=torch.channels_last)
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            sums = mixtures.convolve(index, u, by_weight, case.geometry)
            gradients = mixtures.gradients(index, grad, by_weight, case.geometry, 0, torch.eye(256))
            own = (depthwise.table_gradient(index, grad, by_weight, case.geometry),) if case.by == "windows" else ()
            if case.by == "codes":
                weights = pointwise.Weights.of(w_index, torch.ones(case.outputs), v)
                sums_of_codes = pointwise.convolve(index, u, weights, torch.ones(()))
                own = (sums_of_codes, pointwise.table_gradient(index, grad, weights, 128))
            results.append((sums, *gradients, *own))
    finally:
        torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other))


# -- what other devices do, on this one --------------------------------------------------------------------------------


def test_features_on_a_device_are_the_same():
    index, _, u, _ = operands(CASES["grouped"])
    pixels = index.permute(0, 2, 3, 1).contiguous()
    for groups in (1, 2, 6):
        assert torch.equal(mixtures._expand_on_device(pixels, u, groups), mixtures._expand(index, u, groups))


def test_gradients_of_features_in_one_call_are_the_same():
    for name in ("5×5, few pixels", "3×3 depthwise, strided, few pixels", "5×5 dilated", "grouped"):
        case = CASES[name]
        _, w_index, _, v = operands(case)
        grad = torch.randn(case.size[0], case.outputs, *case.geometry.output_size(case.size[2:], case.kernel))
        each, at_once = (
            mixtures._feature_gradients(
                grad, mixtures.weight_features(w_index, v), torch.Size(case.size), case.geometry, how
            )
            for how in (False, True)
        )
        assert all(torch.allclose(*pair, rtol=1e-4, atol=1e-5) for pair in zip(each, at_once)) and len(each) == RANK


def test_a_projected_gradient_is_the_same_for_every_multiplier():
    choice = MultiplierChoice(LIBRARY)
    index, parts = torch.randint(0, 256, (2, 3, 9, 8), dtype=torch.uint8), list(torch.randn(5, 2, 3, 9, 8))
    sums, projected = mixtures._sums_by_code(index, parts), mixtures._projected(index, parts, choice.span)
    assert choice.span.shape == (256, 7)  # what the library makes of an activation has seven degrees of freedom
    for part in choice.u:
        expected = float((part * sums).sum())
        assert float((part * projected).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-2)


@pytest.mark.parametrize("size", [(3, 4), (5000, 7), (1, 1)])
def test_sums_by_code_are_a_weighted_count(size):
    index, values = torch.randint(0, 256, size, dtype=torch.uint8), torch.randn(size)
    expected = np.bincount(index.flatten().numpy(), weights=values.flatten().double().numpy(), minlength=256)
    assert close(torch.from_numpy(feature_loops.sum_by_code(index.numpy(), values.numpy())), expected)


# -- layers whose maps are large enough for every way ------------------------------------------------------------------


KINDS = {
    "pointwise": (1, {}),
    "3×3": (3, {"padding": 1, "groups": 16}),
    "5×5 strided": (5, {"padding": 2, "stride": 2, "groups": 16}),
    "3×3 dilated": (3, {"padding": 2, "dilation": 2, "groups": 16}),
    "5×5 dilated": (5, {"padding": 4, "dilation": 2, "groups": 16}),
}
LIBRARIES = {
    "published": LIBRARY,
    "zero is something": (ROUGH, ZERO_ROW, EXACT),
    "one": (catalogue.get("mul8s_1L2D"),),
    "unsigned": (UNSIGNED, catalogue.get("trunc8u_2_3")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_mixture_is_the_sum_of_layers_and_so_are_its_gradients(library, kind):
    kernel, keywords = KINDS[kind]
    multipliers, x = LIBRARIES[library], torch.randn(6, 16, 16, 16).contiguous(memory_format=torch.channels_last)
    mixture = MultiplierMixture(16, 16, kernel, bias=False, choice=MultiplierChoice(multipliers), **keywords)
    parts = [ApproxConv2d(16, 16, kernel, bias=False, multiplier=multiplier, **keywords) for multiplier in multipliers]
    for part in parts:
        part.load_state_dict(mixture.state_dict(), strict=False)
    results, seed = [], torch.randn_like(parts[0](x))
    for forward in (
        lambda b, x: (mixture.choice.set(b), mixture(x))[1],
        lambda b, x: sum(share * part(x) for share, part in zip(b, parts)),
    ):
        b, leaf = F.softmax(torch.arange(float(len(multipliers))), dim=0).requires_grad_(), x.clone().requires_grad_()
        out = forward(b, leaf)
        results.append((out, *torch.autograd.grad(out, (b, leaf), seed)))
    (mine, mine_b, mine_x), (theirs, their_b, their_x) = results
    assert mine.is_contiguous(memory_format=torch.channels_last)
    assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert (mine_x - their_x).abs().max() <= 1e-5 * their_x.abs().max()
    # As shares sum to 1, what all circuits have in common has no say in a choice, such as a zero point's part.
    difference = mine_b - their_b
    assert (difference - difference.mean()).abs().max() <= 2e-5 * their_b.abs().max()
    assert library == "unsigned" or difference.abs().max() <= 2e-5 * their_b.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_a_certain_mixture_is_its_multipliers_layer_bit_for_bit(kind):
    kernel, keywords = KINDS[kind]
    x = torch.randn(6, 16, 16, 16).contiguous(memory_format=torch.channels_last)
    mixture = MultiplierMixture(16, 16, kernel, bias=False, choice=MultiplierChoice(LIBRARY), **keywords)
    for index in (0, 5, 12):
        part = ApproxConv2d(16, 16, kernel, bias=False, multiplier=LIBRARY[index], **keywords)
        part.load_state_dict(mixture.state_dict(), strict=False)
        mixture.choice.set(F.one_hot(torch.tensor(index), len(LIBRARY)).float())
        assert torch.equal(mixture(x), part(x))
        mixture.activation_scale.maximum.zero_()  # so that each sees its first batch


# -- engines -----------------------------------------------------------------------------------------------------------


def mixture_under(engine, layer, x):
    """Output, and gradients for input, weight and blend, with one engine for all."""
    try:
        emulate.use_engine(engine)
        leaf, probabilities = x.clone().requires_grad_(), torch.linspace(1, 2, len(LIBRARY)).softmax(0).requires_grad_()
        layer.choice.set(probabilities)
        y = layer(leaf)
        weights = torch.linspace(-1, 1, y.numel()).reshape_as(y)
        return y.detach(), *torch.autograd.grad((y * weights).sum(), (leaf, layer.weight, probabilities))
    finally:
        emulate.use_engine("auto")


@pytest.mark.parametrize("inputs, outputs, kernel, groups", [(8, 16, 1, 1), (4, 4, 3, 4), (4, 6, 3, 1)])
def test_every_engine_computes_the_same_mixture(inputs, outputs, kernel, groups):
    layer = MultiplierMixture(inputs, outputs, kernel, groups=groups, bias=False, choice=MultiplierChoice(LIBRARY))
    layer.eval()
    x = torch.randn(2, inputs, 6, 7)
    expected = mixture_under("auto", layer, x)
    for engine in ("float32", "gather", "int8"):
        for one, other in zip(mixture_under(engine, layer, x), expected):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item()), engine


@pytest.mark.parametrize("engine", ["float32", "gather", "auto", "int8"])
def test_one_multiplier_of_a_mixture_is_its_own_layer_whatever_the_engine(engine):
    for which, multiplier in enumerate(LIBRARY):
        own = ApproxConv2d(8, 16, 1, bias=False, multiplier=multiplier)
        mixture = MultiplierMixture(8, 16, 1, bias=False, choice=MultiplierChoice(LIBRARY))
        mixture.load_state_dict(own.state_dict(), strict=False)
        mixture.choice.set(torch.eye(len(LIBRARY))[which])
        x = torch.randn(2, 8, 5, 5)
        try:
            emulate.use_engine(engine)
            got = mixture(x)
        finally:
            emulate.use_engine("auto")
        assert torch.equal(got, own(x))


def test_an_engine_that_is_asked_for_computes_mixtures(monkeypatch):
    used = []
    convolve = pointwise.convolve
    monkeypatch.setattr(pointwise, "convolve", lambda *operands: used.append(1) or convolve(*operands))
    layer = MultiplierMixture(8, 16, 1, bias=False, choice=MultiplierChoice(LIBRARY))
    for engine, calls in (("auto", 1), ("int8", 1), ("gather", 1), ("float32", 0)):
        used.clear()
        mixture_under(engine, layer, torch.randn(1, 8, 6, 7))
        assert len(used) == calls, engine


def test_a_rank_beyond_eight_of_few_pixels():
    index, w_index = torch.randint(0, 256, (2, 6, 5, 4), dtype=torch.uint8), torch.randint(0, 256, (9, 6, 1, 1))
    u, v, grad, w_index = torch.randn(11, 256), torch.randn(11, 256), torch.randn(2, 9, 5, 4), w_index.to(torch.uint8)
    weights, table = pointwise.Weights.of(w_index, torch.ones(9), v), u.double().t() @ v.double()
    products = table[index.int()[:, None], w_index.int()[None]]  # (N, O, C, H, W)
    assert close(pointwise.convolve(index, u, weights, torch.ones(())), products.sum(dim=2).numpy())
    expected = torch.zeros(11, 256, dtype=torch.float64)
    for output, channel in np.ndindex(9, 6):
        code, own = int(w_index[output, channel]), index[:, channel].flatten().int()
        by_code = torch.zeros(256, dtype=torch.float64).index_add_(0, own, grad[:, output].flatten().double())
        expected += v[:, code].double()[:, None] * by_code
    assert close(pointwise.table_gradient(index, grad, weights, 0), expected.numpy())


@pytest.mark.parametrize("groups, kernel", [(1, 1), (8, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_mixtures_of_other_precisions_are_those_of_float32(groups, kernel, dtype):
    choice = MultiplierChoice(LIBRARY)
    layer = MultiplierMixture(8, 8, kernel, padding=kernel // 2, groups=groups, bias=False, choice=choice)
    x, b = torch.randn(2, 8, 6, 7), torch.full((len(LIBRARY),), 1 / len(LIBRARY))
    choice.set(b)
    expected = layer(x)
    layer.activation_scale.maximum.zero_()
    layer.to(dtype)
    choice.set(b.to(dtype))
    got = layer(x.to(dtype))
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-3
    assert got.dtype == dtype and (got.float() - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("groups, kernel", [(1, 1), (8, 3)])
def test_mixtures_compute_in_inference_mode(groups, kernel):
    choice = MultiplierChoice(LIBRARY)
    layer = MultiplierMixture(8, 8, kernel, padding=kernel // 2, groups=groups, bias=False, choice=choice)
    choice.set(torch.full((len(LIBRARY),), 1 / len(LIBRARY)))
    x = torch.randn(2, 8, 6, 7)
    expected = layer(layer(x))
    with torch.inference_mode():
        assert torch.allclose(layer.eval()(layer(x)), expected, atol=0.1 * expected.abs().max().item())


def test_another_number_of_channels_is_refused():
    layer = MultiplierMixture(8, 16, 1, choice=MultiplierChoice(LIBRARY))
    with pytest.raises(InputError, match=r"\(N, 8, H, W\)"):
        layer(torch.zeros(1, 4, 5, 5))
