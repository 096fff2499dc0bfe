"""The Triton kernels around the sums of products, in Triton's interpreter, beside torch's operations.

The interpreter is chosen when kernels are imported, so that its tests run in a process of their own.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from spaces.arithmetic import convolution, kernel_mixture, normalised_sum, quantise, running_scales
from spaces.arithmetic import mixture as mixed
from spaces.arithmetic.engines.geometry import Geometry
from spaces.arithmetic.engines.gpu import depthwise as by_codes
from spaces.arithmetic.engines.gpu import launching, normalised, quantisation, weights
from spaces.arithmetic.engines.gpu import mixture as by_kernels
from spaces.arithmetic.engines.mixture import mixture as by_torch
from spaces.arithmetic.mixture import MultiplierChoice, MultiplierMixture
from spaces.arithmetic.quantise import Scale
from spaces.arithmetic.running_scales import RunningMaximum, RunningRange
from spaces.multipliers.multiplier import Multiplier
from tests.convolutions import LIBRARY, ROUGH, ZERO_ROW
from tests.kernel_cases import INTERPRETED

HAS_TRITON = importlib.util.find_spec("triton") is not None
NAN, INF = float("nan"), float("inf")
ON_DEVICE = torch.tensor(70, dtype=torch.int32)  # a code that is not waited for
UNSIGNED_PAIR = tuple(
    Multiplier(f"unsigned {number}", False, np.multiply.outer(np.arange(256), np.arange(256)) + number * errors)
    for number, errors in enumerate(np.random.default_rng(3).integers(-90, 91, (2, 256, 1)) * np.arange(256))
)
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in .*:RuntimeWarning")  # numpy's, of NaN and infinities
interpreted = pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="runs under TRITON_INTERPRET=1")


@pytest.mark.skipif(INTERPRETED or not HAS_TRITON, reason="starts the interpreter, in which the others run")
def test_the_kernels_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "interpreter_", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed", done.stdout)


def same(found: Tensor, expected: Tensor) -> bool:
    """Bit for bit, NaN included, in the same order of memory."""
    return (
        torch.equal(found.nan_to_num(nan=-7.0), expected.nan_to_num(nan=-7.0)) and found.stride() == expected.stride()
    )


# -- codes -------------------------------------------------------------------------------------------------------------

SCALES = {
    "ties": Scale(torch.tensor(1.0), -127, 127, 128),
    "few codes": Scale(torch.tensor(0.01), -7, 7, 128),
    "signed": Scale.symmetric(torch.tensor(2.0)),
    "unsigned": Scale.affine(torch.tensor(-1.0), torch.tensor(2.0)),
    "all zero": Scale.symmetric(torch.tensor(0.0)),
    "NaN": Scale(torch.tensor(NAN), -127, 127, 128),
    "infinite": Scale(torch.tensor(INF), -127, 127, 128),
}


def activations(nan: bool) -> Tensor:
    x = torch.randn((2, 3, 5, 7), generator=torch.Generator().manual_seed(0)).contiguous(
        memory_format=torch.channels_last
    )
    x[0, 0, 0] = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 127.5, -127.5])
    x[0, 1, 0] = torch.tensor([INF, -INF, -0.0, 1e-40, 1e30, 126.5, -3e38])
    if nan:
        x[1, 2, 4, 6] = NAN
    return x


@interpreted
@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("name", SCALES)
def test_interpreter_codes(name, nan, monkeypatch):
    monkeypatch.setattr(quantisation, "BLOCK", 64)
    x, scale = activations(nan), SCALES[name]
    expected = quantise.codes_by_torch(x.clone(), scale)
    numbers = (scale.low, scale.high, scale.zero)
    for codes in (numbers, [torch.tensor(number, dtype=torch.int32) for number in numbers]):
        for spare in (None, scale.step.clone()):
            given = scale.step.clone()
            index, clamped, step = quantisation.codes(x, given, *codes, spare)
            assert same(index, expected.index) and same(clamped, expected.clamped) and same(step, expected.scale.step)
            assert same(given, scale.step) and (spare is None or step is spare)


@interpreted
@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (70, 1, 3, 3), (3, 300, 1, 1), (4, 7), (1, 1)])
def test_interpreter_weight_codes(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weight[0, 0] = INF
    weight[1:2] = 0
    weight[2:3, -1] = NAN
    if len(shape) == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    expected = quantise.weight_codes_by_torch(weight)
    index, scale = quantisation.weight_codes(weight, 127, float(quantise.SMALLEST_SCALE), 128)
    assert same(index, expected[0]) and same(scale, expected[1])


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_interpreter_look_ups(dtype):
    index = torch.randint(0, 256, (2, 3, 19, 17), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    values = torch.randn(256).to(dtype)
    found = quantisation.look_up(index, values)
    assert torch.equal(found, values[index.int()]) and found.stride() == index.stride()


@interpreted
@pytest.mark.parametrize("kind", [RunningMaximum, RunningRange])
def test_interpreter_running_scales(kind):
    """Averages and scales over several batches are those of the CPU, whose numbers are not torch's tensors."""
    mine, theirs, generator = kind(), kind(), torch.Generator().manual_seed(2)
    levels = {"momentum": 0.1, "smallest": float(quantise.SMALLEST_SCALE)}
    for number, size in enumerate((1.0, 30.0, 1e-3, 0.0, 7.0, NAN)):
        x = torch.randn((3, 4, 5), generator=generator) * size + number % 3 * size
        scale, (low, high) = mine(x), (x.amin(), x.amax())
        if kind is RunningMaximum:
            step, spare = quantisation.moved_maximum(low, high, theirs.maximum, levels=127, **levels)
        else:
            levels["momentum"] = float(torch.tensor(0.1))
            step, spare, codes = quantisation.moved_range(
                low, high, theirs.minimum, theirs.maximum, levels=255, **levels
            )
            assert codes.tolist() == [scale.low, scale.high, scale.zero]
            assert same(theirs.minimum, mine.minimum)
        assert same(step, scale.step) and same(spare, scale.step) and same(theirs.maximum, mine.maximum)


@interpreted
@pytest.mark.parametrize("unsigned", [False, True])
def test_interpreter_layers_use_the_kernels(unsigned, monkeypatch):
    """The way to them, on a device that is said to run them: launches are counted."""
    launched: list[str] = []
    launch = launching.launch
    monkeypatch.setattr(quantisation, "works_on", lambda _: True)
    monkeypatch.setattr(
        quantisation, "launch", lambda name, *rest, **more: (launched.append(name), launch(name, *rest, **more))
    )
    x = activations(nan=False).nan_to_num(posinf=9.0, neginf=-9.0).clamp(-50, 50)
    scale = (RunningRange() if unsigned else RunningMaximum()).train()(x)
    codes = quantise._quantise_on_device(x, scale)
    expected = quantise.codes_by_torch(x, scale)
    assert same(codes.index, expected.index) and same(codes.clamped, expected.clamped)
    assert launched == [*(["running_range_kernel"] if unsigned else []), "quantise_kernel"]


# -- mixtures ----------------------------------------------------------------------------------------------------------

# Images, channels, height, width; outputs, kernel; geometry; features of a code; pixels × channels of a depthwise tile;
# the code of padded positions, of which None adds nothing.
MIXTURES = {
    "pointwise": ((2, 5, 4, 5), 7, (1, 1), Geometry(), 5, 512, None),
    "strided": ((1, 16, 9, 9), 17, (1, 1), Geometry((2, 3)), 8, 512, None),
    "dense": ((1, 3, 5, 6), 4, (3, 3), Geometry((2, 1), (1, 2), (1, 2)), 3, 512, None),
    "dense, with a border": ((2, 3, 5, 6), 4, (3, 3), Geometry((2, 1), (1, 2)), 3, 512, 200),
    "one feature": ((1, 20, 3, 2), 3, (3, 1), Geometry(padding=(1, 0)), 1, 512, None),
    "many features": ((1, 9, 3, 3), 5, (1, 1), Geometry(), 16, 512, None),
    "depthwise": ((2, 5, 6, 5), 5, (3, 3), Geometry(padding=(1, 1), groups=5), 5, 512, None),
    "depthwise, with a border": ((2, 5, 6, 5), 5, (3, 3), Geometry(padding=(1, 1), groups=5), 5, 512, 200),
    "depthwise, words with a border": ((2, 8, 4, 5), 8, (5, 3), Geometry((1, 2), (4, 1), (2, 1), 8), 5, 256, 255),
    "depthwise, a border on the device": (
        (2, 4, 4, 5),
        4,
        (3, 3),
        Geometry((1, 1), (1, 1), groups=4),
        5,
        256,
        ON_DEVICE,
    ),
    "depthwise, one pixel": ((2, 4, 1, 1), 4, (3, 3), Geometry(padding=(1, 1), groups=4), 5, 256, 128),
    "depthwise, several programs": ((1, 40, 4, 3), 40, (3, 3), Geometry(padding=(1, 1), groups=40), 3, 256, None),
    "depthwise, many features": ((2, 8, 4, 5), 8, (3, 3), Geometry(padding=(1, 1), groups=8), 11, 256, 200),
    "depthwise, dilated": ((1, 3, 9, 8), 3, (5, 3), Geometry((2, 1), (4, 2), (2, 2), 3), 4, 512, None),
}


def near(found: Tensor, expected: Tensor, share: float = 1e-5) -> bool:
    return bool((found - expected).abs().max() <= share * expected.abs().max().clamp_min(1))


@interpreted
@pytest.mark.parametrize("name", MIXTURES)
def test_interpreter_mixtures(name, monkeypatch):
    """Sums, the gradients of activations, and the table's, which torch gets from maps of features."""
    size, outputs, kernel, geometry, rank, tile, border = MIXTURES[name]
    monkeypatch.setattr(by_kernels, "TILE_DEPTHWISE", tile)
    monkeypatch.setattr(by_kernels, "TILE_GRADIENT", tile)
    monkeypatch.setattr(by_kernels, "BLOCKS", 2)
    torch.manual_seed(3)
    index = torch.randint(0, 256, size, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    w_index = torch.randint(0, 256, (outputs, size[1] // geometry.groups, *kernel), dtype=torch.uint8)
    u, v, scale = torch.randn(rank, 256), torch.randn(rank, 256), torch.rand(outputs) + 0.1
    span = torch.linalg.qr(torch.randn(256, 6))[0]
    basis, step = by_kernels.Basis(*map(by_kernels.features_by_code, (v, span.t())), rank, 6), torch.tensor(0.3)
    held = (basis, by_kernels.weights_of(w_index, scale, basis, geometry.groups > 1), geometry, step, border)
    y = by_kernels.convolve(index, by_kernels.features_by_code(u), *held)
    features, padded, moved, (top, left) = by_torch.weight_features(w_index, v), index, geometry, (0, 0)
    if border is not None:
        padded, moved, (top, left) = geometry.pad(index, border), geometry.unpadded(), geometry.padding
    expected = by_torch.convolve(padded, u, features, moved) * (scale * step).view(1, -1, 1, 1)
    assert near(y, expected) and y.is_contiguous(memory_format=torch.channels_last)

    grad = torch.randn_like(y)
    scaled = features * scale.view(-1, 1, 1, 1, 1)
    table, for_x = by_torch.gradients(padded, grad, scaled, moved, 0, span)
    if geometry.groups > 1:
        clamped = torch.randint(0, 2, size, dtype=torch.uint8)
        found, found_x = by_kernels.depthwise_gradients(index, clamped, grad, *held)
        assert near(found_x, for_x[:, :, top : top + size[2], left : left + size[3]] * (clamped == 0))
        again, unclamped = by_kernels.depthwise_gradients(index, None, grad, *held)
        assert near(unclamped, for_x[:, :, top : top + size[2], left : left + size[3]])
    else:
        found, again = (by_kernels.dense_table_gradient(index, grad, *held) for _ in range(2))
    assert near(found, table @ span * step) and torch.equal(found, again)


@interpreted
@pytest.mark.parametrize("groups", [1, 4])
def test_interpreter_mixtures_of_no_images(groups):
    geometry, by_code, scale = Geometry(padding=(1, 1), groups=groups), torch.randn(257, 8), torch.ones(4)
    index, w_index = (
        torch.empty((0, 4, 3, 3), dtype=torch.uint8),
        torch.zeros((4, 4 // groups, 3, 3), dtype=torch.uint8),
    )
    basis = by_kernels.Basis(by_code, by_code, 8, 8)
    held = (basis, by_kernels.weights_of(w_index, scale, basis, groups > 1), geometry, torch.ones(()), 128)
    y = by_kernels.convolve(index, by_code, *held)
    if groups > 1:
        table, for_x = by_kernels.depthwise_gradients(index, None, y, *held)
        assert for_x.shape == (0, 4, 3, 3)
    else:
        table = by_kernels.dense_table_gradient(index, y, *held)
    assert y.shape == (0, 4, 3, 3) and torch.equal(table, torch.zeros(8, 8))


@interpreted
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("library", [LIBRARY, (ZERO_ROW, ROUGH), UNSIGNED_PAIR], ids=["13", "zero", "unsigned"])
@pytest.mark.parametrize(
    ("sizes", "moves"), [((4, 6, 1), {}), ((4, 4, 3), {"padding": 2, "dilation": 2, "groups": 4})], ids=["1x1", "3x3"]
)
def test_interpreter_mixed_layers(sizes, moves, library, training, monkeypatch):
    """The whole layer either way, whatever has a gradient; a padded position that adds something included."""
    launched, launch = [], by_kernels.launch
    monkeypatch.setattr(
        by_kernels, "launch", lambda name, *rest, **more: (launched.append(name), launch(name, *rest, **more))
    )
    for loops in (mixed.depthwise, mixed.pointwise):  # as on other devices than the CPU
        monkeypatch.setattr(loops, "suit", lambda *_: False)
    layer = MultiplierMixture(*sizes, choice=MultiplierChoice(library), **moves).to(memory_format=torch.channels_last)
    x = torch.randn((2, 4, 4, 4)).contiguous(memory_format=torch.channels_last)
    results = []
    for kernels in (False, True):
        monkeypatch.setattr(by_kernels, "works_on", lambda _, kernels=kernels: kernels)
        logits, pixels = torch.linspace(-1, 1, len(library)).requires_grad_(), x.clone().requires_grad_()
        layer.choice.set(logits.softmax(-1))
        layer.activation_scale = mixed.activation_scale(layer.choice.signed)  # that has seen nothing
        y, leaves = layer.train(training)(pixels), (logits, pixels, layer.weight)
        results.append((y, *torch.autograd.grad(y.square().sum(), leaves, retain_graph=True)))
        for number, leaf in enumerate(leaves, 1):  # alone: the others are not computed
            alone = layer(pixels.detach() if leaf is not pixels else pixels)
            (found,) = torch.autograd.grad(alone.square().sum(), leaf)
            assert training or near(found, results[-1][number], 1e-4)
            results[-1] = (*results[-1], found)
    for expected, found in zip(*results):
        assert near(found, expected, 1e-3 if library is UNSIGNED_PAIR else 1e-4)
    kind, backwards = ("depthwise", "depthwise_gradient") if "groups" in moves else ("matrix", "matrix_table")
    assert {f"blend_{kind}_kernel", f"blend_{backwards}_kernel"} <= set(launched)


@interpreted
def test_interpreter_a_single_multiplier_is_exact_in_a_mixture(monkeypatch):
    """With all of the probability on one, the sums are those of its table, to the last bit."""
    monkeypatch.setattr(by_kernels, "works_on", lambda _: True)
    choice = MultiplierChoice(LIBRARY)
    index = torch.randint(0, 256, (1, 8, 3, 3), dtype=torch.uint8)
    w_index = torch.randint(0, 256, (5, 8, 1, 1), dtype=torch.uint8)
    for number, table in enumerate(choice.tables):
        choice.set(torch.eye(len(LIBRARY))[number])
        weight = by_kernels.weights_of(w_index, torch.ones(5), choice.basis, depthwise=False)
        y = by_kernels.convolve(index, choice.u_by_code, choice.basis, weight, Geometry(), torch.ones(()))
        products = torch.tensor(table.table)[index.long()[:, None], w_index.long()[None]]
        assert torch.equal(y.long(), products.sum(dim=2))


@interpreted
@pytest.mark.parametrize("channels", [4, 5])
def test_interpreter_depthwise_layers_tell_their_range(channels, monkeypatch):
    """Of every program's part, so that the next layer need not look for it; of a NaN in one channel, too."""
    monkeypatch.setattr(by_kernels, "TILE_DEPTHWISE", 64)
    geometry, u, v = Geometry(padding=(1, 1), groups=channels), *torch.randn((2, 3, 256))
    basis = by_kernels.Basis(*map(by_kernels.features_by_code, (v, v)), 3, 3)
    index = torch.randint(0, 256, (2, channels, 9, 8), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    w_index, scale = torch.randint(0, 256, (channels, 1, 3, 3), dtype=torch.uint8), torch.rand(channels)
    weight = by_kernels.weights_of(w_index, scale, basis, depthwise=True)
    held = (index, by_kernels.features_by_code(u), basis, weight, geometry)
    y = by_kernels.convolve(*held, torch.tensor(-0.5))
    low, high = running_scales.ranges_of_parts(y)
    assert len(low) == len(high) == 3 * (5 if channels == 5 else 1)
    assert low.min() == y.min() and high.max() == y.max() and bool((low > y.min()).any())
    scale[2] = NAN
    low, high = running_scales.ranges_of_parts(by_kernels.convolve(*held, torch.tensor(1.0)))
    assert low.isnan().any() and high.isnan().any()
    running = torch.tensor(1.0)
    steps = quantisation.moved_maximum(low, high, running, 0.1, 127, 1e-30)
    assert running.isnan() and all(step.isnan() for step in steps)
    y.add_(1)
    assert running_scales.ranges_of_parts(y)[0] == y.min()


@interpreted
def test_interpreter_a_network_codes_its_weights_together(monkeypatch):
    """By two launches, to what each layer's own give bit for bit; a weight that has changed since is coded anew."""
    launched, launch = [], launching.launch
    for kernels in (by_kernels, quantisation, weights):
        monkeypatch.setattr(kernels, "works_on", lambda _: True)
        monkeypatch.setattr(
            kernels, "launch", lambda name, *rest, **more: (launched.append(name), launch(name, *rest, **more))
        )
    monkeypatch.setattr(quantise, "weight_codes", lambda w: quantisation.weight_codes(w, 127, 1e-32, 128))
    monkeypatch.setattr(kernel_mixture, "weight_codes", quantise.weight_codes)
    choices = mixed.MultiplierChoices(MultiplierChoice(LIBRARY) for _ in range(2))
    net = torch.nn.Sequential(
        MultiplierMixture(4, 4, 3, padding=1, groups=4, choice=choices[0]),
        MultiplierMixture(4, 6, 1, choice=choices[1]),
        MultiplierMixture(6, 5, 3, bias=False, choice=choices[1]),
    ).to(memory_format=torch.channels_last)
    x = torch.randn((2, 4, 5, 5)).contiguous(memory_format=torch.channels_last)
    probabilities = torch.rand(2, len(LIBRARY), requires_grad=True)

    def results() -> tuple[Tensor, ...]:
        y = net.eval()(x)
        return (y, *torch.autograd.grad(y.square().sum(), [probabilities, *net.parameters()], retain_graph=True))

    choices.set_all(probabilities, net)
    together, counts = results(), launched.count("weight_codes_kernel")
    assert counts == 0 and launched.count("all_weight_codes_kernel") == 1
    assert all(torch.equal(one, other) for one, other in zip(together, results()))
    choices.set_all(probabilities, net)
    launched.clear()
    with torch.no_grad():
        net[1].weight.mul_(-2)
    changed = results()[0]
    assert launched.count("weight_codes_kernel") == 1 and not torch.equal(changed, together[0])
    last = net[2].weight
    for other in (
        torch.zeros_like(last),  # elsewhere in the memory
        last.data.contiguous(memory_format=torch.contiguous_format),
        last.data.double(),
        torch.ones((5, 12, 3, 3))[:, ::2],  # with gaps between
    ):
        last.data = other
        choices.set_all(probabilities, net)
        coded = net(x).detach()
        assert torch.equal(coded, net(x)) and (net[2].weight.any() or not coded.any())


# -- gradients of depthwise layers, from codes -------------------------------------------------------------------------


@interpreted
@pytest.mark.parametrize("tile", [256, 1024])
@pytest.mark.parametrize("zero_point", [0, ON_DEVICE])
@pytest.mark.parametrize(
    "geometry",
    [Geometry(padding=(1, 1), groups=6), Geometry((2, 1), (2, 4), (1, 2), 6), Geometry((2, 2), (0, 1), (2, 2), 8)],
)
def test_interpreter_depthwise_gradients(geometry, zero_point, tile, monkeypatch):
    """Those of a quantised layer by the library, wherever values are clamped."""
    monkeypatch.setattr(by_codes, "TILE_INPUT", tile)
    monkeypatch.setattr(by_codes, "TILE_WEIGHT", tile)
    table, generator = LIBRARY[1], torch.Generator().manual_seed(5)
    factors = convolution.gradient_factors(mixed.layer_table(table), "straight-through")
    size = (2, geometry.groups, 9, 11)
    index, clamped = (torch.randint(0, high, size, generator=generator, dtype=torch.uint8) for high in (256, 2))
    w_index = torch.randint(0, 256, (size[1], 1, 3, 5), generator=generator, dtype=torch.uint8)
    w_index = w_index.transpose(2, 3).contiguous().transpose(2, 3)  # as a user's quantiser may leave it
    step, w_scale = torch.tensor(0.1), torch.rand(size[1], generator=generator)
    grad = torch.randn(geometry.conv2d(index.float(), w_index.float()).shape, generator=generator)
    held = (grad, index, step, w_index, w_scale, factors, zero_point, geometry)
    for wanted in ((True, True), (True, False), (False, True)):
        expected = convolution.product_gradients(*held, wanted, clamped)
        with monkeypatch.context() as on_a_gpu:
            on_a_gpu.setattr(by_codes, "suits", lambda *_: True)
            found = convolution.product_gradients(*held, wanted, clamped)
            unclamped, _ = convolution.product_gradients(*held, wanted)
        assert [one is None for one in found] == [not one for one in wanted]
        assert all(one is None or near(one, other) for one, other in zip(found, expected))
        if unclamped is not None:
            assert near(unclamped * (clamped == 0), expected[0]) and not torch.equal(unclamped, found[0])


# -- sums of normalised maps -------------------------------------------------------------------------------------------


@interpreted
@pytest.mark.parametrize("tile", [64, 4096])
@pytest.mark.parametrize(
    ("count", "size"), [(1, (2, 3, 5, 4)), (8, (2, 16, 4, 4)), (11, (3, 70, 3, 2))], ids=["odd", "full", "groups"]
)
def test_interpreter_normalised_sums(count, size, tile, monkeypatch):
    """The sum, all gradients and moved averages are those of the loops on a CPU."""
    monkeypatch.setattr(normalised, "TILE", tile)
    monkeypatch.setattr(normalised, "TILE_SUM", tile // 2)
    monkeypatch.setattr(normalised, "MOST_CHANNELS", 16)
    torch.manual_seed(6)
    maps = [(torch.randn(size) * (1 + number) + 5 * number).requires_grad_(number != 4) for number in range(count)]
    weights, grad, results = torch.rand(count, requires_grad=True), torch.randn(size), []
    for engine in (normalised_sum.loops, normalised):
        monkeypatch.setattr(normalised_sum, "_engine", lambda _, engine=engine: engine)
        norms = [
            torch.nn.Identity() if number % 3 == 1 else torch.nn.BatchNorm2d(size[1], affine=False)
            for number in range(count)
        ]
        y = normalised_sum.normalised_sum(weights, maps, norms)
        found = torch.autograd.grad(y, [weights, *(x for x in maps if x.requires_grad)], grad)
        averages = [buffer for norm in norms for buffer in norm.buffers() if buffer.dim()]
        results.append((y, *found, *averages))
    assert all(near(found, expected, 1e-4) for expected, found in zip(*results))
    assert results[1][0].is_contiguous(memory_format=torch.channels_last)


@interpreted
def test_interpreter_normalised_sums_hide_no_nan(monkeypatch):
    monkeypatch.setattr(normalised_sum, "_engine", lambda _: normalised)
    maps, norms = (
        [torch.randn((2, 4, 6, 6)) for _ in range(2)],
        [torch.nn.BatchNorm2d(4, affine=False) for _ in range(2)],
    )
    maps[0][0, 1, 2, 3] = NAN
    y = normalised_sum.normalised_sum(torch.ones(2), maps, norms)
    assert y[:, 1].isnan().all() and not y[:, 0].isnan().any() and norms[0].running_mean[1].isnan()


# -- tried out before they are used ------------------------------------------------------------------------------------


@pytest.fixture
def a_gpu(monkeypatch):
    """A device that is said to run kernels, and does on the CPU."""
    monkeypatch.setattr(launching, "device_refusal", lambda *_: "")
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda _: None)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    return torch.device("cuda")


@interpreted
@pytest.mark.parametrize("kernels", [quantisation, by_kernels, by_codes, normalised, weights])
def test_interpreter_kernels_are_tried_out(kernels, a_gpu):
    here = torch.device("cpu")
    assert launching.works("all", a_gpu, (8, 0), lambda _: kernels._agrees(here))


def moved(found: object) -> object:
    """What was found, and 1 more of everything."""
    if isinstance(found, Tensor):
        return found + 1
    return [moved(one) for one in found] if isinstance(found, (tuple, list)) else found


@interpreted
@pytest.mark.parametrize(
    ("kernels", "planted"),
    [
        (quantisation, "codes"), (quantisation, "weight_codes"), (by_kernels, "convolve"),
        (by_kernels, "dense_table_gradient"), (by_kernels, "depthwise_gradients"),
        (by_codes, "input_gradient"), (by_codes, "weight_gradient"),
        (weights, "weight_features"), (normalised, "statistics"), (normalised, "weighted_sum"), (normalised, "gradients"),
    ],
)  # fmt: skip
def test_interpreter_kernels_that_compute_something_else_are_left_out(kernels, planted, a_gpu, monkeypatch):
    right = getattr(kernels, planted)
    monkeypatch.setattr(kernels, planted, lambda *rest, **more: moved(right(*rest, **more)))
    with pytest.warns(UserWarning, match="kernels for all are left out on cuda"):
        assert not launching.works("all", a_gpu, (8, 0), lambda _: kernels._agrees(torch.device("cpu")))


def test_kernels_that_do_not_run_are_left_out(a_gpu):
    def broken(_: torch.device) -> bool:
        raise RuntimeError("PTX was rejected\nand more")

    with pytest.warns(UserWarning, match=r"left out on cuda \(RuntimeError: PTX was rejected\)"):
        assert not launching.works("all", a_gpu, (8, 0), broken)
    assert not launching.works("all", torch.device("cpu"), (8, 0), broken)
